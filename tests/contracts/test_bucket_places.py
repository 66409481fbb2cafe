"""Where a bucket lies is asked of S3 and of Cloud Storage before anything is put there; the real SDKs, over a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures_stand_ins import StandIn, open_stand_in

from prooftune.errors import EnvironmentLacks, SpecError
from prooftune.providers.bucket import check_bucket
from prooftune.spec import Data, RunSpec, parse_spec

BUCKETS = {"bedrock": "s3://{}/rows", "vertex": "gs://{}/rows"}
IN_THE_EU = {"bedrock": "eu-central-1", "vertex": "europe-west4"}


@pytest.fixture(params=BUCKETS)
def here(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A provider that reads rows from a bucket of the user's."""
    monkeypatch.setattr("prooftune.providers.calls.FIRST_WAIT_S", 0.001)
    with open_stand_in(request.param, tmp_path, monkeypatch) as found:
        yield found


def spec_at(here: StandIn, residency: str | None, bucket: str) -> RunSpec:
    """Return a spec with a bucket of that name."""
    provider = here.tuner.provider
    options = here.options.model_copy(update={"bucket": BUCKETS[provider].format(bucket)})
    backend = {"provider": provider, "model": here.model}
    return parse_spec(
        {"name": "x", "data": Data(source="x", residency=residency).model_dump(), "backend": backend, "provider": options.model_dump()}
    )


def asked(here: StandIn) -> list[str]:
    """Return the operations that were asked for."""
    return [operation for operation, _, _ in here.api.seen]


def test_a_bucket_elsewhere_is_refused_and_one_there_is_not(here: StandIn) -> None:
    """By the storage service's own word, with both places; nothing is put anywhere."""
    elsewhere = f"tickets-{IN_THE_EU[here.tuner.provider]}"
    check_bucket(spec_at(here, "us", "tickets-tuning"))
    check_bucket(spec_at(here, "eu", elsewhere))
    with pytest.raises(SpecError, match=rf"(?i)/rows lies in {IN_THE_EU[here.tuner.provider]}, and data\.residency is us") as caught:
        check_bucket(spec_at(here, "us", elsewhere))
    assert "nothing was uploaded" in str(caught.value)
    assert asked(here) == ["get_bucket"] * 3


def test_nothing_is_asked_where_no_region_is_set(here: StandIn) -> None:
    """So that nobody needs the right who does not need the answer."""
    here.api.storage.private.add("tickets-tuning")  # type: ignore[attr-defined]  # both have one
    check_bucket(spec_at(here, None, "tickets-tuning"))
    assert asked(here) == []


def test_a_right_that_is_missing_is_named(here: StandIn) -> None:
    """The refusal says what to grant; a bucket that is not there is told apart."""
    here.api.storage.private.add("tickets-tuning")  # type: ignore[attr-defined]  # both have one
    right = {"bedrock": r"s3:ListBucket on arn:aws:s3:::tickets-tuning", "vertex": r"storage\.buckets\.get"}[here.tuner.provider]
    with pytest.raises(EnvironmentLacks, match=right):
        check_bucket(spec_at(here, "us", "tickets-tuning"))
    here.api.storage.missing.add("nowhere")  # type: ignore[attr-defined]
    with pytest.raises(EnvironmentLacks, match="there is no") as caught:
        check_bucket(spec_at(here, "us", "nowhere"))
    assert "grant" not in str(caught.value)
