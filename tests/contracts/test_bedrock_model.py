"""Bedrock's stand-in held against botocore's own service models: every request as the SDK serialises it, every answer shape by shape."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import fixtures_bedrock
import pytest
from fixtures_bedrock import MODEL
from fixtures_stand_ins import StandIn

from prooftune.providers import batches, bedrock_models
from prooftune.providers.bedrock import STATUSES
from prooftune.providers.bedrock_answers import PHASE_ENDED
from prooftune.providers.bedrock_batch import BATCH_STATUSES
from prooftune.providers.bedrock_connection import STATUS_OF
from prooftune.providers.calls import NotFoundError
from prooftune.providers.tuning import ENDED, Status
from prooftune.sandbox.faults import Fault
from prooftune.types import Message

botocore_session = pytest.importorskip("botocore.session")

PROMPT = (Message(role="system", content="Sort the ticket."), Message(role="user", content="ticket 4 about login, please help"))
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (float, int),
    "double": (float, int),
}


def service(name: str) -> Any:
    """Return a service's model."""
    return botocore_session.get_session().get_service_model(name)


def words(name: str, *path: str) -> set[str]:
    """Return the words of an enum of ``bedrock``: of a member of an operation's answer."""
    shape = service("bedrock").operation_model(name).output_shape
    for member in path:
        shape = shape.members[member] if shape.type_name == "structure" else shape.member.members[member]
    return set(shape.metadata["enum"])


def differences(shape: Any, value: Any, where: str) -> Iterator[str]:
    """Yield how a JSON value differs from a shape: types, required and unknown members, enums, patterns, lengths and bounds."""
    if shape.type_name == "structure":
        if shape.is_document_type:
            return
        if not isinstance(value, dict):
            yield f"{where} is a {type(value).__name__}, not a structure"
            return
        yield from (f"{where}.{name} is missing" for name in shape.required_members if name not in value)
        for name, held in value.items():
            if name not in shape.members:
                yield f"{where}.{name} is no member"
            else:
                yield from differences(shape.members[name], held, f"{where}.{name}")
    elif shape.type_name in ("list", "map"):
        inner = shape.member if shape.type_name == "list" else shape.value
        if not isinstance(value, list if shape.type_name == "list" else dict):
            yield f"{where} is a {type(value).__name__}, not a {shape.type_name}"
            return
        for name, held in enumerate(value) if isinstance(value, list) else value.items():
            yield from differences(inner, held, f"{where}[{name}]")
    elif shape.type_name == "timestamp":
        try:
            assert datetime.fromisoformat(value).tzinfo is not None
        except (AssertionError, TypeError, ValueError):
            yield f"{where} is no ISO 8601 time with a zone"
    else:
        yield from _scalar_differences(shape, value, where)


def _scalar_differences(shape: Any, value: Any, where: str) -> Iterator[str]:
    if not isinstance(value, TYPES[shape.type_name]) or (isinstance(value, bool) and shape.type_name != "boolean"):
        yield f"{where} is a {type(value).__name__}, not a {shape.type_name}"
        return
    told = shape.metadata
    if "enum" in told and value not in told["enum"]:
        yield f"{where} is {value!r}, not one of {told['enum']}"
    if isinstance(value, str) and "pattern" in told and not re.fullmatch(told["pattern"], value):
        yield f"{where} is {value!r}, which does not match {told['pattern']}"
    size = len(value) if isinstance(value, str) else value
    if not told.get("min", size) <= size <= told.get("max", size):
        yield f"{where} has {size}, out of bounds {told.get('min')} to {told.get('max')}"


@dataclass
class Watch:
    """What the SDK's clients sent and got."""

    operations: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    def watch(self, client: Any) -> None:
        """Hold every request and answer of a client against its service's model."""
        client.meta.events.register("provide-client-params.*", self._params)
        client.meta.events.register("before-parse.*", self._answer)

    def _params(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        # botocore checks types and what is required, but neither enums nor patterns.
        self.wrong += differences(model.input_shape, json.loads(json.dumps(params)), f"{model.name}.input")

    def _answer(self, operation_model: Any, response_dict: dict[str, Any], **_: Any) -> None:
        self.operations.add(operation_model.name)
        body, status = response_dict["body"], response_dict["status_code"]
        if status >= 300:
            self._refusal(operation_model, response_dict)
            return
        if status != operation_model.http.get("responseCode", 200):
            self.wrong.append(f"{operation_model.name} answers {status}, not {operation_model.http['responseCode']}")
        value = json.loads(body or b"{}")
        if operation_model.output_shape is not None:
            self.wrong += differences(operation_model.output_shape, value, operation_model.name)

    def _refusal(self, operation_model: Any, response: dict[str, Any]) -> None:
        code = response["headers"]["x-amzn-errortype"]
        shapes = {shape.name: shape for shape in operation_model.error_shapes}
        if code not in shapes:
            self.wrong.append(f"{operation_model.name} refuses with {code}, which it does not")
        elif shapes[code].metadata["error"]["httpStatusCode"] != response["status_code"]:
            self.wrong.append(f"{operation_model.name} refuses {code} with {response['status_code']}")
        else:
            self.wrong += differences(shapes[code], json.loads(response["body"]), f"{operation_model.name}.{code}")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Serve the stand-in with canned answers."""
    with fixtures_bedrock.stand_in(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def watch(here: StandIn) -> Watch:
    """Watch both clients of the adapter."""
    found = Watch()
    for client in (here.tuner._connection.bedrock, here.tuner._connection.runtime):
        found.watch(client)
    return found


def tuned(here: StandIn, model: str = MODEL) -> str:
    """Return the ARN of a model that was tuned, with a validation file."""
    rows = here.folder / "rows.jsonl"
    here.tuner.write_rows(here.examples(), "Sort the ticket.", "supervised", rows, model)
    order = here.order(rows, model=model)
    files = here.uploaded(rows, order)
    job = here.tuner.create(order, files.model_copy(update={"validation": files.train}))
    here.api.works.settle()
    return str(here.tuner.job(job.id).model)


def test_what_is_sent_and_answered_fits_the_service_model(here: StandIn, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with everything, on demand and by the hour, a batch, a stop and what is refused: no request and no answer differs."""
    monkeypatch.setattr(batches, "FIRST_POLL_S", 0.02)
    here.tuner.probe(MODEL, "supervised")
    for model in (MODEL, "meta.llama3-2-3b-instruct-v1:0:128k"):
        deployment = here.tuner.deploy(tuned(here, model), "prooftune-served")
        assert here.tuner.chat(deployment.chat).ask(PROMPT, 50).text == "login"
    assert {one.told for one in here.tuner.deployments()} == {"Active", "InService"}
    here.tuner.take_down("prooftune-served")
    here.tuner.take_down("prooftune-served")
    prompts = [(Message(role="user", content=f"ticket {number} about login"),) for number in range(100)]
    here.tuner.chat(MODEL).complete_batch(prompts, max_tokens=50, folder=here.folder)
    here.api.works._pace_s = 5.0
    rows = here.rows()
    order = here.order(rows, attempt=7)
    files = here.uploaded(rows, order)
    here.tuner.cancel(here.tuner.create(order, files).id)
    assert len(here.tuner.find(order, files)) == 1
    with pytest.raises(NotFoundError):
        here.tuner.job("prooftune-nowhere")
    assert watch.wrong == []
    assert watch.operations == {
        *("ListFoundationModels", "CreateModelCustomizationJob", "GetModelCustomizationJob", "ListModelCustomizationJobs"),
        *("StopModelCustomizationJob", "CreateCustomModelDeployment", "GetCustomModelDeployment", "ListCustomModelDeployments"),
        *("DeleteCustomModelDeployment", "CreateProvisionedModelThroughput", "GetProvisionedModelThroughput"),
        *("ListProvisionedModelThroughputs", "DeleteProvisionedModelThroughput", "Converse"),
        *("CreateModelInvocationJob", "GetModelInvocationJob", "ListModelInvocationJobs"),
    }


def test_a_reinforcement_tuning_fits_the_service_model(here: StandIn, watch: Watch) -> None:
    """Its grader and its hyperparameters are where the API has them, and the stand-in shows them again."""
    model = "amazon.nova-2-lite-v1:0:256k"
    rows = here.folder / "rows.jsonl"
    here.tuner.write_rows(here.examples(100), "Sort.", "reinforcement", rows, model)
    grader = {"lambdaArn": "arn:aws:lambda:us-east-1:123456789012:function:grade"}
    order = here.order(rows, model=model, objective="reinforcement", grader=json.dumps(grader))
    assert here.tuner.check_rows(rows, order, "train") == []
    job = here.tuner.create(order, here.uploaded(rows, order))
    here.api.works.settle()
    assert here.tuner.job(job.id).status == "succeeded"
    assert watch.wrong == []


@pytest.mark.parametrize("kind", ["rate_limit", "quota", "refuse", "error_before"])
def test_refusals_on_request_fit_the_service_model(here: StandIn, kind: str) -> None:
    """Every fault that refuses has a code, a status and a body that the operation declares."""
    here.api._asked.service = "bedrock"
    reply = here.api.error(here.api.refusal_of(Fault(kind, "create_job")))
    watch = Watch()
    operation = service("bedrock").operation_model("CreateModelCustomizationJob")
    watch._refusal(operation, {"headers": reply.headers, "status_code": reply.status, "body": json.dumps(reply.body).encode()})
    assert watch.wrong == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"status": "Dreaming"}, "status is 'Dreaming'"),
        ({"creationTime": 1_790_000_000}, "creationTime is no ISO 8601 time"),
        ({"jobName": "has_underscore"}, "which does not match"),
        ({"fine_tuned_model": "ft:1"}, "fine_tuned_model is no member"),
        ({"hyperParameters": {"epochCount": 2}}, "hyperParameters[epochCount] is a int"),
        ({"validationMetrics": {"validationLoss": 1.0}}, "validationMetrics is a dict"),
        ({"failureMessage": "x" * 2049}, "out of bounds"),
        ({"jobArn": None}, "jobArn is a NoneType"),
    ],
)
def test_a_wrong_answer_is_noticed(here: StandIn, change: dict[str, Any], told: str) -> None:
    """A word, a type or a field that the API does not have does not pass; nor does an answer without what is required."""
    tuned(here)
    (job,) = here.api.works.jobs.values()
    answer = here.api.jobs.shown(job)
    shape = service("bedrock").operation_model("GetModelCustomizationJob").output_shape
    assert list(differences(shape, answer, "job")) == []
    assert any(told in found for found in differences(shape, answer | change, "job"))
    del answer["baseModelArn"]
    assert list(differences(shape, answer, "job")) == ["job.baseModelArn is missing"]


def test_every_status_of_the_sdk_is_in_the_tables() -> None:
    """And none that the SDK lacks."""
    assert set(STATUSES) == words("GetModelCustomizationJob", "status")
    assert {word for word, status in STATUSES.items() if status in ENDED} == {"Completed", "Failed", "Stopped"}
    assert set(STATUSES.values()) <= set(get_args(Status))
    assert set(PHASE_ENDED) <= words("GetModelCustomizationJob", "statusDetails", "validationDetails", "status")
    assert set(BATCH_STATUSES) == words("GetModelInvocationJob", "status")


def test_every_error_of_the_operations_in_use_has_a_meaning(here: StandIn, watch: Watch) -> None:
    """Each error class that botocore declares for what the adapter calls is in the table."""
    used = ["CreateModelCustomizationJob", "StopModelCustomizationJob", "CreateCustomModelDeployment", "CreateModelInvocationJob"]
    declared = {shape.name for name in used for shape in service("bedrock").operation_model(name).error_shapes}
    declared |= {shape.name for shape in service("bedrock-runtime").operation_model("Converse").error_shapes}
    assert declared <= set(STATUS_OF)


def test_bounds_of_reinforcement_are_those_of_the_shape() -> None:
    """Botocore's shape says what the adapter checks."""
    shape = service("bedrock").shape_for("RFTHyperParameters")
    for name, least, most in bedrock_models.REINFORCEMENT.values():
        assert (shape.members[name].metadata["min"], shape.members[name].metadata["max"]) == (least, most)
