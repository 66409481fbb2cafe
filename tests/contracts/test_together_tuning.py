"""What Together's adapter promises, through the SDK and a socket, against its stand-in."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from fixtures_stand_ins import StandIn, example, open_stand_in
from fixtures_together import KEY, asked, fault, tuned

from prooftune.data.lines import write_lines
from prooftune.errors import (
    DataError,
    EnvironmentLacks,
    OutcomeUnknown,
    ProoftuneError,
    SpecError,
    TransientError,
)
from prooftune.providers import batches
from prooftune.providers.ledger import Entry, Ledger
from prooftune.providers.submission import Rows, submit
from prooftune.providers.together_answers import STATUSES
from prooftune.providers.together_connection import read_failure
from prooftune.providers.tuning import MARK, open_tuner
from prooftune.sandbox import together_jobs
from prooftune.sandbox.faults import Kind
from prooftune.sandbox.models import CannedBrain
from prooftune.sandbox.together_shown import listed
from prooftune.sandbox.work import tokens_of as tokens_by
from prooftune.spec import Hyperparameters, Provider
from prooftune.storage.local import LocalStore
from prooftune.types import Message

sdk = pytest.importorskip("together")
PROMPT = [Message(role="system", content="Sort the ticket."), Message(role="user", content="ticket 4 about login, please help")]
tokens_of = tokens_by(CannedBrain())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Together's stand-in."""
    with open_stand_in("together", tmp_path, monkeypatch) as found:
        yield found


# A whole run


def test_a_run_from_rows_to_the_tuned_model(here: StandIn) -> None:
    """Rows are uploaded once, the job is created, succeeds, tells what it did, and its model answers until it is taken down."""
    capability = here.tuner.probe(here.model, "preference")
    assert (capability.tunable, capability.owns_weights, capability.limits["tokens_per_example"]) == (True, True, 16_384)
    rows = here.rows()
    order = here.order(rows)
    assert here.tuner.check_rows(rows, order, "train") == []
    files = here.uploaded(rows, order)
    assert here.uploaded(rows, order) == files
    files = files.model_copy(update={"validation": here.tuner.upload(here.rows(12), order.key, "validation")})
    job = here.tuner.create(order, files)
    assert (job.status, job.ended, job.model, job.billed_tokens) == ("waiting", False, None, None)
    here.api.works.settle()
    done = here.tuner.job(job.id)
    assert (done.status, done.ended, done.error) == ("succeeded", True, "")
    tokens = 2 * sum(tokens_of(example(n)) + 4 for n in range(40)) + 2 * sum(tokens_of(example(n)) + 4 for n in range(12))
    assert done.billed_tokens == here.api.state()["billed_tokens"] == tokens
    assert done.billed_usd == pytest.approx(tokens * 0.48e-6) == pytest.approx(here.tuner.estimate(order, files))
    assert order.key.removeprefix(f"{MARK}-")[:10] in str(done.model)
    assert [found.id for found in here.tuner.find(order, files)] == [job.id]
    assert here.tuner.cancel(job.id).status == "succeeded"
    check_record(here, job.id)
    deployment = here.tuner.deploy(str(done.model), order.key)
    assert here.tuner.deploy(str(done.model), order.key) == deployment
    assert here.tuner.deployments() == [deployment]
    assert deployment.ready
    [answer] = here.tuner.chat(deployment.chat).complete([PROMPT], max_tokens=9)
    assert (answer.text, answer.finished) == ("login", True)
    here.tuner.take_down(order.key)
    here.tuner.take_down(order.key)
    assert here.tuner.deployments() == []
    assert here.api.state() == {"jobs": 1, "billed_tokens": tokens, "deployments": 0, "files": 2, "batches": 0}


def check_record(here: StandIn, job: str) -> None:
    """Events come once and in order with what was measured, checkpoints by step, and weights without a pickle."""
    events = here.tuner.events(job, None)
    assert events[0].text.startswith("Created fine-tuning job")
    assert "successfully completed" in events[-1].text
    assert sorted(event.id for event in events) == [event.id for event in events]
    assert len({event.id for event in events}) == len(events)
    assert here.tuner.events(job, events[2].id) == events[3:]
    assert here.tuner.events(job, events[-1].id) == []
    assert [event.metrics["train_loss"] for event in events if "train_loss" in event.metrics] == [1.0, 0.6667]
    assert [event.metrics["valid_loss"] for event in events if "valid_loss" in event.metrics] == [1.05, 0.7]
    assert [(saved.id, saved.step) for saved in here.tuner.checkpoints(job)] == [(f"{job}:2", 2)]
    out = here.folder / "results"
    names = here.tuner.download(job, out)
    assert names == ["metrics.jsonl", "adapter_config.json", "adapter_model.safetensors"]
    assert {path.name for path in out.iterdir()} == set(names)
    assert json.loads((out / "metrics.jsonl").read_text().splitlines()[0])["train/loss"] == 1.0


def test_pairs_are_tuned_on(here: StandIn) -> None:
    """A preference tuning takes pairs and beta, and bills both conversations."""
    write_lines(here.folder / "e.jsonl", (example(n).model_copy(update={"rejected": "no idea"}) for n in range(12)))
    rows = here.folder / "pairs.jsonl"
    here.tuner.write_rows(here.folder / "e.jsonl", "", "preference", rows)
    order = here.order(rows, objective="preference", hyperparameters=Hyperparameters(epochs=2, beta=0.2, adapter_rank=8))
    assert here.tuner.check_rows(rows, order, "train") == []
    job = here.tuner.create(order, here.uploaded(rows, order))
    here.api.works.settle()
    assert here.tuner.job(job.id).billed_tokens == 2 * sum(2 * (tokens_of(example(n)) - 1) + 3 for n in range(12))
    assert here.api.works.jobs[job.id].fields["training_type"] == {"type": "Lora", "lora_r": 8, "lora_alpha": 16}
    assert not here.tuner.probe("google/gemma-3-4b-it", "preference").tunable


def test_a_base_model_answers(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompt-only baseline asks the same provider, directly and in a batch, which is found again and not paid for twice."""
    monkeypatch.setattr(batches, "FIRST_POLL_S", 0.02)
    assert here.tuner.deploy(here.model, f"{MARK}-base") is None
    chat = here.tuner.chat(here.model)
    [answer] = chat.complete([PROMPT], max_tokens=9)
    assert answer.text.startswith("I am a stand-in")
    for folder in (here.folder, here.folder / "after-a-crash"):
        folder.mkdir(exist_ok=True)
        found = chat.complete_batch([PROMPT, PROMPT[1:]], max_tokens=9, folder=folder)
        assert [one.text for one in found] == [answer.text] * 2
        assert {one.latency_s for one in found} == {None}
    assert here.api.state()["batches"] == 1


def test_a_job_that_fails_says_why(here: StandIn) -> None:
    """The reason stands among the events; a failed job leaves metrics and no weights."""
    rows = here.rows()
    order = here.order(rows)
    files = here.uploaded(rows, order)
    here.api.works.fail_next = "out of memory"
    job = here.tuner.create(order, files)
    here.api.works.settle()
    failed = here.tuner.job(job.id)
    assert (failed.status, failed.model, failed.error) == ("failed", None, "The job failed: out of memory")
    assert here.tuner.cancel(job.id).status == "failed"
    assert here.tuner.download(job.id, here.folder / "nothing") == ["metrics.jsonl"]


def test_a_running_job_is_cancelled(here: StandIn) -> None:
    """A job that is asked to end is cancelled, and stays so."""
    here.api.works._pace_s = 30.0
    rows = here.rows()
    order = here.order(rows)
    job = here.tuner.create(order, here.uploaded(rows, order))
    assert here.tuner.cancel(job.id).status == "cancelled"
    assert here.tuner.job(job.id).ended


def test_a_price_beyond_the_account_stops(here: StandIn) -> None:
    """What Together itself would take and then cancel is refused here; a file that is not checked has no estimate."""
    rows = here.rows()
    order = here.order(rows)
    files = here.uploaded(rows, order)
    here.api.jobs.credit_usd = 0.0
    with pytest.raises(EnvironmentLacks, match=r"its limit of 0\.00 USD"):
        here.tuner.estimate(order, files)
    here.api.files.files[files.train].checked = None
    assert here.tuner.estimate(order, files) is None
    assert here.jobs == 0


# Created once


@pytest.mark.parametrize("kind", ["reset_after", "error_after", "timeout_after", "cut", "lost_id"])
def test_a_lost_answer_is_an_unknown_outcome(kind: Kind, here: StandIn) -> None:
    """Where the job was created and no answer says so, it is looked for, found, and there is one."""
    rows = here.rows()
    order = here.order(rows)
    files = here.uploaded(rows, order)
    here.tuner.api.client.timeout = 0.5
    ordered = fault(here, kind, "create_job", value="5" if kind == "timeout_after" else "")
    before = len(here.api.seen)
    with pytest.raises(OutcomeUnknown, match="together at http"):
        here.tuner.create(order, files)
    assert [name for name, _, _ in here.api.seen[before:]] == ["create_job"]
    assert ordered.fired == 1
    assert here.jobs == 1
    [job] = here.tuner.find(order, files)
    assert here.tuner.job(job.id).id == job.id


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
    """A refusal is no unknown outcome; a reset or a 500 is one, and then nothing is found. The key stands in no error."""
    rows = here.rows()
    order = here.order(rows)
    files = here.uploaded(rows, order)
    ordered = fault(here, kind, "create_job", value=f"bad order of {KEY}" if kind == "refuse" else "")
    with pytest.raises(raised) as caught:
        here.tuner.create(order, files)
    assert type(caught.value) is raised
    assert ordered.fired == 1
    assert here.jobs == 0
    assert here.tuner.find(order, files) == []
    assert KEY not in str(caught.value) + repr(pickle.dumps(caught.value))
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_server_that_cannot_be_reached_created_nothing(here: StandIn) -> None:
    """No connection, no job: that is sure, and may be tried again."""
    rows = here.rows()
    order = here.order(rows)
    files = here.uploaded(rows, order)
    here.tuner.api.client.base_url = "http://127.0.0.1:9"
    with pytest.raises(TransientError) as caught:
        here.tuner.create(order, files)
    assert not isinstance(caught.value, OutcomeUnknown)


def test_creating_is_one_request(here: StandIn) -> None:
    """One request creates the job; the SDK's own method makes three."""
    rows = here.rows()
    order = here.order(rows)
    files = here.uploaded(rows, order)
    before = len(here.api.seen)
    here.tuner.create(order, files)
    assert [name for name, _, _ in here.api.seen[before:]] == ["create_job"]
    before = len(here.api.seen)
    here.tuner.api.client.fine_tuning.create(training_file=files.train, model=here.model)
    assert [name for name, _, _ in here.api.seen[before:]] == ["probe", "estimate", "create_job"]


def test_the_price_is_asked_before_the_order_is_claimed(here: StandIn, tmp_path: Path) -> None:
    """However long Together takes to say the price, and whatever it says: the order is free meanwhile, and then submitted once."""
    rows, ledger = here.rows(), Ledger(LocalStore(tmp_path / "store"))
    order = here.order(rows)
    silent = fault(here, "rate_limit", "estimate", times=5, value="0")
    credit, here.api.jobs.credit_usd = here.api.jobs.credit_usd, 0.0
    for raised in (TransientError, EnvironmentLacks):
        with pytest.raises(raised):
            submit(here.tuner, ledger, Entry(order=order, run="triage-0"), Rows(rows))
        assert not any(note.what == "submitting" for note in ledger.read(order.key).history)
    here.api.jobs.credit_usd = credit
    assert submit(here.tuner, ledger, Entry(order=order, run="triage-0"), Rows(rows)).state == "submitted"
    assert (silent.fired, asked(here, "create_job")) == (5, 1)


def test_other_orders_are_other_jobs(here: StandIn) -> None:
    """What differs in seed, hyperparameters, name or attempt is found under its own order alone, although the file is the same."""
    rows = here.rows()
    changes: list[dict[str, Any]] = [{}, {"seed": 8}, {"hyperparameters": Hyperparameters(epochs=1)}, {"name": "x" * 90}, {"attempt": 2}]
    made = {}
    for change in changes:
        order = here.order(rows, **change)
        files = here.uploaded(rows, order)
        made[order.key] = (here.tuner.create(order, files).id, order, files)
    assert len(made) == len(changes)
    for identity, order, files in made.values():
        assert [job.id for job in here.tuner.find(order, files)] == [identity]
    assert asked(here, "put_file") == 1


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


def test_a_job_that_cannot_be_read_hides_no_other_and_passes_for_none(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """One job of the list in an unknown form keeps no other order from its lookup; of its own order nobody can tell whether it has one."""
    rows = here.rows()
    fine, odd, new = (here.order(rows, seed=seed) for seed in (1, 2, 3))
    files = here.uploaded(rows, fine)
    made, hidden = here.tuner.create(fine, files).id, here.tuner.create(odd, files).id
    changed: dict[str, Any] = {"total_price": {"of": "the next version"}}
    monkeypatch.setattr(together_jobs, "listed", lambda job: listed(job) | (changed if job.id == hidden else {}))
    assert [job.id for job in here.tuner.find(fine, files)] == [made]
    assert here.tuner.find(new, files) == []
    for unknown in ({}, {"suffix": None}, {"random_seed": "2"}):
        changed.update(unknown)
        with pytest.raises(TransientError, match=f"{hidden} in a form that cannot be read"):
            here.tuner.find(odd, files)
    with pytest.raises(TransientError, match="cannot be read"):  # nothing of it says any more that it is another's
        here.tuner.find(new, files)


READ = ("upload_file", "put_file", "check_file", "get_file", "list_jobs", "get_job", "list_events", "list_checkpoints", "result_file")


@pytest.mark.parametrize("operation", READ)
def test_what_may_be_asked_again_is(operation: str, here: StandIn) -> None:
    """Every other request is repeated, and an upload whose answer was lost makes no second file."""
    kinds: tuple[Kind, ...] = ("rate_limit", "error_before", "error_after", "reset_before", "reset_after", "cut", "lost_id")
    nameless = {"put_file", "list_jobs", "list_events", "list_checkpoints", "result_file"}
    nothing_to_take = {"cut": {"upload_file", "put_file"}, "lost_id": nameless}
    for count, kind in enumerate(kinds, start=11):
        rows = here.rows(count)
        order = here.order(rows)
        ordered = fault(here, kind, operation, value="0")
        files = here.uploaded(rows, order)
        job = here.tuner.create(order, files)
        here.api.works.settle()
        assert [found.id for found in here.tuner.find(order, files)] == [job.id]
        assert here.tuner.job(job.id).status == "succeeded"
        assert len(here.tuner.events(job.id, None)) == 9
        assert len(here.tuner.checkpoints(job.id)) == 1
        assert len(here.tuner.download(job.id, here.folder / kind)) == 3
        assert ordered.fired == (operation not in nothing_to_take.get(kind, ()))
        here.api.faults.clear()
    assert here.api.state()["files"] == len(kinds)


# Words and refusals


def test_an_unknown_status_does_not_last(here: StandIn) -> None:
    """A word that no table has is unknown, and the job is looked at again."""
    rows = here.rows()
    order = here.order(rows)
    job = here.tuner.create(order, here.uploaded(rows, order))
    ordered = fault(here, "status", "get_job", value="hibernating")
    found = here.tuner.job(job.id)
    assert (found.status, found.told, found.ended, ordered.fired) == ("unknown", "hibernating", False, 1)


def test_statuses_are_those_of_the_sdk() -> None:
    """The table has every word of the SDK's types, the older ones too."""
    from together.types import FinetuneResponse
    from together.types.finetune import FinetuneJobStatus

    words = set(get_args(FinetuneResponse.model_fields["status"].annotation))
    assert set(STATUSES) == words | {status.value for status in FinetuneJobStatus}


def test_a_file_that_the_provider_finds_unfit(here: StandIn) -> None:
    """Rows that only the provider finds unfit are an error with its reason, as often as they are uploaded."""
    rows = here.rows()
    rows.write_bytes(rows.read_bytes() + b'{"text": "x"}\n')
    for _ in range(2):
        with pytest.raises(DataError, match=r"finds rows-40\.jsonl unfit .*mixes the formats"):
            here.uploaded(rows, here.order(rows))


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 422, 425, 429, 460, 499, 500, 503])
def test_every_error_of_the_sdk_is_mapped(status: int) -> None:
    """What may be repeated is told from what may not, and the signature of an address is told to nobody."""
    import httpx

    told = f"refused https://storage/file?X-Amz-Signature={KEY}"
    request = httpx.Request("GET", "http://together")
    response = httpx.Response(status, json={"error": {"message": told}}, request=request)
    error = sdk.Together(api_key="x", base_url="http://together")._make_status_error_from_response(response)
    failure = read_failure(error)
    assert (failure.status, failure.transient) == (status, status in (409, 425, 429, 499, 500, 503))
    assert failure.surely_not_done == (status in (400, 401, 402, 403, 404, 422, 429))
    assert failure.message == "refused https://storage/file?…"
    assert read_failure(sdk.APITimeoutError(request)).transient


def test_what_the_account_lacks_is_said(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key is required; and where it is of no single project, so is the project, which then stands in the address."""
    order, model = tuned(here)
    here.api.registry.key_of_project = False
    with pytest.raises(SpecError, match=r"provider\.project is not set"):
        here.tuner.deploy(model, order.key)
    options = Provider(base_url=here.tuner.address, project="proj-acme")
    tuner = open_tuner("together", options)
    assert tuner.address.endswith("/v2/projects/proj-acme")
    assert tuner.deploy(model, order.key)
    monkeypatch.delenv("TOGETHER_API_KEY")
    with pytest.raises(EnvironmentLacks, match="TOGETHER_API_KEY is not set"):
        open_tuner("together", options)
    monkeypatch.setenv("TOGETHER_API_KEY", KEY)
    monkeypatch.setitem(sys.modules, "together", None)
    with pytest.raises(EnvironmentLacks, match=r"pip install 'prooftune\[together\]'"):
        open_tuner("together", options)
