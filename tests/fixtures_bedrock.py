"""Bedrock's stand-in with canned answers, and the adapter opened at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fixtures_stand_ins import StandIn

from prooftune.providers.bedrock import BedrockTuner
from prooftune.providers.tuning import Files, Job, Order
from prooftune.sandbox.bedrock import BedrockApi
from prooftune.sandbox.http import serving
from prooftune.sandbox.models import CannedBrain
from prooftune.spec import Provider

if TYPE_CHECKING:
    import pytest

ACCESS_KEY = "AKIACANARY77D1C2E9"
SECRET = "secret-canary-0c8e5512+/aa"
"""May stand in no error, either of them."""
MODEL = "amazon.nova-micro-v1:0:128k"
ACCOUNT = "123456789012"


@contextmanager
def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, pace_s: float = 0.0) -> Iterator[StandIn]:
    """Serve the stand-in: Bedrock, its runtime and S3 at one address."""
    api = BedrockApi(CannedBrain(), folder / "sandbox", pace_s)
    api.access_keys = {ACCESS_KEY}
    with serving(api) as address:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_BEARER_TOKEN_BEDROCK"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "no-config"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "no-credentials"))
        yield StandIn(api, BedrockTuner(options(address)), MODEL, folder, options(address))


def options(address: str | None) -> Provider:
    """Return the spec's block for a stand-in at an address."""
    return Provider(
        base_url=address,
        region="us-east-1",
        bucket="s3://tickets-tuning/rows",
        role_arn=f"arn:aws:iam::{ACCOUNT}:role/tuning",
    )


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
