"""What speaks against a candidate even where the gate promotes it, each with the figure it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from prooftune.report.changes import Changes
from prooftune.report.view import CANDIDATE, RunView
from prooftune.report.wording import items_of, name_of, number, percent, points

WHOLES: Final = ("multiple choice", "perplexity")
"""The general suite's parts as wholes: they are looked at even where the gate judges neither."""


@dataclass(frozen=True, slots=True)
class Risk:
    """One thing that can go wrong."""

    name: str
    passed: bool | None
    """True: looked for and not found. False: found, beyond what the spec allows. None: found; it is for people to weigh."""
    text: str


def risks(view: RunView, changes: Changes) -> list[Risk]:
    """Return what was looked for, in the order of the report; empty where nothing was trained."""
    if view.candidate is None:
        return []
    return [*_forgetting(view), *_slices(view), *_overfitting(view), *_answers(view), *_regressions(view, changes)]


def _forgetting(view: RunView) -> Iterator[Risk]:
    """Judge the general suite as a whole as the gate did; what it did not judge is only named."""
    if view.forgetting is None:
        yield Risk("forgetting", None, "Not measured: what the candidate lost of its other abilities is unknown.")
        return
    judged = {check.name: check for check in view.decision.checks}
    for part in view.forgetting.parts:
        name = f"forgetting, {part.name}"
        if (check := judged.get(name)) is not None:
            yield Risk(name, check.passed, check.text)
        elif part.name in WHOLES:
            of = "accuracy" if part.unit == "accuracy" else "nats per token"
            text = f"{part.before:.3f} → {part.after:.3f} {of} ({items_of(part)}); the gate did not judge it."
            yield Risk(name, True if part.change >= 0 else None, text)
    for part_name, why in view.forgetting.not_measured.items():
        yield Risk(f"forgetting, {part_name}", None, f"Not measured. {why}")


def _slices(view: RunView) -> Iterator[Risk]:
    fallen = [part for part in view.slices if part.difference < 0]
    if view.slices:
        worst = min(view.slices, key=lambda part: part.difference)
        where = f"lowest where {worst.column} = {worst.value}: {points(worst.difference)} points (n = {worst.n:,})"
        yield Risk("slices", None if fallen else True, f"{len(fallen)} of {len(view.slices)} slices fell; {where}.")


def _overfitting(view: RunView) -> Iterator[Risk]:
    figures = view.figures.get("train", {})
    if "overfitting" not in figures:
        return
    if (found := figures["overfitting"]) is None:
        yield Risk("overfitting", True, "Validation loss was lowest at the end of training.")
        return
    rise = f", where it was {number(found.get('loss_at_end'))}, {number(found.get('rise'))} above the minimum" if found.get("rise") else ""
    past = f"{number(float(found['epochs_past_minimum']))} epochs past the minimum of validation loss{rise}"
    taken = f"the best checkpoint was taken, of step {number(view.best_step)}"
    if view.spec.backend.managed:
        taken = f"the model that the job ended with was taken, not the checkpoint of step {number(figures.get('best_step'))}"
    yield Risk("overfitting", None, f"Training went on for {past}; {taken}.")


def _answers(view: RunView) -> Iterator[Risk]:
    """Compare what is no answer at all with the best baseline."""
    candidate, baseline = view.candidate, view.baseline
    if candidate is None:
        return
    for name, field in (("refusals", "refusals"), ("empty answers", "empty")):
        share, before = getattr(candidate, field), getattr(baseline, field) if baseline else None
        compared = f"; {name_of(baseline.name)}: {percent(before)}" if baseline else ""
        yield Risk(name, None if share > (before or 0) else True, f"{percent(share)} of the answers{compared}.")
    finished = view.finished_share(CANDIDATE)
    if finished is not None and finished < 1:
        yield Risk("cut answers", None, f"{percent(1 - finished)} of the answers were cut at the token limit.")


def _regressions(view: RunView, changes: Changes) -> Iterator[Risk]:
    worse, better = len(changes.regressions), len(changes.improvements)
    if changes.total:
        text = f"{worse:,} of {changes.total:,} examples got worse, {better:,} got better."
        yield Risk("regressions", None if worse else True, text)
