"""Vertex AI's stand-in with canned answers, and the adapter opened at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures_stand_ins import StandIn

from prooftune.providers.vertex import VertexTuner
from prooftune.sandbox.http import serving
from prooftune.sandbox.models import CannedBrain
from prooftune.sandbox.vertex import VertexApi
from prooftune.spec import Provider

if TYPE_CHECKING:
    import pytest

KEY = "ya29.canary-5f20a7c1"
"""May stand in no error."""
MODEL = "gemini-3.5-flash"


@contextmanager
def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Serve the stand-in: Vertex AI and Cloud Storage at one address."""
    api = VertexApi(CannedBrain(), folder / "sandbox")
    with serving(api) as address:
        monkeypatch.setenv("GOOGLE_OAUTH_ACCESS_TOKEN", KEY)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        yield StandIn(api, VertexTuner(options(address)), MODEL, folder, options(address))


def options(address: str) -> Provider:
    """Return the spec's block for a stand-in at an address."""
    return Provider(base_url=address, project="tickets", region="us-central1", bucket="gs://tickets-tuning/rows")
