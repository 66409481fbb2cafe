"""Where Azure's adapter differs from OpenAI's: addresses, files, training types, deployments and the management API."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures_azure import KEY, TOKEN, stand_in
from fixtures_stand_ins import StandIn

from prooftune.errors import EnvironmentLacks, ProoftuneError, SpecError, TransientError
from prooftune.providers.azure import BATCH_CAPACITY, SKUS, SUFFIX_MAX, TRAINING_TYPES, AzureBatchTuner, AzureTuner, split_version
from prooftune.providers.azure_management import Management
from prooftune.providers.chat import open_chat
from prooftune.providers.openai import OpenAIChat, _Batch, _Counts
from prooftune.providers.tuning import MARK, Order, open_tuner
from prooftune.sandbox.azure import RESOURCE
from prooftune.sandbox.faults import Kind
from prooftune.spec import Provider
from prooftune.types import Message


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Azure's stand-in, and the adapter."""
    monkeypatch.setattr("prooftune.providers.calls.time.sleep", lambda seconds: None)
    with stand_in(tmp_path, monkeypatch) as found:
        yield found


def tuned(here: StandIn) -> str:
    """Tune a model and return its name."""
    rows = here.rows()
    order = here.order(rows)
    job = here.tuner.create(order, here.uploaded(rows, order))
    here.api.works.settle()
    return str(here.tuner.job(job.id).model)


# Addresses


def test_azure_is_never_asked_at_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an address of its own nothing is opened: what is meant for Azure must not go to OpenAI."""
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    with pytest.raises(SpecError, match=r"azure gpt-4\.1 has no address; set base_url"):
        open_chat("azure", "gpt-4.1")
    with pytest.raises(SpecError, match="no address"):
        OpenAIChat("gpt-4.1", KEY, None, "azure")
    with pytest.raises(SpecError, match=r"azure needs provider\.base_url and provider\.resource"):
        open_tuner("azure", Provider())
    with pytest.raises(SpecError, match=r"azure needs provider\.resource"):
        open_tuner("azure", Provider(base_url="https://x.openai.azure.com/openai/v1"))


@pytest.mark.parametrize("resource", ["sandbox", "/subscriptions/1/accounts/x", f"{RESOURCE}/deployments/x", f"{RESOURCE}?x=1", "//host/x"])
def test_a_resource_is_known_by_its_id(resource: str) -> None:
    """What is no id of a resource is refused before a token goes anywhere."""
    with pytest.raises(SpecError, match=r"provider\.resource .* is no id"):
        Management(resource)


@pytest.mark.parametrize(
    ("address", "limit"), [("https://x.openai.azure.com/openai/v1", "max_completion_tokens"), ("http://localhost/v1", "max_tokens")]
)
def test_azure_is_asked_like_openai(address: str, limit: str) -> None:
    """At Azure's own hosts the limit of an answer has the name that OpenAI's newer models take."""
    chat = OpenAIChat("d", KEY, address, "azure")
    assert limit in chat.body([Message(role="user", content="a")], 9)


# Files and jobs


def test_files_begin_with_a_byte_order_mark(here: StandIn) -> None:
    """Azure asks for one: rows have it, and a file without is found before the upload, which would refuse it."""
    rows = here.rows()
    assert rows.read_bytes().startswith(b"\xef\xbb\xbf{")
    order = here.order(rows)
    rows.write_bytes(rows.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    [problem] = here.tuner.check_rows(rows, order, "train")
    assert (problem.where, problem.code) == ("rows-40.jsonl:1", "byte-order-mark")
    with pytest.raises(SpecError, match="byte-order mark"):
        here.uploaded(rows, order)


@pytest.mark.parametrize("tier", TRAINING_TYPES)
def test_the_tier_is_the_training_type_and_the_sku(tier: Any, here: StandIn) -> None:
    """Each tier of the spec has its word for jobs and its word for deployments; a base model has no developer tier."""
    here.tuner.options = here.tuner.options.model_copy(update={"tier": tier})
    model = tuned(here)
    [job] = here.api.works.jobs.values()
    assert job.fields["trainingType"] == TRAINING_TYPES[tier]
    here.tuner.deploy(model, f"{MARK}-tuned")
    here.tuner.deploy(here.model, f"{MARK}-base")
    assert here.api.deployed[f"{MARK}-tuned"].sku["name"] == SKUS[tier]
    assert here.api.deployed[f"{MARK}-base"].sku["name"] == SKUS["global_standard" if tier == "developer" else tier]


def test_a_file_is_used_when_it_is_processed(here: StandIn) -> None:
    """Azure refuses a job whose files it has not read yet: the upload waits for that."""
    here.api.files._pace_s = 0.1
    rows = here.rows()
    order = here.order(rows)
    assert here.tuner.create(order, here.uploaded(rows, order)).status == "waiting"


def test_a_job_that_waits_is_shown_with_nulls(here: StandIn) -> None:
    """Azure has null for all that is not known yet; such a job is created, found, looked at and cancelled all the same."""
    here.api.works._pace_s = 30.0
    rows = here.rows()
    order = here.order(rows)
    files = here.uploaded(rows, order)
    job = here.tuner.create(order, files)
    [started] = here.api.works.jobs.values()
    shown = here.api.tuning.shown(started, new=True)
    unknown = {"result_files", "metadata", "method", "integrations", "error", "fine_tuned_model", "trained_tokens", "estimated_finish"}
    assert {name for name, value in shown.items() if value is None} >= unknown
    assert (job.told, job.status) == ("pending", "waiting")
    assert [found.id for found in here.tuner.find(order, files)] == [job.id]
    assert (here.tuner.job(job.id).ended, here.tuner.download(job.id, here.folder / "result")) == (False, [])
    assert here.tuner.cancel(job.id).status == "cancelled"


def test_suffixes_fit(here: StandIn) -> None:
    """A suffix holds no dot and is short enough, whatever the task is called, and ends with digits of the run key."""
    order: Order = here.order(here.rows(), name="v1.5-" + "long-" * 20)
    suffix = here.tuner._suffix(order)
    assert re.fullmatch(r"[a-z0-9-]+", suffix)
    assert len(suffix) <= SUFFIX_MAX
    assert suffix.endswith(order.key[len(MARK) + 1 :][:10])


# Deployments


def test_deploying_again_finds_the_deployment(here: StandIn) -> None:
    """A deployment is made by name: again is the same one, also when the answer was lost, and others' are not ours."""
    model = tuned(here)
    ordered = here.api.faults.order("reset_after", "create_deployment")
    first = here.tuner.deploy(model, f"{MARK}-1")
    assert ordered.fired == 1
    again = here.tuner.deploy(model, f"{MARK}-1")
    assert first is not None
    assert again is not None
    assert (first.name, first.model, first.created_at) == (again.name, again.model, again.created_at)
    assert here.api.state()["deployments"] == 1
    here.tuner.deploy(model, "somebody-elses")
    assert [one.name for one in here.tuner.deployments()] == [f"{MARK}-1"]


def test_deployments_are_listed_through_all_pages(here: StandIn) -> None:
    """A sweep sees every deployment of ours, however many there are."""
    names = [f"{MARK}-{number}" for number in range(5)]
    for name in names:
        here.tuner.deploy(here.model, name)
    assert [one.name for one in here.tuner.deployments()] == names
    assert all(one.ready and one.chat == one.name and one.created_at is not None for one in here.tuner.deployments())


def test_a_deployment_that_is_being_made_is_not_ready(here: StandIn) -> None:
    """Until Azure says Succeeded nothing is asked."""
    here.api._pace_s = 0.2
    made = here.tuner.deploy(here.model, f"{MARK}-slow")
    assert made is not None
    assert (made.ready, made.told) == (False, "Creating")
    with pytest.raises(ProoftuneError, match="deployment for this resource does not exist"):
        here.tuner.chat(made.chat).ask([Message(role="user", content="a")], 9)


@pytest.mark.parametrize("state", ["Failed", "Canceled"])
def test_a_deployment_that_failed_is_an_error(state: str, here: StandIn) -> None:
    """Nobody waits for what will not come."""
    ordered = here.api.faults.order("status", "create_deployment", value=state)
    with pytest.raises(EnvironmentLacks, match=f"is {state}"):
        here.tuner.deploy(here.model, f"{MARK}-1")
    assert ordered.fired == 1


def test_a_checkpoint_can_be_deployed(here: StandIn) -> None:
    """A checkpoint is deployed by its id."""
    rows = here.rows()
    order = here.order(rows)
    job = here.tuner.create(order, here.uploaded(rows, order))
    here.api.works.settle()
    deployment = here.tuner.deploy(here.tuner.checkpoints(job.id)[0].id, f"{MARK}-early")
    assert deployment is not None
    assert here.tuner.chat(deployment.chat).ask([Message(role="user", content="ticket 4 about login")], 9).text == "login"


@pytest.mark.parametrize("model", ["gpt-nowhere-2025-01-01", "gpt-4.1-mini-2020-01-01", "gpt-4.1.ft-0000"])
def test_what_is_not_there_cannot_be_deployed(model: str, here: StandIn) -> None:
    """Azure's own message says so, and nothing is deployed."""
    with pytest.raises(SpecError, match="DeploymentModelNotSupported: The specified model"):
        here.tuner.deploy(model, f"{MARK}-1")
    assert here.api.state()["deployments"] == 0


@pytest.mark.parametrize("name", ["x", "-x", "a/b", "a?b", "x" * 65])
def test_a_name_that_azure_does_not_take(name: str, here: StandIn) -> None:
    """A name that would change the address of the request is not sent, and taking it down asks for no other address."""
    with pytest.raises(SpecError, match="cannot be the name of a deployment"):
        here.tuner.deploy(here.model, name)
    here.api.seen.clear()
    here.tuner.take_down(name)
    assert [seen for seen, _, _ in here.api.seen] == ["delete_deployment"]


@pytest.mark.parametrize("operation", ["create_deployment", "list_deployments", "delete_deployment", "probe"])
def test_what_azure_may_be_asked_again_is(operation: str, here: StandIn) -> None:
    """Every request to the management API may be repeated, and is."""
    kinds: tuple[Kind, ...] = ("rate_limit", "error_before", "error_after", "reset_before", "reset_after", "cut")
    for kind in kinds:
        ordered = here.api.faults.order(kind, operation)
        assert here.tuner.probe(here.model, "supervised").tunable
        here.tuner.deploy(here.model, f"{MARK}-1")
        assert len(here.tuner.deployments()) == 1
        here.tuner.take_down(f"{MARK}-1")
        assert here.api.state()["deployments"] == 0
        assert ordered.fired == 1


def test_no_token_stands_in_an_error(here: StandIn) -> None:
    """What the management API refuses, or cannot answer, is told without the token."""
    refused = here.api.faults.order("refuse", "create_deployment", value=f"no {TOKEN} here")
    with pytest.raises(SpecError, match="no \\[key\\] here") as caught:
        here.tuner.deploy(here.model, f"{MARK}-1")
    assert TOKEN not in str(caught.value)
    assert caught.value.__context__ is None
    down = here.api.faults.order("error_before", "list_deployments", times=9)
    with pytest.raises(TransientError, match="azure's management API at http://127"):
        here.tuner.deployments()
    assert (refused.fired, down.fired) == (1, 5)


# Batches


PROMPTS = [[Message(role="user", content=f"ticket {number} about login, please help")] for number in range(2)]


@pytest.fixture
def batching(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> AzureBatchTuner:
    """The adapter that deploys a base model for batches, beside the deployment that answers directly."""
    monkeypatch.setattr("prooftune.providers.batches.FIRST_POLL_S", 0.01)
    monkeypatch.setattr("prooftune.providers.openai.READ_POLL_S", 0.01)
    here.tuner.deploy(here.model, f"{MARK}-base")
    return AzureBatchTuner(here.options, direct=f"{MARK}-base")


def test_a_batch_names_a_deployment_of_its_own_kind(here: StandIn, batching: AzureBatchTuner) -> None:
    """Its SKU is GlobalBatch; every question names it, in a file without a byte-order mark that Azure has read before the batch is made."""
    here.api.files._pace_s = 0.05
    batching.deploy(here.model, f"{MARK}-batch")
    assert here.api.deployed[f"{MARK}-batch"].sku == {"name": "GlobalBatch", "capacity": BATCH_CAPACITY}
    answers = batching.chat(f"{MARK}-batch").complete_batch(PROMPTS, max_tokens=9, folder=here.folder)
    assert [answer.latency_s for answer in answers] == [None, None]
    [batch] = here.api.batches.batches.values()
    sent = [json.loads(line) for line in here.api.files.get(batch.input_file).content().decode().splitlines()]
    assert [line["body"]["model"] for line in sent] == [f"{MARK}-batch"] * 2
    assert [name for name, _, _ in here.api.seen].count("chat") == 1, "only the first question was to be asked directly"


def test_a_deployment_for_batches_answers_nothing_directly(here: StandIn, batching: AzureBatchTuner) -> None:
    """Azure's own message says so."""
    made = batching.deploy(here.model, f"{MARK}-batch")
    assert made is not None
    with pytest.raises(SpecError, match="chatCompletion operation does not work"):
        here.tuner.chat(made.chat).ask(PROMPTS[0], 9)


@pytest.mark.parametrize(
    ("name", "why"),
    [(f"{MARK}-base", "The SKU 'globalstandard' of the deployment"), (f"{MARK}-gone", "that the input file names was not found")],
)
def test_batches_go_to_no_other_deployment(name: str, why: str, here: StandIn, batching: AzureBatchTuner) -> None:
    """The batch is made, and fails with Azure's reason when its questions are read."""
    with pytest.raises(EnvironmentLacks, match=f"came back without answers: .*{why}"):
        batching.chat(name).complete_batch(PROMPTS, max_tokens=9, folder=here.folder)


def test_a_tuned_model_takes_no_batches(here: StandIn) -> None:
    """Azure refuses a deployment of that kind for it."""
    with pytest.raises(SpecError, match="InvalidResourceProperties: The specified SKU 'GlobalBatch'"):
        here.tuner.management.deploy(
            f"{MARK}-batch",
            {
                "sku": {"name": "GlobalBatch", "capacity": 1},
                "properties": {"model": {"format": "OpenAI", "name": tuned(here), "version": "1"}},
            },
        )


def test_a_batch_is_read_as_azure_shows_it() -> None:
    """Before its questions are read nothing is counted; days are numbers or words, and so are statuses in either case."""
    shown = {"id": "batch_1", "created_at": "2024-07-19T17:13:57.2491382+00:00", "status": "Validating", "metadata": None}
    unread = _Batch.model_validate(shown | {"request_counts": {"total": None, "completed": None, "failed": None}})
    assert unread.created_at == _Batch.model_validate(shown | {"created_at": 1721409237.249138}).created_at
    assert unread.request_counts == _Counts()


# The probe


@pytest.mark.parametrize(
    ("model", "why"),
    [("gpt-5-mini-2025-08-07", "not its fine-tuning"), ("gpt-4.1-2020-01-01", "does not offer"), ("gpt-nowhere", "does not offer")],
)
def test_the_probe_says_why_not(model: str, why: str, here: StandIn) -> None:
    """A model that the resource does not offer, or not for tuning, is told apart."""
    capability = here.tuner.probe(model, "supervised")
    assert not capability.tunable
    assert why in capability.why


def test_versions_are_split_off() -> None:
    """A base model's name ends with the date of its version, or has none."""
    assert split_version("gpt-4.1-mini-2025-04-14") == ("gpt-4.1-mini", "2025-04-14")
    assert split_version("gpt-4.1-mini") == ("gpt-4.1-mini", None)


def test_a_base_model_without_a_version_is_deployed(here: StandIn) -> None:
    """Azure then chooses the version."""
    assert isinstance(here.tuner, AzureTuner)
    made = here.tuner.deploy("gpt-4.1", f"{MARK}-base")
    assert made is not None
    assert made.model == "gpt-4.1"
