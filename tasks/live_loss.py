"""The loss while it trains, in the Prefect UI: one artifact with a curve and the latest figures, written anew as they come."""

from __future__ import annotations

import base64
import math
import re
import time
from collections.abc import Sequence
from uuid import UUID

from prooftune.types import Progress, Report
from tasks.artifacts import show_markdown

UPDATE_EVERY_S = 5.0
"""The UI is told at most this often: an update is a request to the server that carries the whole curve."""
SHOWN = 12
"""Latest rows in the table."""
MOST_POINTS = 400
"""Points of a curve; of more, every n-th is drawn."""
WIDTH, HEIGHT, MARGIN = 640, 220, 36
TRAIN, VALIDATION, INK = "#8f7ff0", "#19a7b0", "#8a93a0"
"""Colours that read on the UI's dark and on its light page."""
_TOLD = re.compile(r"loss (?P<train>[\d.e+-]+)(?:, validation (?P<validation>[\d.e+-]+))?")
"""What a training says of its progress."""

Curve = Sequence[tuple[float, float]]
"""Step and loss in nats per token."""


class LiveLoss:
    """Collects losses, and shows them now and then."""

    def __init__(self, total: int | None = None) -> None:
        self.total = total
        self._train: list[tuple[float, float]] = []
        self._validation: list[tuple[float, float]] = []
        self._artifact: UUID | None = None
        self._last = -math.inf
        self._news = False

    def add(self, step: float, train: float | None, validation: float | None) -> None:
        """Note what a step told; a validation loss that was told before is no new one."""
        if train is not None and math.isfinite(train):
            self._train.append((step, train))
            self._news = True
        told_before = bool(self._validation) and self._validation[-1][1] == validation
        if validation is not None and math.isfinite(validation) and not told_before:
            self._validation.append((step, validation))
            self._news = True

    def show(self, *, last: bool = False) -> None:
        """Show what is known by now; not more often than the UI can use, unless it is the ``last`` time."""
        now = time.monotonic()
        if not self._news or (not last and now - self._last < UPDATE_EVERY_S):
            return
        self._last, self._news = now, False
        self._artifact = show_markdown(self.text(), "live-loss", self._sentence(), self._artifact)

    def text(self) -> str:
        """Return curve and table as Markdown."""
        picture = base64.b64encode(draw(self._train, self._validation).encode()).decode()
        train, validation = dict(self._train), dict(self._validation)
        latest = list(train)[-1:] if validation else []  # a step with a validation loss says more than those between two
        steps = sorted({*(validation or train), *latest})[-SHOWN:]
        rows = (f"| {step:g} | {_figure(train.get(step))} | {_figure(validation.get(step))} |" for step in reversed(steps))
        table = "\n".join(("| step | train | validation |", "|---:|---:|---:|", *rows))
        return f"![{self._sentence()}](data:image/svg+xml;base64,{picture})\n\n{table}\n"

    def _sentence(self) -> str:
        step = max(step for step, _ in (*self._train, *self._validation))
        of = f" of {self.total}" if self.total else ""
        told = [f"{name} {curve[-1][1]:.4g}" for name, curve in (("train", self._train), ("validation", self._validation)) if curve]
        return f"Loss after step {step:g}{of}, in nats per token: {', '.join(told)}."


def with_live_loss(report: Report) -> Report:
    """Return a reporter that shows the loss in the UI besides."""
    losses = LiveLoss()

    def live(progress: Progress) -> None:
        report(progress)
        if (told := _TOLD.match(progress.text)) is None:
            return
        losses.total = progress.total
        losses.add(progress.done, float(told["train"]), float(told["validation"]) if told["validation"] else None)
        losses.show(last=progress.done >= progress.total)

    return live


def draw(train: Curve, validation: Curve) -> str:
    """Return both curves as SVG, with the range of their axes written at the ends."""
    points = [*train, *validation]
    steps, losses = [step for step, _ in points], [loss for _, loss in points]
    first, last, top = min(steps), max(max(steps), min(steps) + 1), max(*losses, 1e-9)

    def place(step: float, loss: float) -> str:
        across = MARGIN + (WIDTH - 2 * MARGIN) * (step - first) / (last - first)
        return f"{across:.1f},{HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * loss / top:.1f}"

    lines = "".join(
        f'<polyline points="{" ".join(place(*point) for point in _thinned(curve))}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
        for curve, colour, width in ((train, TRAIN, 1.6), (validation, VALIDATION, 2.6))
        if curve
    )
    floor, right = HEIGHT - MARGIN, WIDTH - MARGIN
    labels = (
        (MARGIN, 20, "start", INK, f"{top:.3g} nats per token"),
        (MARGIN, HEIGHT - 12, "start", INK, f"step {first:g}"),
        (right, HEIGHT - 12, "end", INK, f"step {last:g}"),
        (right - 90, 20, "end", TRAIN, "train"),
        (right, 20, "end", VALIDATION, "validation"),
    )
    texts = "".join(f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}">{text}</text>' for x, y, anchor, colour, text in labels)
    axes = f'<path d="M{MARGIN} {MARGIN}V{floor}H{right}" fill="none" stroke="{INK}"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="system-ui, sans-serif" font-size="13">{axes}{lines}{texts}</svg>'
    )


def _thinned(curve: Curve) -> Curve:
    every = -(-len(curve) // MOST_POINTS)
    return [*curve[:-1:every], curve[-1]]


def _figure(loss: float | None) -> str:
    return "" if loss is None else f"{loss:.4g}"
