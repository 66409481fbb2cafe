"""The adapter of Bedrock against its stand-in: the real SDK, boto3, over a real socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fixtures_bedrock
import pytest
from fixtures_bedrock import ACCESS_KEY, MODEL, SECRET, options, ordered, seen, tuned
from fixtures_stand_ins import StandIn

from prooftune.errors import EnvironmentLacks, OutcomeUnknown, ProoftuneError, SpecError, TransientError
from prooftune.providers import bedrock, bedrock_connection
from prooftune.providers.bedrock import BedrockTuner
from prooftune.providers.bedrock_answers import JobAnswer
from prooftune.providers.bedrock_models import FAMILIES
from prooftune.providers.tuning import Files
from prooftune.sandbox.bedrock_models import ROWS, VALIDATION_ROWS, of_prefix
from prooftune.types import Message

boto = pytest.importorskip("botocore.exceptions")
parsers = pytest.importorskip("botocore.parsers")
PROMPT = (Message(role="system", content="Sort the ticket."), Message(role="user", content="ticket 4 about login, please help"))
LLAMA = "meta.llama3-1-8b-instruct-v1:0:128k"
CLAUDE = "anthropic.claude-3-haiku-20240307-v1:0:200k"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Serve the stand-in with canned answers."""
    with fixtures_bedrock.stand_in(tmp_path, monkeypatch) as found:
        yield found


def test_a_run_from_probe_to_take_down(here: StandIn) -> None:
    """Everything that a managed run does, in its order, with the tuned model's answers at its end."""
    assert here.tuner.probe(MODEL, "supervised").tunable
    order, files = ordered(here)
    assert here.tuner.find(order, files) == []
    created = here.tuner.create(order, files.model_copy(update={"validation": files.train}))
    assert (created.status, created.key, created.ended) == ("running", order.key, False)
    here.api.works.settle()
    (job,) = here.tuner.find(order, files)
    assert (job.id, job.status, job.told, job.key) == (created.id, "succeeded", "Completed", order.key)
    assert here.api.state()["billed_tokens"] > 0
    events = here.tuner.events(job.id, None)
    steps = [event.metrics for event in events if "step" in event.metrics]
    assert [(one["step"], one.get("train_loss"), one.get("valid_loss")) for one in steps] == [
        (0, 1.0, None),
        (0, None, 1.05),
        (1, 0.6667, None),
        (1, None, 0.7),
    ]
    assert events[-1].metrics == {"train_loss": 0.6667, "valid_loss": 0.7}
    assert here.tuner.events(job.id, events[3].id) == events[4:]
    assert here.tuner.checkpoints(job.id) == []
    names = here.tuner.download(job.id, here.folder / "out")
    assert names == sorted(path.name for path in (here.folder / "out").iterdir())
    assert json.loads((here.folder / "out" / "metrics.json").read_text()) == events[-1].metrics
    with pytest.raises(SpecError, match="on-demand throughput"):  # a tuned model answers only through what serves it
        here.tuner.chat(str(job.model)).ask(PROMPT, 50)
    deployment = here.tuner.deploy(str(job.model), order.key)
    assert deployment is not None
    assert (deployment.ready, deployment.model, deployment.name) == (True, job.model, order.key)
    assert here.tuner.deploy(str(job.model), order.key) == deployment
    assert here.tuner.deployments() == [deployment]
    assert here.tuner.chat(deployment.chat).ask(PROMPT, 50).text == "login"
    here.tuner.take_down(deployment.name)
    here.tuner.take_down(deployment.name)
    assert here.tuner.deployments() == []
    again = here.tuner.deploy(str(job.model), order.key)
    assert again is not None
    assert again.chat != deployment.chat, "a token of before made something that is gone"
    assert here.tuner.chat(again.chat).ask(PROMPT, 50).text == "login"
    assert (here.jobs, here.api.state()["deployments"], here.api.state()["files"]) == (1, 1, 1)


@pytest.mark.parametrize("kind", ["reset_after", "error_after", "timeout_after", "cut", "lost_id"])
def test_a_lost_answer_makes_no_second_job(kind: str, here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a request whose answer was lost the one job is found, and a second request under its key makes no other."""
    order, files = ordered(here)
    monkeypatch.setattr(bedrock_connection, "TIMEOUT_S", 0.4)
    tuner = BedrockTuner(here.tuner.options)
    fault = here.api.faults.order(kind, "create_job", value="1" if kind == "timeout_after" else "")
    with pytest.raises(OutcomeUnknown) as caught:
        tuner.create(order, files)
    assert fault.fired == 1
    assert seen(here, "create_job") == 1, "the SDK repeated the request by itself"
    assert not any(secret in str(caught.value) for secret in (SECRET, ACCESS_KEY))
    (found,) = tuner.find(order, files)
    assert tuner.create(order, files).id == found.id
    assert here.jobs == 1


def test_a_connection_that_broke_before_is_not_known_from_one_that_broke_after(here: StandIn) -> None:
    """The outcome is unknown, there is no job, and creating again makes the one."""
    order, files = ordered(here)
    fault = here.api.faults.order("reset_before", "create_job")
    with pytest.raises(OutcomeUnknown):
        here.tuner.create(order, files)
    assert fault.fired == 1
    assert here.tuner.find(order, files) == []
    assert here.tuner.create(order, files).key == order.key
    assert here.jobs == 1


@pytest.mark.parametrize(
    ("kind", "error", "told"),
    [
        ("rate_limit", TransientError, "ThrottlingException"),
        ("refuse", SpecError, "400: ValidationException"),
        ("quota", EnvironmentLacks, "ServiceQuotaExceededException"),
    ],
)
def test_a_refused_create_made_no_job(here: StandIn, kind: str, error: type[ProoftuneError], told: str) -> None:
    """A refusal says surely that nothing was made, in Bedrock's words, and which kind of refusal it is."""
    order, files = ordered(here)
    fault = here.api.faults.order(kind, "create_job")
    with pytest.raises(error, match=told) as caught:
        here.tuner.create(order, files)
    assert fault.fired == 1
    assert not isinstance(caught.value, OutcomeUnknown)
    assert here.jobs == 0


def test_a_server_that_is_not_there_made_no_job(here: StandIn) -> None:
    """No connection came about: the request may be made again without a look."""
    order, files = ordered(here)
    tuner = BedrockTuner(options("http://127.0.0.1:9"))
    with pytest.raises(TransientError) as caught:
        tuner.create(order, files)
    assert not isinstance(caught.value, OutcomeUnknown)


def test_a_taken_name_is_looked_up(here: StandIn) -> None:
    """A conflict says that a job of that name exists: whether it is ours is found out by looking, and not by giving up."""
    order, files = ordered(here)
    job = here.tuner.create(order, files)
    here.api.jobs._by_token.clear()
    with pytest.raises(OutcomeUnknown, match="ConflictException"):
        here.tuner.create(order, files)
    assert [found.id for found in here.tuner.find(order, files)] == [job.id]


def test_find_goes_through_all_pages_and_past_a_list_that_lags(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another order's job is not found, whatever its name begins with; one that the list does not show yet is found by name."""
    order, files = ordered(here)
    monkeypatch.setattr(bedrock, "PAGE", 2)
    job = here.tuner.create(order, files)
    client = here.tuner._connection.bedrock
    for number in range(4):
        client.create_model_customization_job(
            jobName=f"{order.key}-{number}",
            customModelName=f"other-{number}",
            roleArn=here.tuner.options.role_arn,
            baseModelIdentifier=MODEL,
            trainingDataConfig={"s3Uri": files.train},
            outputDataConfig={"s3Uri": "s3://tickets-tuning/other"},
        )
    assert [found.id for found in here.tuner.find(order, files)] == [job.id]
    assert seen(here, "list_jobs") == 3
    stale = here.api.faults.order("stale", "list_jobs", times=3)
    assert [found.id for found in here.tuner.find(order, files)] == [job.id]
    assert stale.fired == 3


def test_requests_that_may_be_repeated_are(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload, a poll, a list, a question and a deployment survive what goes wrong once; nothing is made twice."""
    monkeypatch.setattr("prooftune.providers.calls.FIRST_WAIT_S", 0.01)
    faults = [
        here.api.faults.order(kind, operation, value="0")
        for kind, operation in (
            ("reset_after", "upload_file"),
            ("error_before", "get_job"),
            ("cut", "get_job"),
            ("reset_before", "list_jobs"),
            ("rate_limit", "chat"),
            ("cut", "chat"),
            ("error_before", "probe"),
            ("reset_after", "create_deployment"),
            ("error_after", "delete_deployment"),
            ("error_before", "result_file"),
        )
    ]
    job = tuned(here)
    assert here.tuner.find(*ordered(here)) == [job]
    assert here.tuner.probe(MODEL, "supervised").tunable
    assert here.tuner.events(job.id, None)[-1].id == "ended"
    deployment = here.tuner.deploy(str(job.model), "prooftune-once")
    assert deployment is not None
    assert here.tuner.chat(deployment.chat).ask(PROMPT, 50).text == "login"
    assert (here.api.state()["files"], here.api.state()["deployments"]) == (1, 1)
    here.tuner.take_down("prooftune-once")
    assert here.api.state()["deployments"] == 0
    assert [fault.fired for fault in faults] == [1] * len(faults)


def test_a_word_that_no_table_has_does_not_last(here: StandIn) -> None:
    """A status that the SDK does not know is ``unknown``, and not an end."""
    job = tuned(here)
    fault = here.api.faults.order("status", "get_job", value="Paused")
    found = here.tuner.job(job.id)
    assert (found.status, found.told, found.ended) == ("unknown", "Paused", False)
    assert fault.fired == 1


def test_unfit_rows_fail_the_job_and_a_stopped_one_says_so(here: StandIn) -> None:
    """The provider's own reason is kept; cancelling a job that has ended is fine."""
    path = here.folder / "unfit.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": [{"text": "hello"}]}]}\n' * 8)
    order = here.order(path)
    job = here.tuner.create(order, Files(train=here.tuner.upload(path, order.key, "train")))
    here.api.works.settle()
    failed = here.tuner.job(job.id)
    assert (failed.status, "line 1" in failed.error) == ("failed", True)
    assert [event.id for event in here.tuner.events(job.id, None)] == ["created", "validation-began", "validation-ended", "ended"]
    assert here.tuner.cancel(job.id).status == "failed"
    assert seen(here, "cancel_job") == 0
    here.api.works._pace_s = 5.0
    running = here.tuner.create(*ordered(here))
    assert here.tuner.cancel(running.id).status == "cancelled"


@pytest.mark.parametrize(("model", "status"), [(CLAUDE, "failed"), (MODEL, "succeeded")])
def test_more_validation_rows_than_the_model_takes_fail_the_job(here: StandIn, model: str, status: str) -> None:
    """Claude takes a thousand; the stand-in's limits are those that the adapter checks before."""
    order, files = ordered(here, model)
    held = here.folder / "held.jsonl"
    here.tuner.write_rows(here.examples(1_001), "Sort the ticket.", "supervised", held, model)
    problems = [problem.code for problem in here.tuner.check_rows(held, order, "validation")]
    assert problems == (["too-many-rows"] if status == "failed" else [])
    job = here.tuner.create(order, files.model_copy(update={"validation": here.tuner.upload(held, order.key, "validation")}))
    here.api.works.settle()
    assert here.tuner.job(job.id).status == status
    for family in FAMILIES:
        for prefix in family.prefixes:
            assert (of_prefix(ROWS, prefix), of_prefix(VALIDATION_ROWS, prefix)) == (family.rows, family.validation_rows_max)


def test_a_job_that_ends_while_it_is_being_stopped_is_fine(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bedrock refuses the stop, and the job says why."""
    monkeypatch.setattr("prooftune.providers.calls.FIRST_WAIT_S", 0.001)
    job = tuned(here)
    shown = here.api.faults.order("status", "get_job", value="InProgress")
    assert here.tuner.cancel(job.id).status == "succeeded"
    assert shown.fired == 1
    assert seen(here, "cancel_job") > 0


def test_events_keep_their_place() -> None:
    """Each look at a job tells what earlier looks told, and more at the end."""
    base: dict[str, Any] = {
        "jobArn": "arn",
        "jobName": "prooftune-1",
        "creationTime": "2026-11-26T10:00:00Z",
        "outputDataConfig": {"s3Uri": "s3://bucket/out"},
    }
    phases = ("validationDetails", "dataProcessingDetails", "trainingDetails")
    looks = [{"status": "InProgress"}]
    for number, phase in enumerate(phases):
        for status in ("InProgress", "Completed"):
            details = {name: {"status": "Completed"} for name in phases[:number]} | {phase: {"status": status}}
            looks.append({"status": "InProgress", "statusDetails": details})
    looks.append(looks[-1] | {"status": "Completed"})
    told: list[str] = []
    for look in looks:
        ids = [event.id for event in JobAnswer.model_validate(base | look).events([])]
        assert ids[: len(told)] == told
        told = ids
    assert told[-2:] == ["training-ended", "ended"]


@pytest.mark.parametrize(
    ("model", "tunable", "told"),
    [
        ("amazon.nova-micro-v1:0", False, "it tunes amazon.nova-micro-v1:0:128k"),
        (f"arn:aws:bedrock:us-east-1::foundation-model/{MODEL}", True, "active"),
        ("amazon.nova-9", False, "lists no amazon.nova-9"),
        ("amazon.nova-canvas-v1:0", False, "not from text"),
        (CLAUDE, False, "no throughput can be bought for a legacy model"),
        (LLAMA, True, "active"),
    ],
)
def test_probe_says_what_is_tuned_and_until_when(here: StandIn, model: str, tunable: bool, told: str) -> None:
    """A variant that cannot be tuned, an ARN, no such model, no text model, a legacy one, and one that is fine."""
    found = here.tuner.probe(model, "supervised")
    assert (found.tunable, told in found.why) == (tunable, True), found.why
    if model == CLAUDE:
        assert (str(found.last_job), str(found.shutdown)) == ("2026-03-10", "2026-09-10")


def test_objectives_are_those_of_the_model(here: StandIn) -> None:
    """Reinforcement is for Nova 2 Lite alone, and preference for none."""
    assert here.tuner.probe(MODEL, "supervised").objectives == ("supervised",)
    assert here.tuner.probe("amazon.nova-2-lite-v1:0:256k", "supervised").objectives == ("supervised", "reinforcement")


def test_claude_is_tuned_with_its_own_rows_and_words(here: StandIn) -> None:
    """Its hyperparameters are strings without exponents; a legacy model's tuned one is refused throughput, in Bedrock's words."""
    order, files = ordered(here, CLAUDE)
    chosen = order.hyperparameters.model_copy(update={"batch_size": 8, "learning_rate_multiplier": 0.5})
    job = here.tuner.create(order.model_copy(update={"hyperparameters": chosen}), files)
    sent = here.api.works.jobs[job.id].fields["body"]["hyperParameters"]
    assert sent == {"epochCount": "2", "batchSize": "8", "learningRateMultiplier": "0.5"}
    here.api.works.settle()
    with pytest.raises(SpecError, match="Legacy"):
        here.tuner.deploy(str(here.tuner.job(job.id).model), "prooftune-claude")
