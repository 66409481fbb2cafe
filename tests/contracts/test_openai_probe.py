"""What OpenAI and Azure say of a base model, and what they need, before anything is tuned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures_stand_ins import StandIn, open_stand_in

from prooftune.errors import EnvironmentLacks, SpecError
from prooftune.providers.openai_tuning import FAMILIES, family_of
from prooftune.providers.tuning import open_tuner
from prooftune.spec import Provider


@pytest.fixture(params=["openai", "azure"])
def here(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A provider's stand-in."""
    monkeypatch.setattr("prooftune.providers.calls.time.sleep", lambda seconds: None)
    with open_stand_in(request.param, tmp_path, monkeypatch) as found:
        yield found


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "AZURE_OPENAI_API_KEY"])
def test_a_key_is_required(variable: str, here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its key a provider's adapter does not open."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("AZURE_OPENAI_API_KEY", raising=False)
    options: Provider = here.tuner.options
    with pytest.raises(EnvironmentLacks, match="_API_KEY is not set"):
        open_tuner(here.tuner.provider, options)


@pytest.mark.parametrize(
    ("model", "objective", "tunable"),
    [
        ("gpt-4.1-mini", "supervised", True),
        ("gpt-4o-mini-2024-07-18", "preference", True),
        ("gpt-4.1", "reinforcement", False),
        ("o4-mini", "reinforcement", True),
        ("gpt-5-mini", "supervised", False),
        ("gpt-nowhere", "supervised", False),
    ],
)
def test_a_probe_says_what_can_be_tuned(model: str, objective: Any, tunable: bool, here: StandIn) -> None:
    """A model that does not exist, or is not tuned in that way, is told apart, with a reason; nothing is spent."""
    capability = here.tuner.probe(model, objective)
    assert capability.tunable is tunable
    assert capability.why
    assert here.jobs == 0


def test_families() -> None:
    """A model is known by its family, whatever its version."""
    assert {family_of(name) for name in ("gpt-4.1", "gpt-4.1-2025-04-14", "ft:gpt-4.1-2025-04-14:org:x:1")} == {"gpt-4.1"}
    assert all(family_of(name) == name for name in FAMILIES)


# Other objectives


def test_reinforcement_asks_for_a_validation_file(here: StandIn) -> None:
    """What the API requires is known before the request."""
    rows = here.rows()
    order = here.order(rows, objective="reinforcement", grader='{"type": "string_check"}', model="o4-mini")
    with pytest.raises(SpecError, match="validation file"):
        here.tuner.create(order, here.uploaded(rows, order))
    assert "create_job" not in {name for name, _, _ in here.api.seen}
