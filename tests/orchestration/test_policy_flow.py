"""Where data may go, on a Prefect server: a run stops before the first of them is sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures_stand_ins import StandIn, open_stand_in
from fixtures_tickets import managed_fields, tickets
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, temporary_settings
from tests_support import write_jsonl

from flows.finetune import finetune
from prooftune.errors import SpecError
from prooftune.spec import parse_spec


@pytest.fixture(scope="module", autouse=True)
def on_the_server(server: dict[str, Any]) -> Iterator[None]:
    """Run the flows of this file on the test server."""
    with temporary_settings({PREFECT_API_URL: server["api"]}):
        yield
        APILogWorker.drain_all(timeout=10)  # or the rest is sent at exit, for a minute, to a server that is gone


@pytest.fixture
def bedrock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Bedrock, with S3."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with open_stand_in("bedrock", tmp_path, monkeypatch) as found:
        yield found


def test_rows_are_not_put_into_a_bucket_of_another_region(bedrock: StandIn) -> None:
    """The bucket is asked where it is, and no baseline is paid for."""
    fields = managed_fields(bedrock.folder, "bedrock", bedrock.model)
    provider = bedrock.options.model_dump() | {"min_remaining_days": 0, "bucket": "s3://tickets-eu-central-1/rows"}
    spec = parse_spec(fields | {"provider": provider, "data": fields["data"] | {"residency": "us"}})
    with pytest.raises(SpecError, match=r"lies in eu-central-1, and data\.residency is us"):
        finetune(spec)
    assert {operation for operation, _, _ in bedrock.api.seen} == {"probe", "get_bucket"}


def test_personal_data_are_not_sent_to_a_judge(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on this machine stops before its baselines, although only its judge is elsewhere."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    rows = [row | {"prompt": f"{row['prompt']} from ada{number}@example.org"} for number, row in enumerate(tickets())]
    write_jsonl(tmp_path / "tickets.jsonl", rows)
    fields = managed_fields(tmp_path, "local", str(tiny_model))
    del fields["provider"]
    spec = parse_spec(fields | {"data": fields["data"] | {"pii": "allow"}, "judge": {"model": "gpt-4.1"}})
    with pytest.raises(SpecError, match=r"pii-email would be sent to openai \(judge\)"):
        finetune(spec)
