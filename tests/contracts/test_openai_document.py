"""OpenAI's stand-in and the adapter, held against OpenAI's own description of its API: each request sent, and each answer given."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fixtures_openai import KEY
from fixtures_stand_ins import StandIn
from tests_support import ROOT

from prooftune.errors import SpecError
from prooftune.providers import batches, openai_files
from prooftune.providers.openai_tuning import OpenAITuner
from prooftune.sandbox.http import Refused, Reply, Request, Route, serving
from prooftune.sandbox.models import CannedBrain
from prooftune.sandbox.openai import OpenAIApi
from prooftune.spec import Hyperparameters, Provider
from prooftune.types import Message

DOCUMENT = ROOT.parent / "shared" / "openapi" / "openai.json"
pytestmark = pytest.mark.skipif(
    not DOCUMENT.exists(), reason="OpenAI's OpenAPI document is not beside the checkout (../shared/openapi/openai.json)"
)
GRADER = {
    "type": "string_check",
    "name": "same",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference_answer}}",
    "operation": "eq",
}
PROMPT = [Message(role="system", content="Sort the ticket."), Message(role="user", content="ticket 4 about login, please help")]


@dataclass(frozen=True)
class Exchange:
    """A request, and what came of it."""

    request: Request
    reply: Reply


class RecordingApi(OpenAIApi):
    """The stand-in, with a record of what it got and gave."""

    def __init__(self, folder: Path) -> None:
        super().__init__(CannedBrain(), folder)
        self.exchanges: list[Exchange] = []

    def routes(self) -> list[Route]:
        return [replace(route, operation=self.recorded(route.operation)) for route in super().routes()]

    def recorded(self, operation: Callable[[Request], Reply]) -> Callable[[Request], Reply]:
        def perform(request: Request) -> Reply:
            try:
                reply = operation(request)
            except Refused as refused:
                self.exchanges.append(Exchange(request, self.error(refused)))
                raise
            self.exchanges.append(Exchange(request, reply))
            return reply

        return perform


def corrected(schema: dict[str, Any]) -> dict[str, Any]:
    """Return an object with ``exclusiveMinimum`` as its version of JSON Schema has it: a number.

    The document calls itself OpenAPI 3.1 and writes it as 3.0 did, as a flag beside ``minimum``: read literally, true is the number 1.
    """
    if schema.get("exclusiveMinimum") is True:
        return {name: value for name, value in schema.items() if name != "minimum"} | {"exclusiveMinimum": schema["minimum"]}
    return schema


@cache
def document() -> dict[str, Any]:
    """Return OpenAI's document, parsed once."""
    found: dict[str, Any] = json.loads(DOCUMENT.read_text(encoding="utf-8"), object_hook=corrected)
    return found


@cache
def registry() -> Any:
    """Return what resolves the document's references."""
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT202012

    return Registry().with_resource("openai", Resource(contents=document(), specification=DRAFT202012))


def broken(pointer: str, value: object) -> list[str]:
    """Return what a value breaks of the schema at a pointer into the document."""
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator({"$ref": f"openai#{pointer}"}, registry=registry())
    return [f"{pointer} {error.json_path}: {error.message}" for error in validator.iter_errors(value)]


@cache
def paths() -> list[tuple[re.Pattern[str], str]]:
    """Return the document's paths as patterns, those without parameters first."""
    found = sorted(document()["paths"], key=lambda path: path.count("{"))
    return [(re.compile("/v1" + re.sub(r"\{\w+\}", "[^/]+", path)), path) for path in found]


def escaped(path: str) -> str:
    """Return a path as a part of a JSON pointer."""
    return path.replace("~", "~0").replace("/", "~1").replace("{", "%7B").replace("}", "%7D")


def request_value(request: Request, kind: str) -> dict[str, Any]:
    """Return the body that a schema describes."""
    if kind == "application/json":
        return request.json
    fields, files = request.form
    return fields | dict.fromkeys(files, "bytes")


def wrong(exchange: Exchange) -> list[str]:
    """Return what an exchange breaks of the document."""
    request, reply = exchange.request, exchange.reply
    path = next((path for pattern, path in paths() if pattern.fullmatch(request.path)), None)
    if path is None or request.method.lower() not in document()["paths"][path]:
        return [f"there is no {request.method} {request.path}"]
    operation = document()["paths"][path][request.method.lower()]
    at = f"/paths/{escaped(path)}/{request.method.lower()}"
    problems = [
        f"{path} knows no parameter {name}"
        for name in request.query
        if name.partition("[")[0] not in {parameter["name"] for parameter in operation.get("parameters", ())}
    ]
    for kind in operation.get("requestBody", {}).get("content", {}):
        problems += broken(f"{at}/requestBody/content/{escaped(kind)}/schema", request_value(request, kind))
    if reply.status >= 400:
        return problems + broken("/components/schemas/ErrorResponse", reply.body)
    body = reply.body.decode() if isinstance(reply.body, bytes) else json.loads(json.dumps(reply.body))
    return problems + broken(f"{at}/responses/200/content/application~1json/schema", body)


@pytest.fixture
def api(tmp_path: Path) -> RecordingApi:
    """The stand-in, with a record."""
    return RecordingApi(tmp_path / "sandbox")


@pytest.fixture
def here(api: RecordingApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The stand-in, served, and the adapter."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(batches, "FIRST_POLL_S", 0.02)
    with serving(api) as address:
        yield StandIn(api, OpenAITuner(Provider(base_url=f"{address}/v1")), "gpt-4.1-mini", tmp_path)


def use_everything(here: StandIn) -> None:
    """Do a whole run with the adapter, and through the SDK what the adapter leaves out."""
    tuner, client = here.tuner, here.tuner.client
    tuner.probe(here.model, "supervised")
    assert not tuner.probe("gpt-nowhere", "supervised").tunable
    rows = here.rows()
    chosen = Hyperparameters(epochs=2, batch_size=4, learning_rate_multiplier=0.5)
    order = here.order(rows, hyperparameters=chosen)
    files = here.uploaded(rows, order).model_copy(update={"validation": tuner.upload(here.rows(12), order.key, "validation")})
    job = tuner.create(order, files)
    assert [found.id for found in tuner.find(order, files)] == [job.id]
    here.api.works.settle()
    done = tuner.job(job.id)
    tuner.events(job.id, None)
    tuner.checkpoints(job.id)
    tuner.download(job.id, here.folder / "results")
    tuner.cancel(job.id)
    chat = tuner.chat(str(done.model))
    chat.ask(PROMPT, 9)
    chat.complete_batch([PROMPT, PROMPT[1:]], max_tokens=9, folder=here.folder)
    client.models.list()
    for stored in list(client.batches.list()):
        with pytest.raises(Exception, match="409"):
            client.batches.cancel(stored.id)
    client.files.delete(files.train)
    client.models.delete(str(done.model))
    with pytest.raises(SpecError):
        chat.ask(PROMPT, 9)


def send_in_parts(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upload a file as one that is too large for a request, and end an upload by hand."""
    monkeypatch.setattr(openai_files, "DIRECT_BYTES", 1_500)
    here.tuner.upload(here.rows(30), "large", "train")
    about: Any = {"filename": "x.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune"}
    here.tuner.client.uploads.cancel(here.tuner.client.uploads.create(bytes=9, **about).id)


def use_other_methods(here: StandIn) -> None:
    """Tune by preference and by reinforcement."""
    from fixtures_stand_ins import example

    from prooftune.data.lines import write_lines

    pairs = here.folder / "pairs.jsonl"
    write_lines(pairs, (example(number).model_copy(update={"rejected": "no idea"}) for number in range(12)))
    for objective, model, changes in (
        ("preference", here.model, {"hyperparameters": Hyperparameters(epochs=1, beta=0.1)}),
        ("reinforcement", "o4-mini", {"hyperparameters": Hyperparameters(epochs=1), "grader": json.dumps(GRADER)}),
    ):
        rows = here.folder / f"{objective}.jsonl"
        here.tuner.write_rows(pairs, "Sort.", objective, rows)
        order = here.order(rows, objective=objective, model=model, **changes)
        files = here.uploaded(rows, order)
        files = files.model_copy(update={"validation": files.train})
        here.tuner.create(order, files)


def test_what_is_sent_and_answered_is_as_described(here: StandIn, api: RecordingApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole run, its batch, a file in parts and the other two methods break nothing of OpenAI's description."""
    use_everything(here)
    send_in_parts(here, monkeypatch)
    use_other_methods(here)
    assert [problem for exchange in api.exchanges for problem in wrong(exchange)] == []
    done = {name for name, _, _ in api.seen}
    assert {route.name for route in api.routes()} - done == {"pause_job", "resume_job"}


def test_a_paused_job_is_as_described_but_for_its_status(here: StandIn, api: RecordingApi) -> None:
    """The description has requests to pause and to resume, and no word for what a paused job is."""
    rows = here.rows()
    order = here.order(rows)
    job = here.tuner.create(order, here.uploaded(rows, order))
    api.works.settle()
    api.works.jobs[job.id].phase = "running"
    jobs = here.tuner.client.fine_tuning.jobs
    jobs.pause(job.id)
    assert here.tuner.job(job.id).status == "paused"
    assert not here.tuner.job(job.id).ended
    jobs.resume(job.id)
    assert here.tuner.job(job.id).status == "running"
    problems = [problem for exchange in api.exchanges for problem in wrong(exchange)]
    assert len(problems) == 3  # the answer to the pause, and two looks
    assert all("'paused' is not one of" in problem for problem in problems)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("create_job", lambda body: body.pop("seed")),
        ("create_job", lambda body: body.update(status="JOB_STATE_RUNNING")),
        ("create_job", lambda body: body.update(created_at="2026-11-26")),
        ("list_events", lambda body: body["data"][0].pop("level")),
        ("list_jobs", lambda body: body.pop("has_more")),
        ("upload_file", lambda body: body.update(purpose="tuning")),
        ("chat", lambda body: body["choices"][0].pop("finish_reason")),
        ("probe", lambda body: body.update(object="modell")),
    ],
)
def test_a_wrong_answer_is_found(name: str, change: Callable[[dict[str, Any]], Any], here: StandIn, api: RecordingApi) -> None:
    """The check can fail: an answer that lacks a field, or has another word or type, is found to be wrong."""
    rows = here.rows()
    order = here.order(rows)
    here.tuner.probe(here.model, "supervised")
    job = here.tuner.create(order, here.uploaded(rows, order))
    here.tuner.find(order, here.uploaded(rows, order))
    here.tuner.events(job.id, None)
    here.tuner.chat(here.model).ask(PROMPT, 9)
    [number, *_] = [number for number, (seen, _, _) in enumerate(api.seen) if seen == name]
    exchange = api.exchanges[number]
    assert wrong(exchange) == []
    body = json.loads(json.dumps(exchange.reply.body))
    change(body)
    assert wrong(replace(exchange, reply=Reply(body))) != []


def test_a_wrong_request_is_found(here: StandIn, api: RecordingApi) -> None:
    """The check can fail for requests as well: bodies, queries and addresses."""
    rows = here.rows()
    order = here.order(rows)
    here.tuner.create(order, here.uploaded(rows, order))
    [made] = [exchange for exchange in api.exchanges if exchange.request.path == "/v1/fine_tuning/jobs"]
    body = made.request.json
    for changed in (
        replace(made.request, body=json.dumps(body | {"seed": -1}).encode()),
        replace(made.request, body=json.dumps(body | {"method": {"type": "sft"}}).encode()),
        replace(made.request, body=b"{}"),
        replace(made.request, query={"key": ["1"]}),
        replace(made.request, path="/v1/fine-tunes"),
        replace(made.request, method="PUT"),
    ):
        assert wrong(replace(made, request=changed)) != []
