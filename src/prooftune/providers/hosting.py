"""How long a tuned model's deployment ran, for the bill: a line each time, in a file beside the answers that it gave."""

from __future__ import annotations

from pathlib import Path

from prooftune.data.kept import cut_unfinished, keep
from prooftune.types import Frozen

ANSWERS, ENDING = ".answers.jsonl", ".hosting.jsonl"


class Hosted(Frozen):
    """That a deployment ran once, from the request that made it until it was gone."""

    deployment: str
    hours: float | None
    """None = it ran for a try that died, and nobody knows how long."""


def note_hosting(kept: Path, deployment: str, hours: float | None) -> None:
    """Append what a deployment ran to the file that belongs to the kept answers ``kept``: a killed stage's deployments count as well."""
    file = hosting_file(kept)
    cut_unfinished(file)
    keep(file, Hosted(deployment=deployment, hours=None if hours is None else round(hours, 6)))


def hosting_file(kept: Path) -> Path:
    """Return the file for the deployments behind the answers in ``kept``."""
    return kept.with_name(f"{kept.name.removesuffix(ANSWERS)}{ENDING}")
