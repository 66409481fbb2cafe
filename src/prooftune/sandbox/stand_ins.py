"""The stand-in of each provider, by name."""

from __future__ import annotations

from pathlib import Path

from prooftune.errors import SpecError
from prooftune.sandbox.http import Api
from prooftune.sandbox.models import Brain

PROVIDERS = ("openai", "azure", "bedrock", "vertex", "together", "fireworks")


def stand_in(provider: str, brain: Brain, folder: Path, pace_s: float = 0.0) -> Api:
    """Return a provider's stand-in; it is not served yet.

    Args:
        provider: Whose.
        brain: Who answers and is trained.
        folder: For what it has to keep on disk.
        pace_s: Seconds that a job stays in each early phase.

    Raises:
        SpecError: there is no such provider.
    """
    if provider == "openai":
        from prooftune.sandbox.openai import OpenAIApi

        return OpenAIApi(brain, folder, pace_s)
    if provider == "azure":
        from prooftune.sandbox.azure import AzureApi

        return AzureApi(brain, folder, pace_s)
    if provider == "bedrock":
        from prooftune.sandbox.bedrock import BedrockApi

        return BedrockApi(brain, folder, pace_s)
    if provider == "vertex":
        from prooftune.sandbox.vertex import VertexApi

        return VertexApi(brain, folder, pace_s)
    if provider == "together":
        from prooftune.sandbox.together import TogetherApi

        return TogetherApi(brain, folder, pace_s)
    if provider == "fireworks":
        from prooftune.sandbox.fireworks import FireworksApi

        return FireworksApi(brain, folder, pace_s)
    raise SpecError(f"there is no sandbox for {provider!r}; there are {', '.join(PROVIDERS)}")
