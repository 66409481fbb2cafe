"""Where a provider's own pages show a job, as far as it has a fixed address for that."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from urllib.parse import quote, urlsplit

from prooftune.spec import Objective

_VERTEX_JOB = re.compile(r"projects/(?P<project>[^/]+)/locations/(?P<location>[^/]+)/tuningJobs/(?P<job>[^/]+)")
_AWS_REGION = re.compile(r"bedrock\.(?P<region>[a-z0-9-]+)\.amazonaws\.com")
_FIREWORKS = {"supervised": "supervised", "reinforcement": "reinforcement"}
"""Name in the page's address by objective; that of preference jobs is not known, so that their list is shown."""


def console_of(provider: str, address: str, job: str, objective: Objective = "supervised") -> str | None:
    """Return the address of a job's page; None = the provider has none that is known, or ``address`` is not the provider's own.

    Sources, read on 2026-11-27: Together's SDK (cli/api/fine_tuning) for its own; what users of the others print after they made a job.
    """
    host = urlsplit(address).hostname or ""
    own, page = _PAGES.get(provider, ("", None))
    return page(host, job, objective) if page is not None and f".{host}".endswith(own) else None


def _openai(host: str, job: str, objective: Objective) -> str:
    return f"https://platform.openai.com/finetune/{quote(job, safe='')}"


def _together(host: str, job: str, objective: Objective) -> str:
    return f"https://api.together.ai/fine-tuning/{quote(job, safe='')}"


def _fireworks(host: str, job: str, objective: Objective) -> str:
    jobs, kind = "https://app.fireworks.ai/dashboard/fine-tuning", _FIREWORKS.get(objective)
    return f"{jobs}/{kind}/{quote(job.rpartition('/')[2], safe='')}" if kind else jobs


def _vertex(host: str, job: str, objective: Objective) -> str | None:
    found = _VERTEX_JOB.fullmatch(job)
    place = "https://console.cloud.google.com/vertex-ai/generative/language/locations/{location}/tuning/tuningJob/{job}?project={project}"
    return place.format(**{name: quote(value, safe="") for name, value in found.groupdict().items()}) if found else None


def _bedrock(host: str, job: str, objective: Objective) -> str | None:
    """Return the page of custom models and their jobs: a job's own is found there by its name."""
    found = _AWS_REGION.fullmatch(host)
    return f"https://{found['region']}.console.aws.amazon.com/bedrock/home?region={found['region']}#/custom-models" if found else None


_PAGES: Mapping[str, tuple[str, Callable[[str, str, Objective], str | None]]] = {
    "openai": (".openai.com", _openai),
    "together": (".together.ai", _together),
    "fireworks": (".fireworks.ai", _fireworks),
    "vertex": (".googleapis.com", _vertex),
    "bedrock": (".amazonaws.com", _bedrock),
}
"""End of the host of a provider's API, and what makes the address of a job's page. Azure's address needs ids that the API does not tell."""
