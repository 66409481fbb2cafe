"""The adapter of Bedrock against its stand-in: the real SDK, boto3, over a real socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fixtures_bedrock
import pytest
from fixtures_bedrock import ACCESS_KEY, ACCOUNT, MODEL, SECRET, options
from fixtures_stand_ins import StandIn

from prooftune.errors import EnvironmentLacks, IntegrityError, OutcomeUnknown, ProoftuneError, SpecError, StoreUnavailable, TransientError
from prooftune.providers import batches, bedrock, bedrock_connection, bedrock_serving
from prooftune.providers.bedrock import BedrockTuner
from prooftune.providers.bedrock_answers import JobAnswer
from prooftune.providers.bedrock_connection import read
from prooftune.providers.calls import NotFoundError
from prooftune.providers.tuning import Files, Job, Order, open_tuner
from prooftune.sandbox.models import UNTUNED
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


def ordered(here: StandIn, model: str = MODEL, **changes: Any) -> tuple[Order, Files]:
    """Return an order with its rows, in the form of its model, uploaded."""
    rows = here.folder / "rows.jsonl"
    here.tuner.write_rows(here.examples(), "Sort the ticket.", "supervised", rows, model)
    order = here.order(rows, model=model, **changes)
    assert here.tuner.check_rows(rows, order, "train") == []
    return order, here.uploaded(rows, order)


def tuned(here: StandIn, model: str = MODEL) -> Job:
    """Return a job that has succeeded."""
    job = here.tuner.create(*ordered(here, model))
    here.api.works.settle()
    return here.tuner.job(job.id)


def seen(here: StandIn, operation: str) -> int:
    """Count the requests of an operation."""
    return sum(name == operation for name, _, _ in here.api.seen)


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


def test_llama_is_served_by_the_hour(here: StandIn) -> None:
    """Throughput is bought without a commitment, found again under its name, answers, and ends."""
    job = tuned(here, LLAMA)
    deployment = here.tuner.deploy(str(job.model), "prooftune-llama")
    assert deployment is not None
    assert (deployment.told, ":provisioned-model/" in deployment.chat) == ("InService", True)
    assert here.tuner.deploy(str(job.model), "prooftune-llama") == deployment
    assert here.tuner.chat(deployment.chat).ask(PROMPT, 50).text == "login"
    here.tuner.take_down("prooftune-llama")
    assert here.api.state()["deployments"] == 0


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


def test_what_failed_to_come_up_is_made_anew_and_other_names_are_left_alone(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed deployment is replaced; all pages are listed; what has no name of ours is neither made nor shown."""
    model = str(tuned(here).model)
    here.api.serving.fail_next = "no capacity"
    failed = here.tuner.deploy(model, "prooftune-a")
    assert failed is not None
    assert (failed.told, failed.ready) == ("Failed", False)
    again = here.tuner.deploy(model, "prooftune-a")
    assert again is not None
    assert again.ready
    for name in ("prooftune-b", "prooftune-c"):
        here.tuner.deploy(model, name)
    here.tuner._connection.bedrock.create_custom_model_deployment(modelDeploymentName="my-prooftune-x", modelArn=model)
    monkeypatch.setattr(bedrock_serving, "PAGE", 1)
    assert [one.name for one in here.tuner.deployments()] == ["prooftune-c", "prooftune-b", "prooftune-a"]
    with pytest.raises(SpecError, match="names no deployment of ours"):
        here.tuner.deploy(model, "triage")


def test_a_name_that_another_process_took_is_found(here: StandIn) -> None:
    """Two processes deploy at once: Bedrock refuses the second, which finds what the first one made."""
    model = str(tuned(here).model)
    request = {"modelDeploymentName": "prooftune-race", "modelArn": model}
    client, sent = here.tuner._connection.bedrock, []

    def overtake(**_: Any) -> None:
        """Let another process create it just before this one does."""
        if not sent:
            sent.append(request)
            client.create_custom_model_deployment(**request)

    client.meta.events.register("provide-client-params.bedrock.CreateCustomModelDeployment", overtake)
    found = here.tuner.deploy(model, "prooftune-race")
    assert seen(here, "create_deployment") == 2
    assert found is not None
    assert found.ready
    assert here.api.state()["deployments"] == 1


def test_a_deployment_becomes_ready_in_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then it is shown as it is, and a question waits for it."""
    monkeypatch.setattr("prooftune.providers.calls.FIRST_WAIT_S", 0.1)
    with fixtures_bedrock.stand_in(tmp_path, monkeypatch) as here:
        model = str(tuned(here).model)
        here.api.serving._pace_s = 0.3
        deployment = here.tuner.deploy(model, "prooftune-slow")
        assert deployment is not None
        assert (deployment.ready, deployment.told) == (False, "Creating")
        assert here.tuner.chat(deployment.chat).ask(PROMPT, 50).text == "login"
        assert here.tuner.deployments()[0].ready


def test_a_base_model_is_asked_by_the_id_that_answers(here: StandIn) -> None:
    """Ids with a context length can be tuned and answer nobody; a model that refuses a temperature is asked without, once learnt."""
    here.api.without_temperature.add("amazon.nova-micro-v1:0")
    chat = here.tuner.chat(MODEL)
    answers = [*chat.complete([PROMPT], max_tokens=50), *chat.complete([PROMPT], max_tokens=50)]
    assert [answer.text for answer in answers] == [UNTUNED] * 2
    assert all(answer.finished and answer.prompt_tokens and answer.latency_s and not answer.refusal for answer in answers)
    assert seen(here, "chat") == 3
    with pytest.raises(SpecError, match="identifier is invalid"):
        here.tuner.chat("amazon.nova-9").ask(PROMPT, 50)


def test_questions_go_through_batch_inference_once(here: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A base model's batch is answered in the order of the questions, and found again where its ticket is lost."""
    monkeypatch.setattr(batches, "FIRST_POLL_S", 0.02)
    prompts = [(Message(role="user", content="word " * number),) for number in range(1, 101)]
    for attempt in range(2):
        folder = tmp_path / f"tickets-{attempt}"
        folder.mkdir()
        answers = here.tuner.chat(MODEL).complete_batch(prompts, max_tokens=50, folder=folder)
        assert [answer.prompt_tokens for answer in answers] == list(range(1, 101))
        assert {answer.latency_s for answer in answers} == {None}
    assert here.api.state()["batches"] == 1


def test_what_bedrock_has_no_batches_for_is_asked_directly(
    here: StandIn, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A tuned model, and a base model's few questions; both are said in the log."""
    monkeypatch.setattr(batches, "FIRST_POLL_S", 0.02)
    deployment = here.tuner.deploy(str(tuned(here).model), "prooftune-batch")
    assert deployment is not None
    told = here.tuner.chat(deployment.chat).complete_batch([PROMPT] * 100, max_tokens=50, folder=tmp_path)
    assert {answer.text for answer in told} == {"login"}
    assert len(here.tuner.chat(MODEL).complete_batch([PROMPT], max_tokens=50, folder=tmp_path)) == 1
    assert here.api.state()["batches"] == 0
    assert "base models alone" in caplog.text
    assert "fewer than a batch's 100" in caplog.text


def test_a_batch_without_answers_is_an_error_and_the_next_one_has_another_name(
    here: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Bedrock's reason is kept; the same questions can be asked in a batch again."""
    monkeypatch.setattr(batches, "FIRST_POLL_S", 0.02)
    prompts = [(Message(role="user", content="word " * number),) for number in range(1, 101)]
    monkeypatch.setattr("prooftune.sandbox.bedrock_batches.LEAST", 1000)
    with pytest.raises(EnvironmentLacks, match="fewer than the minimum of 1000"):
        here.tuner.chat(MODEL).complete_batch(prompts, max_tokens=50, folder=tmp_path)
    monkeypatch.setattr("prooftune.sandbox.bedrock_batches.LEAST", 100)
    assert len(here.tuner.chat(MODEL).complete_batch(prompts, max_tokens=50, folder=tmp_path)) == 100
    assert here.api.state()["batches"] == 2


def test_other_bytes_are_not_taken_for_ours_and_a_missing_bucket_is_said(here: StandIn, tmp_path: Path) -> None:
    """A name that is taken by other bytes is an error; a bucket that is not there names the spec's field."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"x")
    uri = here.tuner.upload(path, "prooftune-1", "train")
    assert here.api.storage.read(uri) == b"x"
    assert here.tuner.upload(path, "prooftune-1", "train") == uri
    path.write_bytes(b"y")
    with pytest.raises(IntegrityError, match="holds other bytes"):
        here.tuner.upload(path, "prooftune-1", "train")
    here.api.storage.missing.add("tickets-tuning")
    with pytest.raises(StoreUnavailable, match=r"provider\.bucket"):
        here.tuner.upload(path, "prooftune-2", "train")


@pytest.mark.parametrize("operation", ["probe", "chat", "create_job"])
def test_an_unknown_key_is_not_accepted_and_stands_in_no_error(here: StandIn, operation: str) -> None:
    """Whatever is asked for, the account's credentials are named by where they come from."""
    order, files = ordered(here)
    here.api.access_keys = {"another"}
    ask = {
        "probe": lambda: here.tuner.probe(MODEL, "supervised"),
        "chat": lambda: here.tuner.chat(MODEL).ask(PROMPT, 50),
        "create_job": lambda: here.tuner.create(order, files),
    }[operation]
    with pytest.raises(EnvironmentLacks, match=r"AWS credentials \(found by env\).*UnrecognizedClientException") as caught:
        ask()
    assert not any(secret in f"{caught.value!r} {caught.value.__context__!r}" for secret in (SECRET, ACCESS_KEY))
    assert here.jobs == 0


def test_a_key_that_the_server_repeats_is_taken_out(here: StandIn) -> None:
    """A server's message may hold what it was sent."""
    here.api.faults.order("refuse", "probe", value=f"the key {ACCESS_KEY} with {SECRET} is not liked")
    with pytest.raises(SpecError, match=r"the key \[key\] with \[key\]"):
        here.tuner.probe(MODEL, "supervised")


def test_requests_are_signed_also_where_there_is_a_bedrock_key(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Bedrock API key would travel as it is, to whoever answers; it is not used."""
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bearer-canary")
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", "http://127.0.0.1:9")
    tuner = open_tuner("bedrock", here.tuner.options)
    sent: list[Any] = []
    tuner._connection.bedrock.meta.events.register("before-send.*", lambda request, **_: sent.append(request))
    assert tuner.probe(MODEL, "supervised").tunable
    assert b"AWS4-HMAC-SHA256" in sent[0].headers["Authorization"]
    assert tuner.address == f"{here.tuner.options.base_url}/us-east-1/{ACCOUNT}"


def test_what_is_missing_is_said_before_anything_is_sent(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields, forms and credentials."""
    good = here.tuner.options
    for changes, told in (
        ({"role_arn": None, "bucket": None}, r"provider\.bucket, provider\.role_arn"),
        ({"region": "Oregon"}, "no AWS region"),
        ({"role_arn": "tuning"}, "arn:aws:iam::123456789012:role/NAME"),
        ({"bucket": "gs://tickets"}, r"provider\.bucket is 'gs://tickets'"),
    ):
        with pytest.raises(SpecError, match=told):
            open_tuner("bedrock", good.model_copy(update=changes))
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", "http://127.0.0.1:9")
    assert BedrockTuner(options(None)).address == f"https://bedrock.us-east-1.amazonaws.com/us-east-1/{ACCOUNT}"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(EnvironmentLacks, match="no AWS credentials"):
        open_tuner("bedrock", good)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(EnvironmentLacks, match="ProfileNotFound"):
        open_tuner("bedrock", good)


def refusal(code: str, status: int) -> Exception:
    """Return an error as botocore makes it of a refusal."""
    meta: Any = {"HTTPStatusCode": status, "HTTPHeaders": {"retry-after": "7"}}
    found: Exception = boto.ClientError({"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": meta}, "Converse")
    return found


@pytest.mark.parametrize(
    ("error", "status", "transient", "surely_not_done"),
    [
        (refusal("ThrottlingException", 429), 429, True, True),
        (refusal("ConflictException", 400), 409, True, False),
        (refusal("ServiceQuotaExceededException", 400), 403, False, True),
        (refusal("ModelErrorException", 424), 500, True, False),
        (refusal("ExpiredTokenException", 403), 401, False, True),
        (refusal("NeverHeardOfException", 418), 418, False, False),
        (boto.EndpointConnectionError(endpoint_url="https://x"), None, True, True),
        (boto.ConnectTimeoutError(endpoint_url="https://x"), None, True, True),
        (boto.ReadTimeoutError(endpoint_url="https://x"), None, True, False),
        (boto.ConnectionClosedError(endpoint_url="https://x"), None, True, False),
        (boto.NoCredentialsError(), 401, False, True),
        (boto.UnauthorizedSSOTokenError(), 401, False, True),
        (boto.ProxyConnectionError(proxy_url="http://x"), None, True, True),
        (boto.ParamValidationError(report="jobName"), 400, False, True),
        (parsers.ResponseParserError("half an answer"), None, True, False),
        (json.JSONDecodeError("no", "", 0), None, True, False),
    ],
)
def test_every_kind_of_error_has_a_meaning(error: Exception, status: int | None, transient: bool, surely_not_done: bool) -> None:
    """Refusals by their code, and what the SDK raises by whether anything was sent."""
    failure = read((), error)
    assert (failure.status, failure.transient, failure.surely_not_done) == (status, transient, surely_not_done)
    if isinstance(error, boto.ClientError):
        assert (failure.retry_after_s, failure.message.endswith(": no")) == (7.0, True)


def test_a_job_that_is_not_there_is_not_found(here: StandIn) -> None:
    """By name and by ARN."""
    for name in ("prooftune-nowhere", f"arn:aws:bedrock:us-east-1:{ACCOUNT}:model-customization-job/{MODEL}/abcdefghijkl"):
        with pytest.raises(NotFoundError, match="ResourceNotFoundException"):
            here.tuner.job(name)
