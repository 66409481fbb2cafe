"""Vertex AI's stand-in held against the types of google-genai: every field it sends is one that the SDK knows, and every word as well."""

from __future__ import annotations

import json
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fixtures_vertex
import pytest
from fixtures_stand_ins import StandIn
from fixtures_vertex import KEY
from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel

from prooftune.data.lines import write_lines
from prooftune.providers.tuning import ENDED
from prooftune.providers.vertex import STATUSES
from prooftune.providers.vertex_rows import ADAPTER_SIZES, METHODS
from prooftune.sandbox.vertex_jobs import CHOICES
from prooftune.sandbox.vertex_rewards import SHAPES, WORDS
from prooftune.types import Example, Message

types = pytest.importorskip("google.genai.types")
batches = pytest.importorskip("google.genai.batches")

QUESTION = {"contents": [{"role": "user", "parts": [{"text": "ticket 1 about login"}]}], "generationConfig": {"maxOutputTokens": 9}}


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Serve the stand-in with canned answers."""
    with fixtures_vertex.stand_in(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def job(stand_in: StandIn) -> str:
    """Return the name of a job that has succeeded."""
    rows = stand_in.rows()
    order = stand_in.order(rows)
    created = stand_in.tuner.create(order, stand_in.uploaded(rows, order))
    stand_in.api.works.settle()
    return created.id


def fetch(stand_in: StandIn, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return an answer of the stand-in as it is on the wire."""
    address = stand_in.tuner.options.base_url
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}/v1beta1/{path}", data, {"Authorization": f"Bearer {KEY}"})  # noqa: S310 - loopback
    with urllib.request.urlopen(request) as answer:  # noqa: S310 - loopback
        found: dict[str, Any] = json.load(answer)
    return found


def hold(kind: type[BaseModel], answer: dict[str, Any]) -> Any:
    """Parse an answer strictly: the SDK's types forbid other fields, and warn of words that their enums lack."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return kind.model_validate(answer)


def test_every_state_of_the_sdk_is_in_the_table() -> None:
    """And the table has none that the SDK lacks; those that it says last are those that end."""
    assert set(STATUSES) == {state.value for state in types.JobState}
    assert {state for state, word in STATUSES.items() if word in ENDED} == {
        *types.JOB_STATES_ENDED_VERTEX,
        "JOB_STATE_PARTIALLY_SUCCEEDED",
    }


def test_methods_and_sizes_are_words_of_the_sdk() -> None:
    """What a request is made of is in the SDK's enums."""
    assert set(METHODS.values()) <= {method.value for method in types.TuningMethod}
    assert {f"ADAPTER_SIZE_{word}" for word in ADAPTER_SIZES.values()} <= {size.value for size in types.AdapterSize}


def test_a_job_has_the_fields_of_the_sdks_type(stand_in: StandIn, job: str) -> None:
    """New, ended, in a list and failed; and what the SDK sent to create it is a job's own fields."""
    found = hold(types.TuningJob, fetch(stand_in, job))
    assert found.state is types.JobState.JOB_STATE_SUCCEEDED
    assert found.tuned_model.checkpoints[-1].endpoint == found.tuned_model.endpoint
    assert len(hold(types.ListTuningJobsResponse, fetch(stand_in, job.rpartition("/")[0])).tuning_jobs) == 1
    sent = stand_in.api.works.jobs[job].fields["body"]
    assert hold(types.TuningJob, sent).labels == {"run_key": stand_in.order(stand_in.rows()).key}
    stand_in.api.works.fail_next = "no luck"
    created = fetch(stand_in, job.rpartition("/")[0], sent)
    assert hold(types.TuningJob, created).state is types.JobState.JOB_STATE_PENDING
    stand_in.api.works.settle()
    assert hold(types.TuningJob, fetch(stand_in, created["name"])).error.message == "no luck"


def test_a_reward_has_the_fields_of_the_sdks_types() -> None:
    """Each shape that the stand-in reads has every field of the SDK's type of that name and no other, and the same words."""
    for name, shape in SHAPES.items():
        assert set(shape) == {field.alias or to_camel(known) for known, field in getattr(types, name).model_fields.items()}
    for enum, field in ((types.MatchOperation, "matchOperation"), (types.ResponseParseType, "parseType")):
        assert WORDS[field] == {word.value for word in enum if not word.value.endswith("UNSPECIFIED")}
    assert CHOICES["reinforcement"] <= set(map(to_camel, types.ReinforcementTuningHyperParameters.model_fields))


def test_a_wrong_answer_is_noticed(stand_in: StandIn, job: str) -> None:
    """A field or a word of another's API does not pass."""
    answer = fetch(stand_in, job)
    with pytest.raises(ValidationError, match="fine_tuned_model"):
        hold(types.TuningJob, {**answer, "fine_tuned_model": "ft:1"})
    with pytest.raises(ValidationError, match="step_number"):
        hold(types.TuningJob, {**answer, "tunedModel": {"checkpoints": [{"step_number": 1}]}})
    with pytest.raises((UserWarning, ValidationError)):
        hold(types.TuningJob, {**answer, "state": "succeeded-ish"})


def test_an_answer_has_the_fields_of_the_sdks_type(stand_in: StandIn, job: str) -> None:
    """Of a base model by name and of a tuned one at its endpoint."""
    endpoint = stand_in.tuner.job(job).model
    for model in (f"{job.partition('/tuningJobs')[0]}/publishers/google/models/gemini-3.5-flash", endpoint):
        found = hold(types.GenerateContentResponse, fetch(stand_in, f"{model}:generateContent", QUESTION))
        assert found.candidates[0].finish_reason is types.FinishReason.STOP
        assert (
            found.usage_metadata.total_token_count == found.usage_metadata.prompt_token_count + found.usage_metadata.candidates_token_count
        )


def test_a_batch_has_the_fields_of_the_sdks_type(stand_in: StandIn, job: str) -> None:
    """The SDK renames a batch's fields: what comes of that is its type, and nothing is left over."""
    storage = stand_in.api.storage
    storage.write("gs://tickets-tuning/asked.jsonl", json.dumps({"request": QUESTION}).encode())
    body = {
        "displayName": "asked",
        "model": "publishers/google/models/gemini-3.5-flash",
        "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["gs://tickets-tuning/asked.jsonl"]}},
        "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": "gs://tickets-tuning/answers"}},
    }
    answer = fetch(stand_in, f"{job.partition('/tuningJobs')[0]}/batchPredictionJobs", body)
    while answer["state"] != "JOB_STATE_SUCCEEDED":
        answer = fetch(stand_in, answer["name"])
    read = batches._BatchJob_from_vertex(answer)
    found = hold(types.BatchJob, read)
    assert len(read) == len(answer)
    assert found.dest.gcs_uri == "gs://tickets-tuning/answers"
    line = json.loads(storage.read(f"{found.output_info.gcs_output_directory}/predictions.jsonl"))
    assert line["request"] == QUESTION
    hold(types.GenerateContentResponse, line["response"])


def test_rows_are_made_of_the_sdks_types(stand_in: StandIn, tmp_path: Path) -> None:
    """Turns are its contents; a preference row is its example, with a system instruction."""
    for line in stand_in.rows(3).read_text().splitlines():
        row = json.loads(line)
        for content in (row["systemInstruction"], *row["contents"]):
            hold(types.Content, content)
    said = (Message(role="user", content="hello"), Message(role="assistant", content="good"))
    write_lines(tmp_path / "pairs.jsonl", [Example(id="0" * 16, source="p:1", messages=said, rejected="bad")])
    stand_in.tuner.write_rows(tmp_path / "pairs.jsonl", "Be kind.", "preference", tmp_path / "rows.jsonl")
    row = json.loads((tmp_path / "rows.jsonl").read_text())
    hold(types.Content, row.pop("system_instruction"))
    pair = hold(types.GeminiPreferenceExample, row)
    assert [(one.score, one.completion.parts[0].text) for one in pair.completions] == [(1.0, "good"), (0.0, "bad")]
    stand_in.tuner.write_rows(tmp_path / "pairs.jsonl", "Be kind.", "reinforcement", tmp_path / "rows.jsonl")
    asked = hold(types.ReinforcementTuningExample, json.loads((tmp_path / "rows.jsonl").read_text()))
    assert (asked.contents[-1].role, asked.references) == ("user", {"reference_answer": "good"})
    assert asked.system_instruction.parts[0].text == "Be kind."
