"""Azure's stand-in with canned answers, and the adapter opened at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures_stand_ins import StandIn

from prooftune.providers.azure import AzureTuner
from prooftune.sandbox.azure import RESOURCE, AzureApi
from prooftune.sandbox.http import serving
from prooftune.sandbox.models import CannedBrain
from prooftune.spec import Provider

if TYPE_CHECKING:
    import pytest

KEY = "azure-canary-77d1c2e9"
TOKEN = "token-canary-0c8e5512"
"""May stand in no error, either of them."""


@contextmanager
def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Serve the stand-in."""
    api = AzureApi(CannedBrain(), folder / "sandbox")
    with serving(api) as address:
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
        monkeypatch.setenv("AZURE_MANAGEMENT_TOKEN", TOKEN)
        monkeypatch.setenv("AZURE_MANAGEMENT_ENDPOINT", address)
        options = Provider(base_url=f"{address}/openai/v1", resource=RESOURCE)
        yield StandIn(api, AzureTuner(options), "gpt-4.1-mini-2025-04-14", folder, options)
