"""Tuned and base models of Bedrock as they answer: deployments that become ready, batch inference, questions asked directly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fixtures_bedrock
import pytest
from fixtures_bedrock import MODEL, seen, tuned
from fixtures_stand_ins import StandIn

from prooftune.errors import EnvironmentLacks, SpecError
from prooftune.providers import batches, bedrock_serving
from prooftune.sandbox.models import UNTUNED
from prooftune.types import Message

boto = pytest.importorskip("botocore.exceptions")
PROMPT = (Message(role="system", content="Sort the ticket."), Message(role="user", content="ticket 4 about login, please help"))
LLAMA = "meta.llama3-1-8b-instruct-v1:0:128k"
CLAUDE = "anthropic.claude-3-haiku-20240307-v1:0:200k"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Serve the stand-in with canned answers."""
    with fixtures_bedrock.stand_in(tmp_path, monkeypatch) as found:
        yield found


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
