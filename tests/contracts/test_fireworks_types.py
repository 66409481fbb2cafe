"""Fireworks' stand-in against the SDK's own types: whatever it hears is what the SDK may send, whatever it says is what the API says."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, NotRequired, Required, get_args, get_origin, get_type_hints

import pytest
from fixtures_fireworks import Exchange, RecordingApi, served
from fixtures_stand_ins import StandIn
from pydantic import BaseModel, TypeAdapter, ValidationError
from typing_extensions import is_typeddict

from prooftune.data.lines import read_lines, write_lines
from prooftune.providers.fireworks_answers import STATUSES
from prooftune.sandbox.http import Reply
from prooftune.types import Example, Message

sdk = pytest.importorskip("fireworks.types")
pagination = pytest.importorskip("fireworks.pagination")

JOBS = {
    "supervisedFineTuningJobs": (sdk.SupervisedFineTuningJob, sdk.SupervisedFineTuningJobCreateParams),
    "dpoJobs": (sdk.DpoJob, sdk.DpoJobCreateParams),
    "reinforcementFineTuningJobs": (sdk.ReinforcementFineTuningJob, sdk.ReinforcementFineTuningJobCreateParams),
}
ANSWERS: dict[str, Any] = {
    "probe": sdk.Model,
    "create_dataset": sdk.Dataset,
    "get_file": sdk.Dataset,
    "upload_link": sdk.DatasetGetUploadEndpointResponse,
    "download_link": sdk.DatasetGetDownloadEndpointResponse,
    "create_deployment": sdk.Deployment,
    "get_deployment": sdk.Deployment,
    "list_files": pagination.SyncCursorDatasets[sdk.Dataset],
    "list_jobs": pagination.SyncCursorSupervisedFineTuningJobs[sdk.SupervisedFineTuningJob],
    "list_deployments": pagination.SyncCursorDeployments[sdk.Deployment],
    "load_adapter": sdk.shared.DeployedModel,
    "list_adapters": pagination.SyncCursorLora[sdk.shared.DeployedModel],
    "create_batch": sdk.BatchInferenceJob,
    "get_batch": sdk.BatchInferenceJob,
    "list_events": sdk.DpoJobGetMetricsFileEndpointResponse,
    "chat": sdk.chat.CompletionCreateResponse,
}
REQUESTS: dict[str, Any] = {
    "create_dataset": sdk.DatasetCreateParams,
    "upload_link": sdk.DatasetGetUploadEndpointParams,
    "create_deployment": sdk.DeploymentCreateParams,
    "load_adapter": sdk.LoraLoadParams,
    "create_batch": sdk.BatchInferenceJobCreateParams,
}
EMPTY = {"delete_deployment", "cancel_job", "validate_upload"}
"""Operations whose answer the SDK takes for any object."""


def require_answer(kind: Any, body: object) -> None:
    """Fail unless a JSON value is what the SDK's type says: known fields, required ones there, values and literals of the type."""
    found = TypeAdapter(kind).validate_json(json.dumps(body), strict=True)
    assert not (unknown := list(unknown_fields(found, kind.__name__))), f"fields that the API does not have: {unknown}"


def unknown_fields(value: object, where: str) -> Iterator[str]:
    """Yield the fields of models, at any depth, that their types do not have; the SDK's models take them in silence."""
    if isinstance(value, BaseModel):
        yield from (f"{where}.{name}" for name in value.model_extra or {})
        for name in type(value).model_fields:
            yield from unknown_fields(getattr(value, name), f"{where}.{name}")
    elif isinstance(value, list):
        for one in value:
            yield from unknown_fields(one, f"{where}[]")


def require_request(kind: Any, sent: dict[str, Any], where: str = "") -> None:
    """Fail unless a request's parameters, by their names on the wire, are those of the SDK's typed dictionary."""
    names = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        alias, plain, required = name, hint, False
        while get_origin(plain) in (Annotated, Required, NotRequired):
            required = required or get_origin(plain) is Required
            alias = next((getattr(note, "alias", None) or alias for note in getattr(plain, "__metadata__", ())), alias)
            plain = get_args(plain)[0]
        names[alias] = plain
        assert alias in sent or not required, f"{where}{alias} is required"
    for name, value in sent.items():
        assert name in names, f"{where}{name} is no parameter of the API"
        if is_typeddict(names[name]):
            require_request(names[name], value, f"{where}{name}.")
        else:
            TypeAdapter(names[name]).validate_python(value)


def job_kind(exchange: Exchange) -> Any:
    """Return the SDK's types for the kind of job that a path is of."""
    return JOBS[exchange.request.path.split("/")[4]]


def require_exchange(exchange: Exchange) -> bool:
    """Check a request and its answer; return whether there is a type to hold them against."""
    name, request, body = exchange.operation, exchange.request, exchange.reply.body
    if isinstance(body, bytes) or name in EMPTY or name == "list_checkpoints" or request.path.endswith((":upload", ":undelete")):
        return False
    if name == "result_file":
        require_answer(sdk.ModelGetDownloadEndpointResponse, body)
    elif name in ("create_job", "get_job"):
        require_answer(job_kind(exchange)[0], body)
    else:
        require_answer(ANSWERS[name], body)
    wanted = job_kind(exchange)[1] if name == "create_job" else REQUESTS.get(name)
    if wanted is not None:
        require_request(wanted, request.json | {key: values[0] for key, values in request.query.items()})
    return True


@pytest.fixture(scope="module")
def exchanges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Exchange]]:
    """What a stand-in heard and said while all that an adapter can do was done once."""
    folder = tmp_path_factory.mktemp("rehearsal")
    api = RecordingApi(folder)
    with pytest.MonkeyPatch.context() as patch, served(api, folder, patch) as here:
        everything(here)
        patch.setattr("prooftune.providers.fireworks_datasets.DIRECT_BYTES", 100)
        here.tuner.upload(here.rows(), "prooftune-large", "train")
        yield api.recorded.exchanges


def everything(here: StandIn) -> None:
    """Do all that an adapter can do: every objective, with every setting, and all kinds of inference."""
    pairs = here.folder / "pairs.jsonl"
    write_lines(pairs, (one.model_copy(update={"rejected": "no idea"}) for one in read_lines(here.examples(), Example)))
    grader = {"evaluator": "accounts/acme/evaluators/exact", "inference_parameters": {"max_output_tokens": 64, "temperature": 1.0}}
    for objective in ("supervised", "preference", "reinforcement"):
        rows = here.folder / f"{objective}.jsonl"
        here.tuner.write_rows(pairs, "Sort the ticket.", objective, rows)
        order = here.order(rows, objective=objective, grader=json.dumps(grader))
        beta = {"beta": 0.2} if objective == "preference" else {}
        chosen = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-4, "adapter_rank": 16, **beta}
        order = order.model_copy(update={"hyperparameters": order.hyperparameters.model_copy(update=chosen)})
        files = here.uploaded(rows, order)
        files = files.model_copy(update={"validation": here.tuner.upload(rows, order.key, "validation")})
        job = here.tuner.create(order, files)
        here.api.works.settle()
        job = here.tuner.job(job.id)
        assert job.status == "succeeded"
        here.tuner.events(job.id, None)
        here.tuner.checkpoints(job.id)
        here.tuner.download(job.id, here.folder)
        here.tuner.cancel(job.id)
    here.tuner.probe(here.model, "supervised")
    here.tuner.api.client.datasets.list()
    here.tuner.api.client.supervised_fine_tuning_jobs.list()
    deployment = here.tuner.deploy(job.model, order.key)
    prompt = [Message(role="user", content="ticket 3 about billing, please help")]
    chat = here.tuner.chat(deployment.chat)
    chat.complete_batch([prompt, prompt], max_tokens=5, folder=here.folder)
    here.tuner.deployments()
    here.tuner.take_down(deployment.name)


def test_all_that_is_said_is_what_the_sdk_knows(exchanges: list[Exchange]) -> None:
    """Requests and answers of whole runs, of every objective and of inference, fit the SDK's types exactly."""
    held = {exchange.operation for exchange in exchanges if require_exchange(exchange)}
    assert held == {*ANSWERS, "create_job", "get_job", "result_file"}


Spoil = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("operation", "spoil"),
    [
        ("get_job", lambda body: body.update(state="JOB_STATE_DONE")),
        ("get_job", lambda body: body.pop("dataset")),
        ("get_job", lambda body: body.update(epochs="two")),
        ("get_job", lambda body: body.update(progress=3)),
        ("get_job", lambda body: body["status"].update(reason="none")),
        ("probe", lambda body: body.update(kind="BASE")),
        ("create_deployment", lambda body: body.pop("baseModel")),
        ("list_deployments", lambda body: body["deployments"][0].update(status="READY")),
        ("list_adapters", lambda body: body.pop("deployedModels")),
        ("chat", lambda body: body["choices"][0].pop("index")),
    ],
)
def test_a_wrong_answer_does_not_pass(operation: str, spoil: Spoil, exchanges: list[Exchange]) -> None:
    """The check bites: an answer with an unknown word or field, or without a required one, fails it."""
    others = ("/dpoJobs", "/reinforcementFineTuningJobs")
    found = next(one for one in exchanges if one.operation == operation and not any(other in one.request.path for other in others))
    assert require_exchange(found)
    body = copy.deepcopy(found.reply.body)
    spoil(body)
    with pytest.raises((AssertionError, ValidationError)):
        require_exchange(Exchange(operation, found.request, Reply(body)))


@pytest.mark.parametrize(
    "sent",
    [
        {"dataset": "d", "seed": 7},
        {"baseModel": "m"},
        {"dataset": "d", "epochs": "many"},
        {"dataset": "d", "region": "MARS_1"},
    ],
)
def test_a_wrong_request_does_not_pass(sent: dict[str, Any]) -> None:
    """The check bites: a parameter that the API lacks (a seed is one), a missing one and a wrong value fail it."""
    with pytest.raises((AssertionError, ValidationError)):
        require_request(sdk.SupervisedFineTuningJobCreateParams, sent)


@pytest.mark.parametrize("kind", [*(found for found, _ in JOBS.values()), sdk.BatchInferenceJob], ids=lambda kind: kind.__name__)
def test_the_table_knows_every_state(kind: type[BaseModel]) -> None:
    """No state of the SDK is missing from our table."""
    (literal,) = (one for one in get_args(kind.model_fields["state"].annotation) if get_origin(one) is Literal)
    assert set(get_args(literal)) <= set(STATUSES)
