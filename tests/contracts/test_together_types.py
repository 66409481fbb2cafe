"""Together's stand-in against the SDK's own types: whatever it hears is what the SDK may send, whatever it says is what the API says."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NotRequired, Required, Union, get_args, get_origin, get_type_hints

import pytest
from fixtures_stand_ins import StandIn
from fixtures_together import Exchange, RecordingApi, served
from pydantic import BaseModel, TypeAdapter, ValidationError
from typing_extensions import is_typeddict

from prooftune.data.lines import read_lines, write_lines
from prooftune.providers import batches
from prooftune.sandbox.http import Reply
from prooftune.spec import Hyperparameters
from prooftune.types import Example, Message

sdk = pytest.importorskip("together.types")
pagination = pytest.importorskip("together.pagination")
listed = pytest.importorskip("together.types.fine_tuning_list_response")
deployments = pytest.importorskip("together.types.endpoints")
models = pytest.importorskip("together.types.models")
orders = pytest.importorskip("together.types.finetune")

ANSWERS: dict[str, Any] = {
    "check_file": sdk.FileResponse,
    "get_file": sdk.FileResponse,
    "list_files": sdk.FileList,
    "probe": sdk.FinetuneModelLimits,
    "estimate": sdk.FineTuningEstimatePriceResponse,
    "create_job": listed.Data,  # whose docstring says so; the SDK's method reads it as an older type
    "list_jobs": sdk.FineTuningListResponse,
    "get_job": sdk.FinetuneResponse,
    "cancel_job": sdk.FineTuningCancelResponse,
    "list_events": sdk.FineTuningListEventsResponse,
    "list_metrics": sdk.FineTuningListMetricsResponse,
    "list_checkpoints": sdk.FineTuningListCheckpointsResponse,
    "create_batch": sdk.BatchCreateResponse,
    "get_batch": sdk.BatchJob,
    "list_batches": sdk.BatchListResponse,
    "chat": sdk.chat.ChatCompletion,
    "whoami": sdk.WhoamiProjectAPIKey,
    "get_model": sdk.Model,
    "list_configs": pagination.SyncCursorPagination[models.Config],
    "list_hardware": deployments.HardwareListResponse,
    "create_endpoint": sdk.Endpoint,
    "get_endpoint": sdk.Endpoint,
    "list_deployments": pagination.SyncCursorPagination[sdk.Endpoint],
    "create_deployment": sdk.EndpointDeployment,
    "get_deployment": sdk.EndpointDeployment,
    "update_deployment": sdk.EndpointDeployment,
    "delete_deployment": deployments.DeploymentDeleteResponse,
    "delete_endpoint": sdk.EndpointDeleteResponse,
}
REQUESTS: dict[str, Any] = {
    "probe": sdk.FineTuningModelLimitsParams,
    "estimate": sdk.FineTuningEstimatePriceParams,
    "create_batch": sdk.BatchCreateParams,
    "list_configs": models.ConfigListParams,
    "create_endpoint": sdk.EndpointCreateParams,
    "list_deployments": sdk.EndpointListParams,
    "create_deployment": deployments.DeploymentCreateParams,
    "update_deployment": deployments.DeploymentUpdateParams,
}
NO_TYPE = {"upload_file", "put_file", "result_file"}
"""Operations whose answers are a redirect or bytes."""


def require_answer(kind: Any, body: object) -> None:
    """Fail unless a JSON value is what the SDK's type says: known fields, required ones there, values and literals of the type."""
    found = TypeAdapter(kind).validate_json(json.dumps(body), strict=True)
    assert not (unknown := list(unknown_fields(found, getattr(kind, "__name__", "answer")))), f"fields that the API lacks: {unknown}"


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
    names: dict[str, Any] = {}
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
        require_value(names[name], value, f"{where}{name}")


def require_value(kind: Any, value: Any, where: str) -> None:
    """Fail unless a parameter's value is of its type; of a union of dictionaries, of one of them."""
    options = get_args(kind) if get_origin(kind) is Union else (kind,)
    if not (isinstance(value, dict) and any(map(is_typeddict, options))):
        TypeAdapter(kind).validate_python(value)
        return
    failures = []
    for option in filter(is_typeddict, options):
        try:
            require_request(option, value, f"{where}.")
        except (AssertionError, ValidationError) as error:
            failures.append(error)
        else:
            return
    raise failures[-1]


def require_order(sent: dict[str, Any]) -> None:
    """Fail unless the request that creates a job is one of the SDK's ``FinetuneRequest``, with no other field at any depth."""
    found = TypeAdapter(orders.FinetuneRequest).validate_json(json.dumps(sent), strict=True)
    assert not (unknown := list(unknown_fields(found, "order"))), f"fields that the API lacks: {unknown}"
    assert type(found.training_method) in (orders.TrainingMethodSFT, orders.TrainingMethodDPO)
    assert type(found.lr_scheduler) is orders.CosineLRScheduler
    assert found.training_type is None or type(found.training_type) is orders.LoRATrainingType


def require_exchange(exchange: Exchange) -> bool:
    """Check a request and its answer; return whether there is a type to hold them against."""
    name, request = exchange.operation, exchange.request
    if name in NO_TYPE:
        return False
    require_answer(ANSWERS[name], exchange.reply.body)
    query = {key: int(values[0]) if key == "limit" else values[0] for key, values in request.query.items()}
    if name == "create_job":
        require_order(request.json)
    elif name in REQUESTS:
        path = {"endpointId": "ep_1"} if "endpoint_id" in get_type_hints(REQUESTS[name]) else {}
        require_request(REQUESTS[name], request.json | query | path)
    return True


@pytest.fixture(scope="module")
def exchanges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Exchange]]:
    """What a stand-in heard and said while all that an adapter can do was done once."""
    folder = tmp_path_factory.mktemp("rehearsal")
    api = RecordingApi(folder)
    with pytest.MonkeyPatch.context() as patch, served(api, folder, patch) as here:
        patch.setattr(batches, "FIRST_POLL_S", 0.02)
        everything(here)
        yield api.exchanges


def everything(here: StandIn) -> None:
    """Do all that an adapter can do: every objective, with every setting and with none, and all kinds of inference."""
    pairs = here.folder / "pairs.jsonl"
    write_lines(pairs, (one.model_copy(update={"rejected": "no idea"}) for one in read_lines(here.examples(), Example)))
    every = {"batch_size": 8, "learning_rate": 1e-4, "adapter_rank": 16, "adapter_alpha": 64}
    for objective, chosen in (("supervised", {}), ("supervised", every), ("preference", every | {"beta": 0.2}), ("preference", {})):
        rows = here.folder / f"{objective}.jsonl"
        here.tuner.write_rows(pairs, "Sort the ticket.", objective, rows)
        order = here.order(rows, objective=objective, hyperparameters=Hyperparameters(epochs=2, **chosen))
        files = here.uploaded(rows, order)
        if chosen:
            files = files.model_copy(update={"validation": here.tuner.upload(rows, order.key, "validation")})
        here.tuner.estimate(order, files)
        job = here.tuner.create(order, files)
        here.tuner.find(order, files)
        here.api.works.settle()
        job = here.tuner.job(job.id)
        assert job.status == "succeeded"
        here.tuner.events(job.id, None)
        here.tuner.checkpoints(job.id)
        here.tuner.download(job.id, here.folder / "out")
    here.api.works.fail_next = "out of memory"
    failed = here.tuner.create(order, files)
    here.api.works.settle()
    assert here.tuner.job(failed.id).status == "failed"
    here.api.works._pace_s = 30.0
    here.tuner.cancel(here.tuner.create(order, files).id)
    here.tuner.probe(here.model, "supervised")
    deployment = here.tuner.deploy(job.model, order.key)
    prompt = [Message(role="user", content="ticket 3 about billing, please help")]
    here.tuner.chat(deployment.chat).complete_batch([prompt, prompt], max_tokens=5, folder=here.folder)
    (here.folder / "again").mkdir()
    here.tuner.chat(deployment.chat).complete_batch([prompt, prompt], max_tokens=5, folder=here.folder / "again")
    here.tuner.take_down(deployment.name)


def test_all_that_is_said_is_what_the_sdk_knows(exchanges: list[Exchange]) -> None:
    """Requests and answers of whole runs, of every objective and of inference, fit the SDK's types exactly."""
    assert {exchange.operation for exchange in exchanges if require_exchange(exchange)} == set(ANSWERS)


def test_what_is_sent_is_what_the_sdk_would_send(exchanges: list[Exchange]) -> None:
    """For the same order the SDK's own method builds the same request, but for what only it sends."""
    from together.lib.resources.fine_tuning import create_finetune_request

    limits = sdk.FinetuneModelLimits.model_validate(next(one.reply.body for one in exchanges if one.operation == "probe"))
    for sent in (one.request.json for one in exchanges if one.operation == "create_job"):
        method, adapter = sent["training_method"], sent.get("training_type")
        given = {name: sent[name] for name in ("training_file", "model", "n_epochs", "n_evals", "batch_size", "learning_rate", "suffix")}
        lora = {"lora": True, "lora_r": adapter["lora_r"], "lora_alpha": adapter["lora_alpha"]} if adapter else {}
        request, _, _ = create_finetune_request(
            limits,
            validation_file=sent.get("validation_file"),
            random_seed=sent["random_seed"],
            training_method=method["method"],
            dpo_beta=method.get("dpo_beta"),
            **given,
            **lora,
        )
        theirs = request.model_dump(exclude_none=True)
        assert within(sent, theirs) == []


def within(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Return the fields of our request, at any depth, that the SDK's has not or has otherwise."""
    return [
        name
        for name, value in ours.items()
        if name not in theirs or (within(value, theirs[name]) if isinstance(value, dict) else value != theirs[name])
    ]


Spoil = Callable[[Any], object]


@pytest.mark.parametrize(
    ("operation", "spoil"),
    [
        ("get_job", lambda body: body.update(status="done")),
        ("get_job", lambda body: body.pop("user_id")),
        ("get_job", lambda body: body.update(random_seed=7)),  # only lists show it
        ("get_job", lambda body: body["events"][0].update(type="JOB_START")),  # the older types' word
        ("get_job", lambda body: body["training_type"].update(lora_rank=8)),
        ("create_job", lambda body: body.update(token_count="many")),
        ("list_jobs", lambda body: body["data"][0].pop("updated_at")),
        ("list_jobs", lambda body: body.update(has_more=False)),
        ("list_files", lambda body: body["data"][0].update(purpose="fine_tune")),
        ("get_file", lambda body: body.update(processed=True)),
        ("list_events", lambda body: body["data"][0].update(level="Info")),
        ("estimate", lambda body: body.update(estimation_available="yes")),
        ("list_deployments", lambda body: body["data"][0].pop("trafficSplit")),
        ("create_deployment", lambda body: body["status"].update(state="READY")),
        ("list_batches", lambda body: body[0].update(status="completed")),
        ("chat", lambda body: body.pop("prompt")),
    ],
)
def test_a_wrong_answer_does_not_pass(operation: str, spoil: Spoil, exchanges: list[Exchange]) -> None:
    """The check bites: an answer with an unknown word or field, or without a required one, fails it."""
    found = next(one for one in exchanges if one.operation == operation and _holds_something(one.reply.body))
    assert require_exchange(found)
    body: Any = copy.deepcopy(found.reply.body)
    spoil(body)
    with pytest.raises((AssertionError, ValidationError)):
        require_exchange(Exchange(operation, found.request, Reply(body)))


def _holds_something(body: object) -> bool:
    return bool(body.get("data", True) if isinstance(body, dict) else body)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 7},
        {"learning_rate": "fast"},
        {"training_method": {"method": "ppo"}},
        {"training_type": {"type": "Lora", "lora_r": 8}},
        {"lr_scheduler": {"lr_scheduler_type": "step"}},
    ],
)
def test_a_wrong_order_does_not_pass(change: dict[str, Any], exchanges: list[Exchange]) -> None:
    """The check bites: a parameter that the API lacks, a wrong value and an unknown kind fail it."""
    sent = next(one.request.json for one in exchanges if one.operation == "create_job")
    require_order(sent)
    with pytest.raises((AssertionError, ValidationError)):
        require_order(sent | change)


@pytest.mark.parametrize("sent", [{"name": "x"}, {"autoscaling": {"replicas": 1}, "name": "x"}, {"autoscaling": {}, "name": "x", "gpu": 1}])
def test_a_wrong_deployment_does_not_pass(sent: dict[str, Any]) -> None:
    """The check bites on parameters of the second version of the API too."""
    with pytest.raises((AssertionError, ValidationError)):
        require_request(deployments.DeploymentCreateParams, sent)


@pytest.mark.parametrize("state", ["PROVISIONING", "READY", "FAILED", "STOPPED", "STOPPING"])
def test_states_of_deployments_are_the_sdks(state: str) -> None:
    """No state that we look for is unknown to the SDK."""
    assert f"DEPLOYMENT_STATE_{state}" in get_args(sdk.DeploymentStatus.model_fields["state"].annotation)
