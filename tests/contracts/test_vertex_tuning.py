"""The adapter of Vertex AI against its stand-in: the real SDKs, google-genai and google-cloud-storage, over a real socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fixtures_vertex
import pytest
from fixtures_stand_ins import StandIn
from fixtures_vertex import KEY

from prooftune.data.lines import write_lines
from prooftune.errors import EnvironmentLacks, IntegrityError, OutcomeUnknown, ProoftuneError, SpecError, TransientError
from prooftune.providers import batches, vertex, vertex_connection, vertex_rows
from prooftune.providers.calls import NotFoundError
from prooftune.providers.tuning import Files, Job
from prooftune.providers.vertex import VertexTuner
from prooftune.sandbox import vertex_rows as sandbox_rows
from prooftune.sandbox.http import Refused
from prooftune.types import Example, Message

pytest.importorskip("google.genai")
pytest.importorskip("google.cloud.storage")

PROMPT = (Message(role="system", content="Sort the ticket."), Message(role="user", content="ticket 4 about login, please help"))


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Serve the stand-in with canned answers."""
    with fixtures_vertex.stand_in(tmp_path, monkeypatch) as found:
        yield found


def ordered(stand_in: StandIn, **changes: Any) -> tuple[Any, Files]:
    """Return an order and its uploaded files."""
    rows = stand_in.rows()
    order = stand_in.order(rows, **changes)
    return order, stand_in.uploaded(rows, order)


def tuned(stand_in: StandIn) -> Job:
    """Return a job that has succeeded."""
    order, files = ordered(stand_in)
    job = stand_in.tuner.create(order, files)
    stand_in.api.works.settle()
    return stand_in.tuner.job(job.id)


def test_a_job_runs_from_upload_to_an_answer(stand_in: StandIn, tmp_path: Path) -> None:
    """Probe, upload, create, poll, events, checkpoints, files, an answer of the tuned model, and nothing left to take down."""
    assert stand_in.tuner.probe(stand_in.model, "supervised").tunable
    order, files = ordered(stand_in)
    assert stand_in.tuner.check_rows(stand_in.rows(), order, "train") == []
    created = stand_in.tuner.create(order, files.model_copy(update={"validation": files.train}))
    assert (created.status, created.key, created.ended) == ("waiting", order.key, False)
    stand_in.api.works.settle()
    job = stand_in.tuner.job(created.id)
    assert (job.status, job.key) == ("succeeded", order.key)
    assert job.billed_tokens == stand_in.api.state()["billed_tokens"] > 0
    events = stand_in.tuner.events(job.id, None)
    assert [event.id for event in events] == ["created", "started", "checkpoint-1", "checkpoint-2", "ended"]
    assert stand_in.tuner.events(job.id, "checkpoint-2") == events[-1:]
    checkpoints = stand_in.tuner.checkpoints(job.id)
    assert [saved.step for saved in checkpoints] == [1, 2]
    assert stand_in.tuner.download(job.id, tmp_path / "out") == ["metrics.jsonl", "tuning_data_stats.json"]
    assert json.loads((tmp_path / "out" / "tuning_data_stats.json").read_text())["tuning_dataset_example_count"] == 40
    for name in (job.model, checkpoints[0].id):
        assert name is not None
        assert stand_in.tuner.chat(name).ask(PROMPT, 50).text == "login"
    assert stand_in.tuner.deploy(str(job.model), order.key) is None
    stand_in.tuner.take_down(order.key)
    assert stand_in.tuner.deployments() == []
    assert stand_in.tuner.chat(str(job.model)).ask(PROMPT, 50).text == "login"


def test_a_pair_is_tuned_by_preference_with_its_hyperparameters(stand_in: StandIn) -> None:
    """Preference rows, beta, adapter size, multiplier and validation file all reach the job."""
    examples = stand_in.folder / "pairs.jsonl"
    told = (Message(role="user", content="hello"), Message(role="assistant", content="good"))
    write_lines(examples, [Example(id="0" * 16, source="pairs:1", messages=told, rejected="bad")])
    rows = stand_in.folder / "rows.jsonl"
    stand_in.tuner.write_rows(examples, "Be kind.", "preference", rows)
    order = stand_in.order(rows, objective="preference")
    chosen = {"beta": 0.1, "adapter_rank": 8, "learning_rate_multiplier": 0.5}
    order = order.model_copy(update={"hyperparameters": order.hyperparameters.model_copy(update=chosen)})
    files = Files(train=stand_in.tuner.upload(rows, order.key, "train"), validation=stand_in.tuner.upload(rows, order.key, "validation"))
    job = stand_in.tuner.create(order, files)
    sent = stand_in.api.works.jobs[job.id].fields["body"]["preferenceOptimizationSpec"]
    settings = {"epochCount": 2, "beta": 0.1, "adapterSize": "ADAPTER_SIZE_EIGHT", "learningRateMultiplier": 0.5}
    assert sent == {"trainingDatasetUri": files.train, "validationDatasetUri": files.validation, "hyperParameters": settings}
    stand_in.api.works.settle()
    assert stand_in.tuner.job(job.id).billed_tokens == stand_in.api.state()["billed_tokens"] > 0


@pytest.mark.parametrize(
    ("kind", "value"),
    [("reset_after", ""), ("error_after", ""), ("timeout_after", "1"), ("cut", ""), ("lost_id", ""), ("reset_before", "")],
)
def test_a_create_without_an_answer_is_unknown_and_the_one_job_is_found(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, kind: str, value: str
) -> None:
    """Where no answer says whether a job was made, that is said, nothing is sent twice, and the one job is found by its key."""
    order, files = ordered(stand_in)
    monkeypatch.setattr(vertex_connection, "TIMEOUT_S", 0.4)
    tuner = VertexTuner(stand_in.tuner.options)
    fault = stand_in.api.faults.order(kind, "create_job", value=value)
    with pytest.raises(OutcomeUnknown) as caught:
        tuner.create(order, files)
    assert fault.fired == 1
    assert KEY not in str(caught.value)
    assert [seen[0] for seen in stand_in.api.seen].count("create_job") == 1
    found = tuner.find(order, files)
    assert len(found) == stand_in.jobs == (0 if kind == "reset_before" else 1)
    assert all(job.key == order.key for job in found)


@pytest.mark.parametrize(
    ("kind", "error", "told"),
    [("rate_limit", TransientError, "429"), ("refuse", SpecError, "400"), ("quota", EnvironmentLacks, "billing")],
)
def test_a_refused_create_made_no_job(stand_in: StandIn, kind: str, error: type[ProoftuneError], told: str) -> None:
    """A refusal says surely that nothing was made, in Google's words, and which kind of refusal it is."""
    order, files = ordered(stand_in)
    fault = stand_in.api.faults.order(kind, "create_job", value="0" if kind == "rate_limit" else "")
    with pytest.raises(error, match=told) as caught:
        stand_in.tuner.create(order, files)
    assert fault.fired == 1
    assert not isinstance(caught.value, OutcomeUnknown)
    assert stand_in.jobs == 0


def test_a_cancelled_create_may_have_made_a_job(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Google answers 499 to a request that was cut off, done or not: that is no refusal, and the job is looked up."""
    order, files = ordered(stand_in)
    monkeypatch.setattr(stand_in.api, "refusal_of", lambda fault: Refused(499, "The operation was cancelled.", "CANCELLED"))
    fault = stand_in.api.faults.order("error_after", "create_job")
    with pytest.raises(OutcomeUnknown, match="499"):
        stand_in.tuner.create(order, files)
    assert [job.key for job in stand_in.tuner.find(order, files)] == [order.key]
    assert fault.fired == 1


def test_find_goes_through_all_pages_and_knows_a_job_without_labels(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of the order are found on every page, those of others are not, and name and file stand in for a missing label."""
    order, files = ordered(stand_in)
    monkeypatch.setattr(vertex, "PAGE", 2)
    first = stand_in.tuner.create(order, files)
    for attempt in range(2, 6):
        stand_in.tuner.create(order.model_copy(update={"attempt": attempt}), files)
    stand_in.api.works.settle()
    del stand_in.api.works.jobs[first.id].fields["body"]["labels"]
    assert [job.id for job in stand_in.tuner.find(order, files)] == [first.id]
    assert [seen[0] for seen in stand_in.api.seen].count("list_jobs") == 3
    stale = stand_in.api.faults.order("stale", "list_jobs")
    assert stand_in.tuner.find(order.model_copy(update={"attempt": 5}), files) == []
    assert stale.fired == 1


def test_a_job_that_cannot_be_read_hides_no_other_and_passes_for_none(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """One job of a list in an unknown form keeps no other order from its lookup; of its own order nobody can tell whether it has one."""
    fine, files = ordered(stand_in)
    odd, new = (fine.model_copy(update={"attempt": attempt}) for attempt in (2, 3))
    made, hidden = stand_in.tuner.create(fine, files).id, stand_in.tuner.create(odd, files).id
    real = stand_in.api.jobs.shown
    changed: dict[str, Any] = {"tunedModel": {"checkpoints": [{"step": "4"}]}}
    monkeypatch.setattr(stand_in.api.jobs, "shown", lambda job: real(job) | (changed if job.id == hidden else {}))
    assert [job.id for job in stand_in.tuner.find(fine, files)] == [made]
    assert stand_in.tuner.find(new, files) == []
    for unknown in ({}, {"labels": {}}, {"tunedModelDisplayName": None}):
        changed.update(unknown)
        with pytest.raises(TransientError, match=f"{hidden} in a form that cannot be read"):
            stand_in.tuner.find(odd, files)


def test_requests_that_may_be_repeated_are(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll, a list, an upload and a question survive a reset, a 500 and a 429; the upload leaves one object."""
    monkeypatch.setattr("prooftune.providers.calls.FIRST_WAIT_S", 0.01)
    faults = [
        stand_in.api.faults.order(kind, operation, value="0")
        for kind, operation in (
            ("reset_after", "upload_file"),
            ("error_before", "get_job"),
            ("reset_before", "list_jobs"),
            ("rate_limit", "chat"),
            ("cut", "chat"),
            ("error_before", "probe"),
        )
    ]
    job = tuned(stand_in)
    assert stand_in.api.state()["files"] == 1
    assert stand_in.tuner.find(*ordered(stand_in)) == [job]
    assert stand_in.tuner.chat(str(job.model)).ask(PROMPT, 50).text == "login"
    assert stand_in.tuner.probe(stand_in.model, "supervised").tunable
    assert [fault.fired for fault in faults] == [1] * len(faults)


def test_a_word_that_no_table_has_does_not_last(stand_in: StandIn) -> None:
    """A state that the SDK does not know is ``unknown``, and not an end."""
    job = tuned(stand_in)
    fault = stand_in.api.faults.order("status", "get_job", value="JOB_STATE_DREAMING")
    found = stand_in.tuner.job(job.id)
    assert (found.status, found.told, found.ended) == ("unknown", "JOB_STATE_DREAMING", False)
    assert fault.fired == 1


def test_unfit_rows_fail_the_job_and_a_cancelled_one_says_so(tmp_path: Path, stand_in: StandIn) -> None:
    """The provider's own reason is kept; cancelling a job that has ended is fine."""
    path = tmp_path / "unfit.jsonl"
    path.write_text('{"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}\n')
    order = stand_in.order(path)
    job = stand_in.tuner.create(order, Files(train=stand_in.tuner.upload(path, order.key, "train")))
    stand_in.api.works.settle()
    failed = stand_in.tuner.job(job.id)
    assert (failed.status, "Line 1" in failed.error) == ("failed", True)
    assert stand_in.tuner.cancel(job.id).status == "failed"
    assert "Line 1" in stand_in.tuner.events(job.id, "started")[-1].text
    stand_in.api.works._pace_s = 5.0
    running = stand_in.tuner.create(*ordered(stand_in))
    assert stand_in.tuner.cancel(running.id).status == "cancelled"


@pytest.mark.parametrize(
    ("limit", "value", "code", "told"),
    [
        ("MOST_ROWS", {"supervised": 39}, "too-many-rows", "40 examples, and may have 39"),
        ("MOST_VALIDATION_ROWS", {"supervised": 39}, "too-many-rows", "40 examples, and may have 39"),
        ("LARGEST_FILE", 999, "file-too-large", "may have 999"),
    ],
)
def test_too_much_fails_the_job(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, limit: str, value: Any, code: str, told: str) -> None:
    """The stand-in's limits of rows and bytes are those that the adapter checks before; both are lowered here."""
    ours = {"MOST_ROWS": "ROWS_MAX", "MOST_VALIDATION_ROWS": "VALIDATION_ROWS_MAX", "LARGEST_FILE": "FILE_BYTES"}[limit]
    assert getattr(sandbox_rows, limit) == getattr(vertex_rows, ours)
    monkeypatch.setattr(sandbox_rows, limit, value)
    monkeypatch.setattr(vertex_rows, ours, value)
    rows = stand_in.rows()
    order = stand_in.order(rows)
    role: Any = "validation" if limit == "MOST_VALIDATION_ROWS" else "train"
    assert [problem.code for problem in stand_in.tuner.check_rows(rows, order, role)] == [code]
    files = stand_in.uploaded(rows, order).model_copy(update={"validation": stand_in.tuner.upload(rows, order.key, "validation")})
    job = stand_in.tuner.create(order, files)
    stand_in.api.works.settle()
    assert told in stand_in.tuner.job(job.id).error


def test_probe_says_what_is_not_tuned_and_until_when(stand_in: StandIn) -> None:
    """A model that is not there, one that nobody documents tuning for, a retired one, and an objective whose terms are a preview's."""
    probe = partial(stand_in.tuner.probe, objective="supervised")
    assert not probe("gemini-9").tunable
    assert "not among those" in probe("gemini-3.8-flash").why
    assert str(probe("publishers/google/models/gemini-2.5-flash").shutdown) == "2026-10-20"
    found = stand_in.tuner.probe(stand_in.model, "reinforcement")
    assert (found.tunable, found.objectives) == (True, ("supervised", "preference", "reinforcement"))
    assert "preview" in found.why
    assert "preview" not in stand_in.tuner.probe(stand_in.model, "supervised").why


def test_a_question_is_asked_without_thoughts_in_the_way_the_model_takes(stand_in: StandIn) -> None:
    """Gemini 2.5 refuses a level and is asked with a budget; the second question knows."""
    chat = stand_in.tuner.chat("gemini-2.5-flash")
    answers = list(chat.complete([PROMPT], max_tokens=50)) + list(chat.complete([PROMPT], max_tokens=50))
    assert all(answer.finished and answer.prompt_tokens and answer.latency_s for answer in answers)
    assert [seen[0] for seen in stand_in.api.seen].count("chat") == 3
    with pytest.raises(NotFoundError, match="gemini-9"):
        stand_in.tuner.chat("gemini-9").ask(PROMPT, 50)


def test_questions_go_through_batch_inference_once(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A tuned model's batch is answered in the order of the questions, and found again where its ticket is lost."""
    monkeypatch.setattr(batches, "FIRST_POLL_S", 0.02)
    chat = stand_in.tuner.chat(str(tuned(stand_in).model))
    words = ("billing", "login", "delivery")
    prompts = [(Message(role="user", content=f"ticket {number} about {word}, please help"),) for number, word in enumerate(words)]
    for attempt in range(2):
        folder = tmp_path / f"tickets-{attempt}"
        folder.mkdir()
        answers = chat.complete_batch(prompts, max_tokens=50, folder=folder)
        assert [answer.text for answer in answers] == list(words)
    assert stand_in.api.state()["batches"] == 1


def test_a_large_file_goes_up_in_parts_and_other_bytes_are_not_taken_for_ours(stand_in: StandIn, tmp_path: Path) -> None:
    """More than 8 MiB are uploaded resumably; a name that is taken by other bytes is an error, not our file."""
    path = tmp_path / "large.jsonl"
    path.write_bytes(b"x" * 9_000_000)
    uri = stand_in.tuner.upload(path, "prooftune-large", "train")
    assert stand_in.api.storage.read(uri) == path.read_bytes()
    path.write_bytes(b"y")
    with pytest.raises(IntegrityError, match="holds other bytes"):
        stand_in.tuner.upload(path, "prooftune-large", "train")
    stand_in.api.storage.missing.add("tickets-tuning")
    with pytest.raises(EnvironmentLacks, match=r"no bucket gs://tickets-tuning"):
        stand_in.tuner.upload(path, "prooftune-other", "train")
