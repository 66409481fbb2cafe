"""Fireworks' adapter and its stand-in over a socket: one job whatever happens, and every operation from probe to take-down."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from fixtures_fireworks import ACCOUNT, KEY, served, stand_in
from fixtures_stand_ins import StandIn

from prooftune.errors import (
    DataError,
    EnvironmentLacks,
    IntegrityError,
    ModelUnavailable,
    OutcomeUnknown,
    ProoftuneError,
    SpecError,
    TransientError,
)
from prooftune.providers.calls import ATTEMPTS, NotFoundError
from prooftune.providers.fireworks import FireworksTuner
from prooftune.providers.fireworks_links import LinkRefused, SignedLinks, file_name
from prooftune.providers.fireworks_metrics import events_of
from prooftune.providers.tuning import Files, Job, Order
from prooftune.sandbox.fireworks import FireworksApi
from prooftune.sandbox.fireworks_tuning import BASE_MODELS, MODEL
from prooftune.sandbox.http import Reply, Route
from prooftune.sandbox.models import CannedBrain
from prooftune.spec import Hyperparameters, Provider
from prooftune.types import Message

PROMPT = [Message(role="user", content="ticket 3 about billing, please help")]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The stand-in, served, and its adapter."""
    with stand_in(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture(scope="module")
def unsent() -> Iterator[FireworksTuner]:
    """An adapter for what is decided before anything is sent; nobody is at its address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIREWORKS_API_KEY", KEY)
        patch.setattr("prooftune.providers.calls.FIRST_WAIT_S", 0.001)
        yield FireworksTuner(Provider(base_url="http://127.0.0.1:9", project=ACCOUNT))


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in whose jobs stay in their first phase."""
    with served(FireworksApi(CannedBrain(), tmp_path, pace_s=60), tmp_path, monkeypatch) as found:
        yield found


def ordered(here: StandIn, **changes: Any) -> tuple[Order, Files]:
    """Return an order with its rows uploaded."""
    rows = here.rows()
    order = here.order(rows, **changes)
    return order, here.uploaded(rows, order)


def tuned(here: StandIn) -> Job:
    """Return a job that has succeeded."""
    job = here.tuner.create(*ordered(here))
    here.api.works.settle()
    return here.tuner.job(job.id)


def seen(here: StandIn, operation: str) -> int:
    """Count the requests of an operation."""
    return sum(name == operation for name, _, _ in here.api.seen)


def test_a_run_from_probe_to_take_down(here: StandIn) -> None:
    """Everything that a managed run does, in its order, with the tuned model's answers at its end."""
    assert here.tuner.probe(here.model, "supervised").tunable
    order, files = ordered(here)
    assert here.tuner.check_rows(here.rows(), order, "train") == []
    assert here.tuner.find(order, files) == []
    job = here.tuner.create(order, files)
    assert job.key == order.key
    here.api.works.settle()
    (job,) = here.tuner.find(order, files)
    assert (job.status, job.told, job.model) == ("succeeded", "JOB_STATE_COMPLETED", f"accounts/{ACCOUNT}/models/{order.key}")
    assert job.billed_tokens == here.api.state()["billed_tokens"] > 0
    assert job.billed_usd == pytest.approx(job.billed_tokens * 0.5e-6)
    events = here.tuner.events(job.id, None)
    assert [event.metrics["step"] for event in events] == [1, 2]
    assert here.tuner.events(job.id, events[0].id) == events[1:]
    assert here.tuner.download(job.id, here.folder) == ["metrics.jsonl", "adapter_config.json", "adapter_model.safetensors"]
    assert not list(here.folder.glob("*.part"))
    with pytest.raises(NotFoundError):  # an adapter answers only on a deployment
        here.tuner.chat(job.model).ask(PROMPT, 5)
    deployment = here.tuner.deploy(job.model, order.key)
    assert deployment.ready
    assert here.tuner.deploy(job.model, order.key) == deployment
    assert here.tuner.deployments() == [deployment]
    assert here.tuner.chat(deployment.chat).ask(PROMPT, 5).text == "billing"
    here.tuner.take_down(deployment.name)
    here.tuner.take_down(deployment.name)
    assert here.tuner.deployments() == []
    assert here.tuner.deploy(job.model, order.key).ready, "a name that was taken down is deployed again"
    assert (here.jobs, here.api.state()["deployments"]) == (1, 1)


@pytest.mark.parametrize("kind", ["reset_after", "error_after", "timeout_after", "cut", "lost_id"])
def test_a_lost_answer_makes_no_second_job(kind: str, here: StandIn) -> None:
    """After a request whose answer was lost the one job is found, and a second request under its key finds it too."""
    order, files = ordered(here)
    here.tuner.api.client = here.tuner.api.client.with_options(timeout=0.3)
    fault = here.api.faults.order(kind, "create_job", value="2" if kind == "timeout_after" else "")
    with pytest.raises(OutcomeUnknown):
        here.tuner.create(order, files)
    assert fault.fired == 1
    assert seen(here, "create_job") == 1, "the SDK repeated the request by itself"
    (found,) = here.tuner.find(order, files)
    assert here.tuner.create(order, files).id == found.id
    assert here.jobs == 1


@pytest.mark.parametrize("kind", ["reset_before", "error_before"])
def test_a_request_that_did_nothing_may_be_made_again(kind: str, here: StandIn) -> None:
    """Where nothing says whether a job was made, and none was, none is found, and the next request makes it."""
    order, files = ordered(here)
    fault = here.api.faults.order(kind, "create_job")
    with pytest.raises(OutcomeUnknown):
        here.tuner.create(order, files)
    assert (fault.fired, here.jobs, here.tuner.find(order, files)) == (1, 0, [])
    here.tuner.create(order, files)
    assert here.jobs == 1


@pytest.mark.parametrize(
    ("kind", "error"), [("rate_limit", TransientError), ("refuse", SpecError), ("quota", EnvironmentLacks)], ids=lambda one: str(one)
)
def test_a_refused_request_makes_no_job(kind: str, error: type[ProoftuneError], here: StandIn) -> None:
    """What Fireworks surely did not do is no unknown outcome."""
    order, files = ordered(here)
    fault = here.api.faults.order(kind, "create_job")
    with pytest.raises(error) as caught:
        here.tuner.create(order, files)
    assert not isinstance(caught.value, OutcomeUnknown)
    assert (fault.fired, here.jobs) == (1, 0)


def test_a_conflict_that_cannot_be_looked_up_is_unknown(here: StandIn) -> None:
    """That the job exists was said; while it cannot be read, the outcome stays unknown."""
    order, files = ordered(here)
    here.tuner.create(order, files)
    fault = here.api.faults.order("error_before", "get_job", times=ATTEMPTS)
    with pytest.raises(OutcomeUnknown, match="exists"):
        here.tuner.create(order, files)
    assert fault.fired == ATTEMPTS
    assert here.jobs == 1


def test_a_model_that_outlived_its_job_is_named(here: StandIn) -> None:
    """Where the model's name is taken and there is no job of the key, a person is told what to delete."""
    order, files = ordered(here)
    here.tuner.api.client.supervised_fine_tuning_jobs.create(
        dataset=files.train, base_model=MODEL, output_model=f"accounts/{ACCOUNT}/models/{order.key}", supervised_fine_tuning_job_id="other"
    )
    with pytest.raises(EnvironmentLacks, match=f"models/{order.key}"):
        here.tuner.create(order, files)
    assert here.jobs == 1


def test_another_attempt_is_another_job(here: StandIn) -> None:
    """A job that failed keeps its id; the next attempt has a key, a job and a model of its own."""
    order, files = ordered(here)
    here.api.works.fail_next = "no capacity"
    first = here.tuner.create(order, files)
    here.api.works.settle()
    failed = here.tuner.job(first.id)
    assert (failed.status, failed.model, failed.error, failed.billed_tokens) == ("failed", None, "no capacity", None)
    again = here.tuner.create(order.model_copy(update={"attempt": 2}), files)
    assert again.id != first.id
    assert here.jobs == 2


@pytest.mark.parametrize("operation", ["create_dataset", "upload_file"])
@pytest.mark.parametrize("kind", ["reset_before", "reset_after", "error_after", "cut", "rate_limit"])
@pytest.mark.parametrize("direct", [True, False], ids=["direct", "by link"])
def test_an_upload_is_made_once(operation: str, kind: str, direct: bool, here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset is whole and alone whatever happens to the requests, small files and large ones alike."""
    if not direct:
        monkeypatch.setattr("prooftune.providers.fireworks_datasets.DIRECT_BYTES", 100)
    fault = here.api.faults.order(kind, operation, value="0" if kind == "rate_limit" else "")
    rows = here.rows()
    name = here.tuner.upload(rows, "prooftune-abc", "train")
    assert fault.fired == ((kind, operation, direct) != ("cut", "upload_file", False)), "the link's answer has no body to cut"
    assert here.tuner.upload(rows, "prooftune-abc", "train") == name == f"accounts/{ACCOUNT}/datasets/prooftune-abc-train"
    (dataset,) = here.api.store.datasets.values()
    assert list(dataset.files.values()) == [rows.read_bytes()]


def test_an_unfinished_upload_is_gone_on_with(here: StandIn) -> None:
    """A dataset that exists without its rows, left by a crash between two requests, gets them."""
    rows = here.rows()
    here.tuner.api.client.datasets.create(dataset_id="prooftune-abc-train", dataset={"user_uploaded": {}, "example_count": "40"})
    here.tuner.upload(rows, "prooftune-abc", "train")
    assert here.api.state()["files"] == 1


def test_somebody_elses_dataset_is_not_taken(here: StandIn) -> None:
    """A dataset under the id that declares another number of rows is not trained on."""
    here.tuner.upload(here.rows(20), "prooftune-abc", "train")
    with pytest.raises(IntegrityError, match=r"of 20 rows, and rows-40\.jsonl has 40"):
        here.tuner.upload(here.rows(40), "prooftune-abc", "train")


def test_refused_rows_are_told(here: StandIn) -> None:
    """A dataset that does not become ready gives Fireworks' reason."""
    here.api.store.refuse_next = "row 3 is bad"
    with pytest.raises(DataError, match=r"rows-40\.jsonl: row 3 is bad"):
        here.tuner.upload(here.rows(), "prooftune-abc", "train")


def test_a_dataset_that_takes_too_long_is_waited_for_again(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting has an end, after which the same call goes on where this one was."""
    monkeypatch.setattr("prooftune.providers.fireworks_connection.READY_WITHIN_S", 0.0)
    fault = here.api.faults.order("status", "get_file", value="UPLOADING", times=4)
    with pytest.raises(TransientError, match="is UPLOADING after"):
        here.tuner.upload(here.rows(), "prooftune-abc", "train")
    here.api.faults.clear()
    assert fault.fired >= 3
    assert here.tuner.upload(here.rows(), "prooftune-abc", "train").endswith("/prooftune-abc-train")


def test_bad_rows_fail_the_job(here: StandIn) -> None:
    """Rows are read by the job; what is wrong with them ends it, with Fireworks' message."""
    rows = here.folder / "bad.jsonl"
    rows.write_text('{"messages": [{"role": "bananas", "content": "x"}]}\n' * 5, encoding="utf-8")
    order = here.order(rows)
    here.tuner.create(order, here.uploaded(rows, order))
    here.api.works.settle()
    (job,) = here.tuner.find(order, here.uploaded(rows, order))
    assert job.status == "failed"
    assert "validation failed on line 1" in job.error


def test_a_preference_job_is_trained_by_dpo(here: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    """The loss is ordered by name, since Fireworks' default is another; that a validation file is not used is said."""
    pair = {
        "input": {"messages": [{"role": "user", "content": "a"}]},
        "preferred_output": [{"role": "assistant", "content": "b"}],
        "non_preferred_output": [{"role": "assistant", "content": "c"}],
    }
    rows = here.folder / "pairs.jsonl"
    rows.write_text(f"{json.dumps(pair)}\n" * 4, encoding="utf-8")
    order = here.order(rows, objective="preference")
    order = order.model_copy(update={"hyperparameters": order.hyperparameters.model_copy(update={"beta": 0.2})})
    files = here.uploaded(rows, order).model_copy(update={"validation": "accounts/acme/datasets/v"})
    job = here.tuner.create(order, files)
    assert job.id == f"accounts/{ACCOUNT}/dpoJobs/{order.key}"
    assert here.api.works.jobs[job.id].fields["body"]["lossConfig"] == {"method": "DPO", "dpo": {"beta": 0.2}}
    assert "no validation file" in caplog.text
    here.api.works.settle()
    assert len(here.tuner.events(job.id, None)) == 2
    assert here.tuner.create(order, files).id == job.id
    assert here.jobs == 1


def test_validation_rows_are_given_and_none_are_taken_from_training(here: StandIn) -> None:
    """The validation file is Fireworks' evaluation set, and training rows are never carved out for one."""
    order, files = ordered(here)
    validation = here.tuner.upload(here.rows(10), order.key, "validation")
    body = here.api.works.jobs[here.tuner.create(order, Files(train=files.train, validation=validation)).id].fields["body"]
    assert (body["evaluationDataset"], body["evalAutoCarveout"]) == (validation, False)
    assert "seed" not in body


@pytest.mark.parametrize("grader", [None, "{}", '{"type": "string_check"}', '{"evaluator": "accounts/a/evaluators/e", "weight": 2}'])
def test_a_grader_is_an_evaluator_at_fireworks(grader: str | None, unsent: FireworksTuner) -> None:
    """A grader of another form is refused before a job is ordered."""
    order = Order(
        provider="fireworks",
        address=unsent.address,
        model=MODEL,
        objective="reinforcement",
        hyperparameters=Hyperparameters(),
        seed=7,
        name="triage",
        train_sha256="0" * 64,
        grader=grader,
    )
    with pytest.raises(SpecError, match=r"provider\.grader"):
        unsent.create(order, Files(train="accounts/acme/datasets/d"))


def test_an_unknown_state_does_not_last(here: StandIn) -> None:
    """A word that no table has is told as it is, and the job is asked for again."""
    job = here.tuner.create(*ordered(here))
    fault = here.api.faults.order("status", "get_job", value="JOB_STATE_DREAMING")
    found = here.tuner.job(job.id)
    assert (found.status, found.ended, found.told, fault.fired) == ("unknown", False, "JOB_STATE_DREAMING", 1)


def test_an_early_stop_is_a_success(here: StandIn) -> None:
    """A job that stopped because the validation loss rose has a model."""
    job = tuned(here)
    here.api.faults.order("status", "get_job", value="JOB_STATE_EARLY_STOPPED")
    assert here.tuner.job(job.id) == job.model_copy(update={"told": "JOB_STATE_EARLY_STOPPED"})


def test_a_job_is_cancelled_once(slow: StandIn) -> None:
    """Cancelling ends a job; cancelling one that has ended changes nothing."""
    job = slow.tuner.create(*ordered(slow))
    assert job.status == "waiting"
    assert slow.tuner.events(job.id, None) == []
    assert slow.tuner.cancel(job.id).status == "cancelled"
    assert slow.tuner.cancel(job.id).status == "cancelled"
    assert seen(slow, "cancel_job") == 1


def test_checkpoints_of_which_a_model_can_be_made(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pages are read; what only resumes the job is left out."""
    monkeypatch.setattr("prooftune.providers.fireworks_connection.PAGE", 1)
    _, files = ordered(here)
    job = here.tuner.api.client.supervised_fine_tuning_jobs.create(
        dataset=files.train, base_model=MODEL, epochs=3, sampler_checkpoint_save_interval_steps=1, supervised_fine_tuning_job_id="mine"
    )
    here.api.works.settle()
    assert [checkpoint.step for checkpoint in here.tuner.checkpoints(job.name)] == [1, 2, 3]
    assert seen(here, "list_checkpoints") == 6


def test_all_pages_of_deployments_are_read(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deployments of ours are found on every page, also before an adapter is loaded, and those of others are left out."""
    monkeypatch.setattr("prooftune.providers.fireworks_connection.PAGE", 2)
    names = [f"prooftune-{number}" for number in range(5)]
    for name in ("other-1", *names, "other-2"):
        here.tuner.api.client.deployments.create(
            base_model=MODEL, deployment_id=name, description="accounts/acme/models/m", enable_addons=True
        )
    found = here.tuner.deployments()
    assert [one.name for one in found] == names
    assert {(one.model, one.ready, one.told) for one in found} == {("accounts/acme/models/m", False, "READY, no adapter")}


@pytest.mark.parametrize("operation", ["create_deployment", "load_adapter"])
@pytest.mark.parametrize("kind", ["reset_before", "reset_after", "error_after", "cut"])
def test_a_deployment_is_made_once(operation: str, kind: str, here: StandIn) -> None:
    """Whatever happens to a request, there is one deployment, which is paid for, with the adapter on it."""
    job = tuned(here)
    fault = here.api.faults.order(kind, operation)
    assert here.tuner.deploy(job.model, job.key).ready
    assert fault.fired == 1
    assert here.api.state()["deployments"] == 1
    assert len(here.tuner.api.client.lora.list().deployed_models) == 1


def test_a_deployment_that_fails_is_told(here: StandIn) -> None:
    """A deployment that cannot start is an error that names it, and it is still listed, to be taken down."""
    job = tuned(here)
    fault = here.api.faults.order("status", "get_deployment", value="FAILED")
    with pytest.raises(EnvironmentLacks, match=job.key):
        here.tuner.deploy(job.model, job.key)
    assert fault.fired == 1
    assert [one.name for one in here.tuner.deployments()] == [job.key]


def test_only_names_of_ours_are_deployed(here: StandIn) -> None:
    """A deployment under another name would never be swept."""
    job = tuned(here)
    for name in ("mine", "prooftune-", "prooftune-A", f"prooftune-{'a' * 60}", "prooftune-a/../b"):
        with pytest.raises(SpecError, match="names no deployment of ours"):
            here.tuner.deploy(job.model, name)
    assert here.api.state()["deployments"] == 0


def test_a_base_model_answers_as_it_is(here: StandIn) -> None:
    """The prompt-only baseline needs no deployment."""
    assert here.tuner.deploy(MODEL, "prooftune-base") is None
    assert here.tuner.chat(MODEL).ask(PROMPT, 5).finished


@pytest.mark.parametrize("lost", [False, True])
def test_a_batch_is_submitted_once(lost: bool, here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers come in the order of the questions; a lost answer to the request, or a lost ticket, makes no second batch."""
    job = tuned(here)
    deployment = here.tuner.deploy(job.model, job.key)
    fault = here.api.faults.order("reset_after", "create_batch", times=int(lost))
    prompts = [
        [Message(role="user", content=f"ticket {number} about {word}, please help")] for number, word in enumerate(("billing", "login"))
    ]
    chat = here.tuner.chat(deployment.chat)
    for number in range(2):
        folder = here.folder / str(number)
        folder.mkdir()
        assert [answer.text for answer in chat.complete_batch(prompts, max_tokens=5, folder=folder)] == ["billing", "login"]
    assert (fault.fired, here.api.state()["batches"]) == (int(lost), 1)


def test_a_batch_that_came_to_nothing_is_followed_by_another(here: StandIn) -> None:
    """A failed batch is told once; the next call submits one under another id."""
    chat = here.tuner.chat(MODEL)
    here.api.faults.order("status", "get_batch", after=2, value="JOB_STATE_FAILED")
    with pytest.raises(EnvironmentLacks, match="came back without answers"):
        chat.complete_batch([PROMPT], max_tokens=5, folder=here.folder)
    (batch,) = here.api.serving.batches.values()
    batch["state"] = "JOB_STATE_FAILED"
    assert len(chat.complete_batch([PROMPT], max_tokens=5, folder=here.folder)) == 1
    assert sorted(name.rpartition("-")[2] for name in here.api.serving.batches) == ["1", "2"]


@pytest.mark.parametrize(
    ("model", "objective", "tunable"),
    [
        (MODEL, "supervised", True),
        (MODEL, "reinforcement", True),
        ("accounts/fireworks/models/qwen3-8b", "preference", True),
        ("accounts/fireworks/models/qwen3-8b", "reinforcement", False),
        ("accounts/fireworks/models/kimi-k2-instruct", "supervised", False),
        ("accounts/fireworks/models/nobody", "supervised", False),
    ],
)
def test_a_model_is_probed(model: str, objective: Any, tunable: bool, here: StandIn) -> None:
    """What Fireworks says of a model is told, with its sunset and what it takes, and nothing is spent."""
    found = here.tuner.probe(model, objective)
    assert (found.tunable, here.jobs) == (tunable, 0)
    assert model in found.why
    assert (found.shutdown is not None) == ("deprecationDate" in BASE_MODELS.get(model, {}))
    if tunable:
        assert found.limits["rows_min"] == 3
        assert found.owns_weights


def test_an_adapter_is_no_base_model(here: StandIn) -> None:
    """An adapter of ours cannot be tuned on."""
    found = here.tuner.probe(tuned(here).model, "supervised")
    assert not found.tunable
    assert "is an adapter" in found.why


@pytest.mark.parametrize("name", ["llama-v3p1-8b-instruct", "accounts/fireworks/models/", "accounts/fireworks/deployments/x", "a/b/c/d/e"])
def test_a_model_has_its_full_name(name: str, unsent: FireworksTuner) -> None:
    """A name in another form is refused with the form it needs."""
    with pytest.raises(SpecError, match="accounts/fireworks/models/NAME"):
        unsent.probe(name, "supervised")


class PickleApi(FireworksApi):
    """A stand-in whose weights have other names."""

    files = ("adapter_model.bin", "adapter_config.json")

    def routes(self) -> list[Route]:
        """Return every path, that of the weights replaced."""

        def weights(request: Any) -> Reply:
            return Reply({"filenameToSignedUrls": {name: self.store.link(request, "f", lambda: b"x") for name in self.files}})

        kept = [route for route in super().routes() if not (route.name == "result_file" and "models" in route.pattern)]
        return [Route("GET", r".*/models/[^/:]+:getDownloadEndpoint", "result_file", weights), *kept]


@pytest.mark.parametrize(
    ("files", "error"),
    [
        (("adapter_model.bin", "adapter_config.json"), ModelUnavailable),
        (("hf/.safetensors",), IntegrityError),
        (("..\\a.safetensors",), IntegrityError),
    ],
)
def test_only_safe_weights_are_written(
    files: tuple[str, ...], error: type[ProoftuneError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pickles, and files whose names are none, are not written."""
    api = PickleApi(CannedBrain(), tmp_path)
    api.files = files
    with served(api, tmp_path, monkeypatch) as here:
        out = tmp_path / "out"
        out.mkdir()
        job = tuned(here)
        with pytest.raises(error):
            here.tuner.download(job.id, out)
        assert [path.name for path in out.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize(("name", "kept"), [("a/b/adapter.json", "adapter.json"), ("../../etc/x.json", "x.json"), ("/abs/y.txt", "y.txt")])
def test_a_path_is_cut_to_its_name(name: str, kept: str) -> None:
    """A file lands in the folder that it is downloaded to, whatever its name."""
    assert file_name(name) == kept


def test_a_link_without_tls_is_not_followed(tmp_path: Path) -> None:
    """Data goes without TLS to a stand-in only."""
    with pytest.raises(EnvironmentLacks, match="without TLS"):
        SignedLinks("https://api.fireworks.ai").fetch("http://storage.example/f?signature=secret", tmp_path / "f")


def test_a_link_that_is_refused_stays_secret(here: StandIn) -> None:
    """A link is a key: the error names the file, and not the link."""
    address = str(here.tuner.api.client.base_url)
    with pytest.raises(LinkRefused, match="link to f: answers 403") as caught:
        SignedLinks(address).fetch(f"{address}/_storage/expired/f?signature=secret", here.folder / "f")
    assert "secret" not in str(caught.value)
    assert not (here.folder / "f").exists()


@pytest.mark.parametrize("kind", ["reset_before", "cut", "error_before"])
def test_a_download_that_breaks_is_made_again(kind: str, here: StandIn) -> None:
    """Half a file is never left under its name."""
    job = tuned(here)
    fault = here.api.faults.order(kind, "result_file", times=2, after=2)
    here.tuner.download(job.id, here.folder)
    assert fault.fired == 2
    assert (here.folder / "adapter_model.safetensors").read_bytes()[8:].startswith(b"{")


def test_metrics_that_are_still_written_are_told_later() -> None:
    """A line is an event once it is whole, and each is told once."""
    whole = '{"step": 1, "train/loss": 2.5, "note": "x"}\n{"step": 2, "loss": 1.5}\n'
    assert [event.metrics for event in events_of(whole, None)] == [{"step": 1, "train_loss": 2.5}, {"step": 2, "train_loss": 1.5}]
    assert [event.id for event in events_of(whole[:-4], None)] == ["metrics-1"]
    assert [event.id for event in events_of(whole, "metrics-1")] == ["metrics-2"]


def sdk_errors() -> dict[str, Callable[[], Exception]]:
    """Return a maker of each error of the SDK."""
    errors = pytest.importorskip("fireworks._exceptions")
    request = httpx.Request("POST", "https://api.fireworks.ai/v1/x", headers={"Authorization": f"Bearer {KEY}"})
    made: dict[str, Callable[[], Exception]] = {
        "APIConnectionError": lambda: errors.APIConnectionError(request=request),
        "APITimeoutError": lambda: errors.APITimeoutError(request),
        "APIResponseValidationError": lambda: errors.APIResponseValidationError(httpx.Response(200, request=request), None),
    }
    for name, status in STATUS.items():
        body = {"code": 3, "message": f"told with {KEY}", "details": []}
        response = httpx.Response(status, request=request, json=body)
        made[name] = partial(getattr(errors, name), "x", response=response, body=body)
    return made


STATUS = {
    "BadRequestError": 400,
    "AuthenticationError": 401,
    "PermissionDeniedError": 403,
    "NotFoundError": 404,
    "ConflictError": 409,
    "UnprocessableEntityError": 422,
    "RateLimitError": 429,
    "InternalServerError": 503,
}
EXPECTED = {
    "APIConnectionError": (TransientError, OutcomeUnknown),
    "APITimeoutError": (TransientError, OutcomeUnknown),
    "APIResponseValidationError": (EnvironmentLacks, OutcomeUnknown),
    "BadRequestError": (SpecError, SpecError),
    "AuthenticationError": (EnvironmentLacks, EnvironmentLacks),
    "PermissionDeniedError": (EnvironmentLacks, EnvironmentLacks),
    "NotFoundError": (NotFoundError, NotFoundError),
    "ConflictError": (TransientError, OutcomeUnknown),
    "UnprocessableEntityError": (SpecError, SpecError),
    "RateLimitError": (TransientError, TransientError),
    "InternalServerError": (TransientError, OutcomeUnknown),
}
"""What an error of the SDK becomes: of a request that may be repeated, and of one that creates a job."""


@pytest.mark.parametrize("name", list(EXPECTED))
def test_each_error_of_the_sdk_has_a_meaning(name: str, unsent: FireworksTuner) -> None:
    """Fireworks' message is kept, and the key is in no text and no cause."""
    make = sdk_errors()[name]

    def fail() -> None:
        raise make()

    for call, kind in zip((unsent.api.call, unsent.api.call.create), EXPECTED[name], strict=True):
        with pytest.raises(kind) as caught:
            call(fail)
        assert type(caught.value) is kind
        assert KEY not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
        if name in STATUS:
            assert "told with [key]" in str(caught.value)


def test_no_error_of_the_sdk_is_forgotten() -> None:
    """The table above has every error class that the SDK may raise for a request."""
    errors = pytest.importorskip("fireworks._exceptions")
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.APIError)}
    assert kinds - {"APIError", "APIStatusError"} == set(EXPECTED)


def test_the_key_is_in_no_refusal(here: StandIn) -> None:
    """A server that repeats the key does not get it into an error."""
    order, files = ordered(here)
    here.api.faults.order("refuse", "create_job", value=f"bad key {KEY}")
    with pytest.raises(SpecError, match=r"bad key \[key\]"):
        here.tuner.create(order, files)


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key, or without the SDK, the error says what to set and what to install."""
    monkeypatch.delenv("FIREWORKS_API_KEY", raising=False)
    with pytest.raises(EnvironmentLacks, match="FIREWORKS_API_KEY is not set"):
        FireworksTuner(Provider(project=ACCOUNT))
    monkeypatch.setenv("FIREWORKS_API_KEY", KEY)
    monkeypatch.setitem(sys.modules, "fireworks", None)
    with pytest.raises(EnvironmentLacks, match=r"pip install 'prooftune\[fireworks\]'"):
        FireworksTuner(Provider(project=ACCOUNT))


def test_nobody_there_made_no_job(unsent: FireworksTuner) -> None:
    """Where no connection came about nothing was ordered, and that is known."""
    with pytest.raises(TransientError) as caught:
        unsent.api.call.create(lambda: unsent.api.client.dpo_jobs.create(dataset="d"))
    assert not isinstance(caught.value, OutcomeUnknown)


@pytest.mark.parametrize("job", ["", "prooftune-abc", "accounts/a/models/b", "accounts/a/supervisedFineTuningJobs/b/checkpoints/c"])
def test_what_is_no_job_is_refused(job: str, unsent: FireworksTuner) -> None:
    """A job is named in full, so that its kind is known."""
    with pytest.raises(SpecError, match="is no job at Fireworks"):
        unsent.job(job)
