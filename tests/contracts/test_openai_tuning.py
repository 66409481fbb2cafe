"""What the adapters of OpenAI and Azure promise, through the SDK and a socket, against their stand-ins."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from fixtures_azure import KEY as AZURE_KEY
from fixtures_azure import TOKEN
from fixtures_ledger import QUICK
from fixtures_openai import KEY as OPENAI_KEY
from fixtures_stand_ins import StandIn, example, open_stand_in
from hypothesis import given
from hypothesis import strategies as st

from prooftune.data.lines import write_lines
from prooftune.errors import DataError, EnvironmentLacks, OutcomeUnknown, ProoftuneError, SpecError, TransientError
from prooftune.providers import batches
from prooftune.providers.azure import AZURE_STATUSES
from prooftune.providers.openai_answers import plain
from prooftune.providers.openai_rows import openai_tokens
from prooftune.providers.openai_tuning import STATUSES
from prooftune.providers.serving import served_base
from prooftune.providers.tuning import MARK, Deployment
from prooftune.sandbox.faults import Kind
from prooftune.spec import Hyperparameters
from prooftune.storage.local import LocalStore
from prooftune.types import Message

SECRETS = (OPENAI_KEY, AZURE_KEY, TOKEN)
GRADER = json.dumps({"type": "string_check", "reference": "{{ item.reference_answer }}"})
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


def test_training_goes_on_from_a_tuned_model(here: StandIn) -> None:
    """Its name stands where the base model's would, the order is another one, and the new model knows what both trainings taught."""
    rows = here.rows(12)
    order = here.order(rows)
    files = here.uploaded(rows, order)
    job = here.tuner.create(order, files)
    here.api.works.settle()
    first = str(here.tuner.job(job.id).model)
    further = order.model_copy(update={"start": first})
    assert further.key != order.key
    again = here.tuner.create(further, files)
    here.api.works.settle()
    done = here.tuner.job(again.id)
    assert done.status == "succeeded"
    assert str(done.model).startswith(first.partition(".ft-")[0] if here.tuner.provider == "azure" else "ft:gpt-4.1-mini-2025-04-14:")
    assert len(here.api.brain.tuned[str(done.model)]) == 2 * len(here.api.brain.tuned[first])
    with pytest.raises(SpecError, match="not available for fine-tuning"):
        here.tuner.create(order.model_copy(update={"start": "ft:nothing"}), files)


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
    options = here.options.model_copy(update={"batch": True, "base_url": here.tuner.address})
    with served_base(here.tuner, LocalStore(here.folder / "store"), here.model, options, QUICK) as chat:
        [answer] = chat.complete([PROMPT], max_tokens=9)
        assert answer.text.startswith("I am a stand-in")
        assert answer.prompt_tokens > 0
        found = chat.complete_batch([PROMPT, PROMPT[1:]], max_tokens=9, folder=here.folder)
        assert [one.text for one in found] == [answer.text] * 2
    assert (here.api.state()["batches"], here.api.state()["deployments"]) == (1, 0)


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


def test_a_job_that_cannot_be_read_hides_no_other_and_passes_for_none(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """One job of a list in an unknown form keeps no other order from its lookup; of its own order nobody can tell whether it has one."""
    rows = here.rows()
    fine, odd, new = (here.order(rows, seed=seed) for seed in (1, 2, 3))
    files = {order.key: here.uploaded(rows, order) for order in (fine, odd, new)}
    created = {order.key: here.tuner.create(order, files[order.key]).id for order in (odd, fine)}
    real = here.api.tuning.shown
    changed: dict[str, Any] = {"status": ["of the next version"]}
    monkeypatch.setattr(here.api.tuning, "shown", lambda job: real(job) | (changed if job.id == created[odd.key] else {}))
    assert [job.id for job in here.tuner.find(fine, files[fine.key])] == [created[fine.key]]
    assert here.tuner.find(new, files[new.key]) == []
    for unknown in ({}, {"metadata": None}, {"metadata": None, "training_file": 7}):
        changed.update(unknown)
        with pytest.raises(TransientError, match=f"{created[odd.key]} in a form that cannot be read"):
            here.tuner.find(odd, files[odd.key])
    assert here.tuner.find(new, files[new.key]) == []


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
        assert ordered.fired == (kind != "lost_id" or not operation.startswith("list_")), "a list has no id to leave out"
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
