"""What the adapters of OpenAI and Azure promise, through the SDK and a socket, against their stand-ins."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from fixtures_azure import KEY as AZURE_KEY
from fixtures_azure import TOKEN
from fixtures_openai import KEY as OPENAI_KEY
from fixtures_stand_ins import StandIn, example, open_stand_in
from hypothesis import given
from hypothesis import strategies as st

from prooftune.data.lines import write_lines
from prooftune.errors import DataError, EnvironmentLacks, OutcomeUnknown, ProoftuneError, SpecError, TransientError
from prooftune.providers import batches
from prooftune.providers.azure import AZURE_STATUSES
from prooftune.providers.openai_answers import plain
from prooftune.providers.openai_rows import Rules, check_rows, method, openai_tokens, write_rows
from prooftune.providers.openai_tuning import FAMILIES, STATUSES, family_of
from prooftune.providers.tuning import MARK, Deployment, Order, open_tuner
from prooftune.sandbox.faults import Kind
from prooftune.spec import Hyperparameters, Provider
from prooftune.types import Example, Message

SECRETS = (OPENAI_KEY, AZURE_KEY, TOKEN)
PROMPT = [Message(role="system", content="Sort the ticket."), Message(role="user", content="ticket 4 about login, please help")]


@pytest.fixture(params=["openai", "azure"])
def here(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A provider's stand-in."""
    monkeypatch.setattr("prooftune.providers.calls.time.sleep", lambda seconds: None)
    with open_stand_in(request.param, tmp_path, monkeypatch) as found:
        yield found


def ready(here: StandIn, model: str, name: str) -> Deployment | None:
    """Deploy, and return the deployment as it then is."""
    if here.tuner.deploy(model, name) is None:
        return None
    return next(one for one in here.tuner.deployments() if one.name == name)


# A whole run


def test_a_run_from_rows_to_the_tuned_model(here: StandIn) -> None:
    """Rows are uploaded once, the job is created, succeeds, tells what it did, and its model answers until it is taken down."""
    capability = here.tuner.probe(here.model, "supervised")
    assert capability.tunable
    assert capability.last_job is not None
    assert capability.shutdown is not None
    rows = here.rows()
    order = here.order(rows)
    assert here.tuner.check_rows(rows, order, "train") == []
    files = here.uploaded(rows, order)
    assert here.uploaded(rows, order) == files
    files = files.model_copy(update={"validation": here.tuner.upload(here.rows(12), order.key, "validation")})
    assert files.validation not in (None, files.train)
    job = here.tuner.create(order, files)
    assert (job.status, job.ended, job.model) == ("waiting", False, None)
    here.api.works.settle()
    done = here.tuner.job(job.id)
    assert (done.status, done.ended, done.error) == ("succeeded", True, "")
    assert done.billed_tokens == here.api.state()["billed_tokens"] == 2 * tokens_in(rows)
    assert order.key.removeprefix(f"{MARK}-")[:10] in str(done.model)
    assert [found.id for found in here.tuner.find(order, files)] == [job.id]
    assert here.tuner.cancel(job.id).status == "succeeded"
    check_record(here, job.id)
    deployment = ready(here, str(done.model), order.key)
    assert deployment is None or deployment.ready
    [answer] = here.tuner.chat(deployment.chat if deployment else str(done.model)).complete([PROMPT], max_tokens=9)
    assert (answer.text, answer.finished) == ("login", True)
    here.tuner.take_down(order.key)
    here.tuner.take_down(order.key)
    assert here.tuner.deployments() == []
    assert here.api.state()["deployments"] == 0


def tokens_in(rows: Path) -> int:
    """Return the tokens of an epoch."""
    lines = rows.read_text(encoding="utf-8-sig").splitlines()
    return sum(openai_tokens(json.loads(line)["messages"]) for line in lines)


def check_record(here: StandIn, job: str) -> None:
    """Events come once and in order, checkpoints by step, and the table of metrics as text."""
    events = here.tuner.events(job, None)
    assert events[0].text.startswith("Created fine-tuning job")
    assert "successfully completed" in events[-1].text
    assert len({event.id for event in events}) == len(events)
    assert here.tuner.events(job, events[2].id) == events[3:]
    assert here.tuner.events(job, events[-1].id) == []
    assert [event.metrics["train_loss"] for event in events if event.metrics] == [1.0, 0.6667]
    checkpoints = here.tuner.checkpoints(job)
    assert [saved.step for saved in checkpoints] == [1, 2]
    assert checkpoints[0].metrics["valid_loss"] == 1.05
    [name] = here.tuner.download(job, here.folder / "results")
    assert (here.folder / "results" / name).read_text().startswith("step,train_loss")
    assert list((here.folder / "results").iterdir()) == [here.folder / "results" / name]


def test_lists_go_through_all_pages(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job, an event or a file is found however many newer ones there are."""
    monkeypatch.setattr("prooftune.providers.openai_answers.PAGE", 3)
    rows = here.rows()
    order = here.order(rows)
    files = here.uploaded(rows, order)
    job = here.tuner.create(order, files)
    for seed in range(10, 15):
        other = here.order(rows, seed=seed)
        here.tuner.create(other, here.uploaded(rows, other))
    here.api.works.settle()
    assert [found.id for found in here.tuner.find(order, files)] == [job.id]
    assert len(here.tuner.events(job.id, None)) == 7
    assert here.uploaded(rows, order) == files


def test_a_base_model_answers(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompt-only baseline asks the same provider, directly and in a batch."""
    monkeypatch.setattr(batches, "FIRST_POLL_S", 0.02)
    deployment = ready(here, here.model, f"{MARK}-base")
    chat = here.tuner.chat(deployment.chat if deployment else here.model)
    [answer] = chat.complete([PROMPT], max_tokens=9)
    assert answer.text.startswith("I am a stand-in")
    assert answer.prompt_tokens > 0
    found = chat.complete_batch([PROMPT, PROMPT[1:]], max_tokens=9, folder=here.folder)
    assert [one.text for one in found] == [answer.text] * 2
    assert here.api.state()["batches"] == 1


def test_a_job_that_fails_says_why(here: StandIn) -> None:
    """Rows that only the provider finds unfit fail the job, with its own message."""
    rows = here.rows(3)
    order = here.order(rows)
    job = here.tuner.create(order, here.uploaded(rows, order))
    here.api.works.settle()
    failed = here.tuner.job(job.id)
    assert (failed.status, failed.model, failed.billed_tokens) == ("failed", None, None)
    assert "must have at least 10 examples" in failed.error
    assert here.tuner.cancel(job.id).status == "failed"


def test_a_running_job_is_cancelled(here: StandIn) -> None:
    """A job that is asked to end is cancelled, and stays so."""
    here.api.works._pace_s = 30.0
    rows = here.rows()
    order = here.order(rows)
    job = here.tuner.create(order, here.uploaded(rows, order))
    assert here.tuner.cancel(job.id).status == "cancelled"
    assert here.tuner.job(job.id).ended


# Created once


def fault(here: StandIn, kind: Kind, operation: str, value: str = "", times: int = 1) -> Any:
    """Order a fault."""
    return here.api.faults.order(kind, operation, times=times, value=value)


@pytest.mark.parametrize("kind", ["reset_after", "error_after", "timeout_after", "cut", "lost_id"])
def test_a_lost_answer_is_an_unknown_outcome(kind: Kind, here: StandIn) -> None:
    """Where the job was created and no answer says so, it is looked for, found, and there is one."""
    tuner: Any = here.tuner
    tuner.client.timeout = 0.5
    rows = here.rows()
    order = here.order(rows)
    files = here.uploaded(rows, order)
    ordered = fault(here, kind, "create_job", value="5" if kind == "timeout_after" else "")
    with pytest.raises(OutcomeUnknown, match=f"{tuner.provider} at http"):
        tuner.create(order, files)
    assert ordered.fired == 1
    assert here.jobs == 1
    [job] = tuner.find(order, files)
    assert tuner.job(job.id).id == job.id
    assert [name for name, _, _ in here.api.seen].count("create_job") == 1


@pytest.mark.parametrize(
    ("kind", "raised"),
    [
        ("rate_limit", TransientError),
        ("refuse", SpecError),
        ("quota", EnvironmentLacks),
        ("reset_before", OutcomeUnknown),
        ("error_before", OutcomeUnknown),
    ],
)
def test_a_request_that_created_nothing(kind: Kind, raised: type[ProoftuneError], here: StandIn) -> None:
    """A refusal is no unknown outcome; a reset or a 500 is one, and then nothing is found. No key stands in any error."""
    rows = here.rows()
    order = here.order(rows)
    files = here.uploaded(rows, order)
    ordered = fault(here, kind, "create_job", value=f"bad order of {OPENAI_KEY} {AZURE_KEY}" if kind == "refuse" else "")
    with pytest.raises(raised) as caught:
        here.tuner.create(order, files)
    assert type(caught.value) is raised
    assert ordered.fired == 1
    assert here.jobs == 0
    assert here.tuner.find(order, files) == []
    own = OPENAI_KEY if here.tuner.provider == "openai" else AZURE_KEY
    assert own not in str(caught.value)
    assert own not in repr(pickle.dumps(caught.value))
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_server_that_cannot_be_reached_created_nothing(here: StandIn) -> None:
    """No connection, no job: that is sure, and may be tried again."""
    rows = here.rows()
    order = here.order(rows)
    files = here.uploaded(rows, order)
    tuner: Any = here.tuner
    tuner.client.base_url = "http://127.0.0.1:9/v1"
    with pytest.raises(TransientError) as caught:
        tuner.create(order, files)
    assert not isinstance(caught.value, OutcomeUnknown)


def test_other_orders_are_other_jobs(here: StandIn) -> None:
    """What differs in seed, hyperparameters, name or attempt is found under its own order alone, whatever lists show."""
    rows = here.rows()
    orders = [
        here.order(rows, **change)
        for change in ({}, {"seed": 8}, {"hyperparameters": Hyperparameters(epochs=1)}, {"name": "sorting"}, {"attempt": 2})
    ]
    made = {}
    for order in orders:
        files = here.uploaded(rows, order)
        made[order.key] = (here.tuner.create(order, files).id, order, files)
    assert len(made) == len(orders)
    for identity, order, files in made.values():
        assert [job.id for job in here.tuner.find(order, files)] == [identity]


def test_a_list_that_lags_shows_nothing(here: StandIn) -> None:
    """A list without its newest job proves nothing, and the next look finds it."""
    rows = here.rows()
    order = here.order(rows)
    files = here.uploaded(rows, order)
    job = here.tuner.create(order, files)
    ordered = fault(here, "stale", "list_jobs")
    assert here.tuner.find(order, files) == []
    assert ordered.fired == 1
    assert [found.id for found in here.tuner.find(order, files)] == [job.id]


@pytest.mark.parametrize("operation", ["upload_file", "list_files", "get_file", "list_jobs", "get_job", "list_events", "list_checkpoints"])
def test_what_may_be_asked_again_is(operation: str, here: StandIn) -> None:
    """Every other request is repeated, and an upload whose answer was lost is found instead of sent again."""
    rows = here.rows()
    kinds: tuple[Kind, ...] = ("rate_limit", "error_before", "error_after", "reset_before", "reset_after", "cut", "lost_id")
    for seed, kind in enumerate(kinds):
        order = here.order(rows, seed=seed)
        ordered = fault(here, kind, operation)
        files = here.uploaded(rows, order)
        job = here.tuner.create(order, files)
        here.api.works.settle()
        assert [found.id for found in here.tuner.find(order, files)] == [job.id]
        assert here.tuner.job(job.id).status == "succeeded"
        assert len(here.tuner.events(job.id, None)) == 7
        assert len(here.tuner.checkpoints(job.id)) == 2
        assert ordered.fired == 1
    sent = [file for file in here.api.files.files.values() if file.purpose == "fine-tune"]
    assert len(sent) == len(kinds)


def test_an_unknown_status_does_not_last(here: StandIn) -> None:
    """A word that no table has is unknown, and the job is looked at again."""
    rows = here.rows()
    order = here.order(rows)
    job = here.tuner.create(order, here.uploaded(rows, order))
    for word, status in (("hibernating", "unknown"), ("paused", "paused")):
        ordered = fault(here, "status", "get_job", value=word)
        found = here.tuner.job(job.id)
        assert (found.status, found.told, found.ended, ordered.fired) == (status, word, False, 1)


def test_a_file_that_the_provider_finds_unfit(here: StandIn) -> None:
    """A file in the state ``error`` is an error, and is not taken for one that was uploaded."""
    rows = here.rows()
    order = here.order(rows)
    ordered = fault(here, "status", "get_file", value="error")
    with pytest.raises(DataError, match=r"finds rows-40\.jsonl unfit"):
        here.uploaded(rows, order)
    assert ordered.fired == 1


def test_what_is_no_jsonl_is_refused_at_upload(here: StandIn) -> None:
    """The provider's own message names the line."""
    rows = here.rows()
    rows.write_bytes(rows.read_bytes() + b"[]\n")
    with pytest.raises(SpecError, match="Line 41 is not a dictionary"):
        here.uploaded(rows, here.order(rows))


def test_statuses_are_those_of_the_sdk() -> None:
    """The table has every word of the SDK's type, and one that the API has besides."""
    from openai.types.fine_tuning import FineTuningJob

    words = set(get_args(FineTuningJob.model_fields["status"].annotation))
    assert set(STATUSES) == words | {"paused"}
    assert STATUSES.items() <= AZURE_STATUSES.items()


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "AZURE_OPENAI_API_KEY"])
def test_a_key_is_required(variable: str, here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its key a provider's adapter does not open."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("AZURE_OPENAI_API_KEY", raising=False)
    options: Provider = here.tuner.options
    with pytest.raises(EnvironmentLacks, match="_API_KEY is not set"):
        open_tuner(here.tuner.provider, options)


@pytest.mark.parametrize(
    ("model", "objective", "tunable"),
    [
        ("gpt-4.1-mini", "supervised", True),
        ("gpt-4o-mini-2024-07-18", "preference", True),
        ("gpt-4.1", "reinforcement", False),
        ("o4-mini", "reinforcement", True),
        ("gpt-5-mini", "supervised", False),
        ("gpt-nowhere", "supervised", False),
    ],
)
def test_a_probe_says_what_can_be_tuned(model: str, objective: Any, tunable: bool, here: StandIn) -> None:
    """A model that does not exist, or is not tuned in that way, is told apart, with a reason; nothing is spent."""
    capability = here.tuner.probe(model, objective)
    assert capability.tunable is tunable
    assert capability.why
    assert here.jobs == 0


def test_families() -> None:
    """A model is known by its family, whatever its version."""
    assert {family_of(name) for name in ("gpt-4.1", "gpt-4.1-2025-04-14", "ft:gpt-4.1-2025-04-14:org:x:1")} == {"gpt-4.1"}
    assert all(family_of(name) == name for name in FAMILIES)


# Hyperparameters and grader


def an_order(objective: str = "supervised", seed: int = 7, grader: str | None = None, **chosen: Any) -> Order:
    """Return an order."""
    return Order.model_validate(
        {
            "provider": "openai",
            "address": "here",
            "model": "gpt-4.1",
            "objective": objective,
            "hyperparameters": {"epochs": 2, **chosen},
            "seed": seed,
            "name": "triage",
            "train_sha256": "0" * 64,
            "grader": grader,
        }
    )


def test_hyperparameters_are_sent_as_they_are() -> None:
    """What is set is sent, what is not is left to the provider, and each objective has its own block."""
    assert method(an_order()) == {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}}
    assert method(an_order("preference", beta=0.2, batch_size=8)) == {
        "type": "dpo",
        "dpo": {"hyperparameters": {"n_epochs": 2, "batch_size": 8, "beta": 0.2}},
    }
    grader = {"type": "string_check", "name": "g"}
    assert method(an_order("reinforcement", grader=json.dumps(grader)))["reinforcement"]["grader"] == grader


@pytest.mark.parametrize(
    ("order", "field"),
    [
        (an_order(learning_rate=1e-4), "provider.hyperparameters.learning_rate "),
        (an_order(adapter_rank=8), "provider.hyperparameters.adapter_rank"),
        (an_order(adapter_alpha=8), "provider.hyperparameters.adapter_alpha"),
        (an_order(batch_size=257), "provider.hyperparameters.batch_size is 257"),
        (an_order(beta=0.1), "provider.hyperparameters.beta"),
        (an_order("preference", beta=3.0), "provider.hyperparameters.beta is 3"),
        (an_order(seed=-1), "the seed is -1"),
        (an_order(seed=2**31), "the seed is"),
        (an_order("reinforcement"), "provider.grader"),
        (an_order("reinforcement", grader='{"type": "vibes"}'), "provider.grader"),
    ],
)
def test_what_the_provider_does_not_take_is_refused(order: Order, field: str) -> None:
    """A hyperparameter is never dropped in silence: the error names it."""
    with pytest.raises(SpecError, match=field):
        method(order)


def test_reinforcement_asks_for_a_validation_file(here: StandIn) -> None:
    """What the API requires is known before the request."""
    rows = here.rows()
    order = here.order(rows, objective="reinforcement", grader='{"type": "string_check"}', model="o4-mini")
    with pytest.raises(SpecError, match="validation file"):
        here.tuner.create(order, here.uploaded(rows, order))
    assert "create_job" not in {name for name, _, _ in here.api.seen}


# Rows

GOOD: dict[str, Any] = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
PAIR: dict[str, Any] = {
    "input": {"messages": [{"role": "user", "content": "a"}]},
    "preferred_output": [{"role": "assistant", "content": "b"}],
    "non_preferred_output": [{"role": "assistant", "content": "c"}],
}
GRADED: dict[str, Any] = {"messages": [{"role": "user", "content": "a"}], "reference_answer": "b"}
GRADER = json.dumps({"type": "string_check", "reference": "{{ item.reference_answer }}"})


def written(path: Path, *rows: object) -> Path:
    """Write rows, as JSON or as they are."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def said(*messages: dict[str, Any]) -> dict[str, Any]:
    """Return a row."""
    return {"messages": list(messages)}


USER, ASSISTANT = GOOD["messages"]
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}


@pytest.mark.parametrize(
    "row",
    [
        GOOD,
        said({"role": "system", "content": "s"}, USER, ASSISTANT),
        said(USER, ASSISTANT | {"weight": 0}, USER, ASSISTANT | {"weight": 1}),
        said(USER, CALL, {"role": "tool", "tool_call_id": "c", "content": "1"}, ASSISTANT),
        GOOD | {"tools": [], "parallel_tool_calls": False},
        said({"role": "user", "content": [{"type": "text", "text": "a"}]}, ASSISTANT),
    ],
)
def test_good_rows_pass(row: dict[str, Any], tmp_path: Path) -> None:
    """Every form that the guide shows is taken."""
    assert check_rows(written(tmp_path / "r.jsonl", *[row] * 10), an_order(), "train", Rules()) == []


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (b"", "blank-line"),
        (b'{"messages": "\xff"}', "not-utf8"),
        (b'{"messages": [', "not-json"),
        (b"[" * 100_000, "not-json"),
        (b"[]", "not-an-object"),
        ({}, "missing-field"),
        (GOOD | {"id": 1}, "unknown-field"),
        ({"messages": []}, "no-messages"),
        ({"messages": "a"}, "no-messages"),
        (said(USER, "b"), "bad-role"),
        (said(USER, {"role": "model", "content": "b"}), "bad-role"),
        (said(USER, {"role": "assistant", "content": ""}), "no-content"),
        (said({"role": "user", "content": None}, ASSISTANT), "no-content"),
        (said(USER, {"role": "tool", "content": "1"}, ASSISTANT), "tool-without-call"),
        (said(USER, ASSISTANT | {"weight": 2}), "bad-weight"),
        (said(USER | {"weight": 1}, ASSISTANT), "bad-weight"),
        (said(ASSISTANT, USER), "wrong-last-role"),
        (said(USER, ASSISTANT | {"weight": 0}), "nothing-to-learn"),
        (said({"role": "user", "content": "a b " * 40_000}, ASSISTANT), "too-long"),
    ],
)
def test_bad_rows_are_found_by_line(row: Any, code: str, tmp_path: Path) -> None:
    """Each rule has a code, and its problem a line; text of the row is not quoted."""
    path = written(tmp_path / "r.jsonl", *[GOOD] * 10, row)
    [problem] = check_rows(path, an_order(), "train", Rules())
    assert (problem.where, problem.code) == ("r.jsonl:11", code)


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (PAIR | {"extra": 1}, "unknown-field"),
        ({name: PAIR[name] for name in ("input", "preferred_output")}, "missing-field"),
        (PAIR | {"input": []}, "bad-input"),
        (PAIR | {"input": {"messages": PAIR["input"]["messages"], "more": 1}}, "bad-input"),
        (PAIR | {"input": {"messages": [USER, ASSISTANT]}}, "wrong-last-role"),
        (PAIR | {"preferred_output": [USER]}, "bad-output"),
        (PAIR | {"non_preferred_output": [ASSISTANT, ASSISTANT]}, "bad-output"),
        (PAIR | {"non_preferred_output": []}, "no-messages"),
        (PAIR | {"non_preferred_output": [{"role": "assistant", "content": "a b " * 40_000}]}, "too-long"),
    ],
)
def test_bad_pairs_are_found_by_line(row: Any, code: str, tmp_path: Path) -> None:
    """Preference rows have rules of their own."""
    path = written(tmp_path / "r.jsonl", *[PAIR] * 10, row)
    assert [(one.where, one.code) for one in check_rows(path, an_order("preference"), "train", Rules())] == [("r.jsonl:11", code)]


@pytest.mark.parametrize(
    ("row", "code"),
    [(said(USER, ASSISTANT) | {"reference_answer": "b"}, "wrong-last-role"), (said(USER), "missing-field"), ({}, "missing-field")],
)
def test_bad_rows_for_a_grader_are_found(row: Any, code: str, tmp_path: Path) -> None:
    """A reinforcement row ends with the user, and has every field that the grader reads."""
    order = an_order("reinforcement", grader=GRADER)
    path = written(tmp_path / "r.jsonl", *[GRADED] * 10, row)
    assert [(one.where, one.code) for one in check_rows(path, order, "train", Rules())] == [("r.jsonl:11", code)]


def test_whole_files_have_rules(tmp_path: Path) -> None:
    """Too few rows, too many bytes, and a byte-order mark where none belongs, or none where one does."""
    few = written(tmp_path / "few.jsonl", *[GOOD] * 9)
    assert [one.code for one in check_rows(few, an_order(), "train", Rules())] == ["too-few-rows"]
    assert check_rows(few, an_order(), "validation", Rules()) == []
    assert [one.code for one in check_rows(few, an_order(), "validation", Rules(file_bytes=99))] == ["file-too-large"]
    assert [one.code for one in check_rows(few, an_order(), "validation", Rules(byte_order_mark=True))] == ["byte-order-mark"]
    few.write_bytes(b"\xef\xbb\xbf" + few.read_bytes())
    assert [one.code for one in check_rows(few, an_order(), "validation", Rules())] == ["byte-order-mark"]
    assert check_rows(few, an_order(), "validation", Rules(byte_order_mark=True)) == []
    assert [one.code for one in check_rows(written(tmp_path / "no.jsonl"), an_order(), "validation", Rules())] == ["too-few-rows"]


TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)


@given(texts=st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=4), system=st.text("ab ", max_size=3), marked=st.booleans())
def test_rows_are_the_examples(
    texts: list[tuple[str, str, str]], system: str, marked: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever the text, each line is its example, in order, and passes its own check, in all three forms."""
    folder = tmp_path_factory.mktemp("rows")
    examples = [
        Example(
            id=f"{n:016x}",
            source=f"t:{n}",
            messages=(Message(role="user", content=ask), Message(role="assistant", content=chosen)),
            rejected=rejected,
        )
        for n, (ask, chosen, rejected) in enumerate(texts)
    ]
    write_lines(folder / "examples.jsonl", examples)
    rules = Rules(rows_min=1, byte_order_mark=marked)
    head = [{"role": "system", "content": system}] if system else []
    for objective, order in (
        ("supervised", an_order()),
        ("preference", an_order("preference")),
        ("reinforcement", an_order("reinforcement", grader=GRADER)),
    ):
        out = folder / f"{objective}.jsonl"
        write_rows(folder / "examples.jsonl", system, objective, out, rules)
        assert check_rows(out, order, "train", rules) == []
        assert out.read_bytes().startswith(b"\xef\xbb\xbf") is marked
        rows = [json.loads(line) for line in out.read_bytes().decode("utf-8-sig" if marked else "utf-8").split("\n")[:-1]]
        assert len(rows) == len(examples)
        for row, (ask, chosen, rejected) in zip(rows, texts, strict=True):
            prompt = [*head, {"role": "user", "content": ask}]
            wanted: dict[str, Any] = {"messages": [*prompt, {"role": "assistant", "content": chosen}]}
            if objective == "preference":
                outputs = [[{"role": "assistant", "content": text}] for text in (chosen, rejected)]
                wanted = {"input": {"messages": prompt}, "preferred_output": outputs[0], "non_preferred_output": outputs[1]}
            elif objective == "reinforcement":
                wanted = {"messages": prompt, "reference_answer": chosen}
            assert row == wanted


def test_an_example_without_a_rejected_answer_is_no_pair(tmp_path: Path) -> None:
    """Preference tuning on plain examples is refused, with where the example came from."""
    write_lines(tmp_path / "e.jsonl", [example(0)])
    with pytest.raises(DataError, match=r"e\.jsonl:1 \(from tickets\.jsonl:1\) has no rejected answer"):
        write_rows(tmp_path / "e.jsonl", "", "preference", tmp_path / "out.jsonl", Rules())


@given(text=st.text(max_size=50))
def test_result_files_are_text(text: str) -> None:
    """A table is the same whether it comes in base64 or as it is."""
    import base64

    table = f"step,train_loss\n1,{text}".encode(errors="replace")
    assert plain(base64.b64encode(table)) == plain(table) == table


@pytest.mark.parametrize("objective", ["preference", "reinforcement"])
def test_other_objectives_run_as_well(objective: Any, here: StandIn) -> None:
    """Pairs, and prompts with a grader, are written, checked, uploaded and tuned on."""
    write_lines(here.folder / "e.jsonl", (example(n).model_copy(update={"rejected": "no idea"}) for n in range(12)))
    rows = here.folder / "other.jsonl"
    here.tuner.write_rows(here.folder / "e.jsonl", "Sort.", objective, rows)
    changes: dict[str, Any] = {"model": "o4-mini", "grader": GRADER} if objective == "reinforcement" else {}
    order = here.order(rows, objective=objective, **changes)
    assert here.tuner.check_rows(rows, order, "train") == []
    files = here.uploaded(rows, order)
    job = here.tuner.create(order, files.model_copy(update={"validation": files.train}))
    here.api.works.settle()
    assert here.tuner.job(job.id).status == "succeeded"


def test_tokens_are_counted_as_documented() -> None:
    """Three a message, its role and text, and three for the example; text that looks like a mark is text."""
    assert openai_tokens([{"role": "user", "content": "hello world"}]) == 3 + 3 + 1 + 2
    assert openai_tokens([{"role": "assistant", "content": None}]) == 3 + 3 + 1
    assert math.isfinite(openai_tokens([{"role": "user", "content": "<|endoftext|>"}]))
