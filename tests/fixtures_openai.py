"""OpenAI's stand-in with canned answers, and the adapter opened at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures_stand_ins import StandIn

from prooftune.providers.openai_tuning import OpenAITuner
from prooftune.sandbox.http import serving
from prooftune.sandbox.models import CannedBrain
from prooftune.sandbox.openai import OpenAIApi
from prooftune.spec import Provider

if TYPE_CHECKING:
    import pytest

KEY = "sk-canary-5f20a7c1"
"""May stand in no error."""


@contextmanager
def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Serve the stand-in."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    api = OpenAIApi(CannedBrain(), folder / "sandbox")
    with serving(api) as address:
        options = Provider(base_url=f"{address}/v1")
        yield StandIn(api, OpenAITuner(options), "gpt-4.1-mini", folder, options)
