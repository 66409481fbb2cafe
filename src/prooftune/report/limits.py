"""What a candidate is known to be bad at: what model card and technical file say under limitations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prooftune.report.view import RunView
from prooftune.report.wording import items_of, name_of, percent, points

SHOWN: Final = 5
"""Slices and clusters of failures named, each."""


def limitations(view: RunView) -> list[str]:
    """Return each known weakness in a sentence with its figure; empty where nothing was trained."""
    return [*_slices(view), *_forgetting(view), *_failures(view)] if view.candidate is not None else []


def _slices(view: RunView) -> Iterator[str]:
    metric, baseline = name_of(view.metric), name_of(view.decision.baseline or "the baseline")
    for part in sorted(view.slices, key=lambda part: part.candidate)[:SHOWN]:
        yield (
            f"Where {part.column} is {part.value}: {metric} {part.candidate:.3f} ({part.candidate_low:.3f} to {part.candidate_high:.3f}, "
            f"n = {part.n:,}), {points(part.difference)} points against {baseline}."
        )


def _forgetting(view: RunView) -> Iterator[str]:
    if view.forgetting is None:
        yield "What the model lost of its general abilities was not measured."
        return
    for part in view.forgetting.parts:
        if part.change < 0:
            unit = "points of accuracy" if part.unit == "accuracy" else "% of perplexity"
            yield f"Forgetting, {part.name}: {part.before:.3f} → {part.after:.3f} ({points(part.change)} {unit}, {items_of(part)})."
    for name, why in view.forgetting.not_measured.items():
        yield f"Forgetting, {name}: not measured. {why}"


def _failures(view: RunView) -> Iterator[str]:
    if view.failures is None:
        return
    yield f"{view.failures.failures:,} of {view.failures.scored:,} held-out answers are wrong."
    for cluster in view.failures.clusters[:SHOWN]:
        yield f"Failures around “{cluster.name}”: {cluster.failures:,}, {percent(cluster.share)} of all."
