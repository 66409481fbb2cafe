"""Data that must stay in a region are sent to no provider that is not confined to it."""

from __future__ import annotations

from typing import Any

import pytest

from prooftune.economics.residency import check_residency
from prooftune.errors import SpecError
from prooftune.spec import parse_spec

OPENAI = {"provider": "openai", "model": "gpt-4.1"}


@pytest.mark.parametrize(
    "blocks",
    [{"judge": OPENAI}, {"baseline": {"ladder": ["zero_shot", "larger_model"], "larger": OPENAI}}],
)
def test_a_provider_that_is_not_confined_is_refused(blocks: dict[str, Any]) -> None:
    """Judge and larger model are refused by name where the data must stay in a region, and allowed where nothing is said."""
    spec = {"name": "x", "data": {"source": "x.jsonl", "residency": "eu"}, **blocks}
    with pytest.raises(SpecError, match="openai"):
        check_residency(parse_spec(spec))
    check_residency(parse_spec(spec | {"data": {"source": "x.jsonl"}}))


def test_a_server_of_ones_own_and_a_rung_that_is_not_climbed_are_no_matter() -> None:
    """What is named by base_url is the user's to vouch for; a larger model that no rung asks gets no data."""
    data = {"source": "x.jsonl", "residency": "eu"}
    check_residency(parse_spec({"name": "x", "data": data, "judge": OPENAI | {"base_url": "http://127.0.0.1:8000/v1"}}))
    check_residency(parse_spec({"name": "x", "data": data, "baseline": {"larger": OPENAI}}))
