"""Plots of the choices before and in training: demonstrations, loss, and whether more examples would help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prooftune.evidence import CurvePoint
from prooftune.report.plots.base import DASHED, Plot, draw_plot
from prooftune.report.svg import COLOUR
from prooftune.report.view import RunView
from prooftune.report.wording import name_of, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def loss(view: RunView) -> Plot | None:
    """Draw training and validation loss by step, and the checkpoint that became the candidate."""
    if not view.loss:
        return None
    curves = {
        "train": [(row["step"], loss) for row in view.loss if (loss := row.get("loss")) is not None],
        "validation": [(row["step"], loss) for row in view.loss if (loss := row.get("validation_loss")) is not None],
    }
    best = next((value for step, value in curves["validation"] if step == view.best_step), None)

    def draw(axes: Axes) -> None:
        ring: dict[str, Any] = {"markersize": 12, "markerfacecolor": "none", "markeredgecolor": COLOUR["ink"], "markeredgewidth": 1.6}
        for role, curve in curves.items():
            if curve:
                steps, losses = zip(*curve, strict=True)
                shape = "o-" if role == "validation" else "-"
                axes.plot(steps, losses, shape, color=COLOUR[role], linewidth=2 if role == "validation" else 1.6, markersize=4.5)
        if best is not None and view.best_step is not None:
            axes.axvline(view.best_step, color=COLOUR["muted"], linewidth=1, linestyle=DASHED)
            axes.plot([view.best_step], [best], "o", clip_on=False, **ring)
        axes.set_ylim(bottom=0)
        if view.spec.backend.managed:  # some tell a handful of steps
            axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("loss, nats per token")

    chosen = "" if best is None else f"; the checkpoint of step {view.best_step} (validation {best:.3f}) was chosen"
    ends = ", ".join(f"{role} loss {curve[0][1]:.3f} → {curve[-1][1]:.3f}" for role, curve in curves.items() if curve)
    columns = ("step", "epoch", "loss", "validation_loss", "learning_rate", "tokens")
    rows = [tuple(row.get(column) for column in columns) for row in view.loss]
    return draw_plot("loss", "Loss", f"{ends}{chosen}.", 250, draw, columns, rows)


def learning_curve(view: RunView) -> Plot | None:
    """Draw validation loss by number of training examples, both on logarithmic axes, with what twice as many should bring."""
    if (curve := view.curve) is None or not curve.points:
        return None
    examples, losses = [point.examples for point in curve.points], [point.validation_loss for point in curve.points]
    doubled = 2 * examples[-1]

    def draw(axes: Axes) -> None:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.plot(examples, losses, "o-", color=COLOUR["validation"], linewidth=2, markersize=6)
        ticks = [*examples]
        if curve.doubled_loss is not None:
            line = [losses[-1], curve.doubled_loss]
            axes.plot([examples[-1], doubled], line, color=COLOUR["validation"], linewidth=1.6, linestyle=DASHED)
            if curve.doubled_low is not None and curve.doubled_high is not None:
                axes.plot([doubled, doubled], [curve.doubled_low, curve.doubled_high], color=COLOUR["validation"], linewidth=2)
            axes.plot([doubled], [curve.doubled_loss], "o", markerfacecolor="none", color=COLOUR["validation"], markersize=9)
            ticks.append(doubled)
        drawn = [*losses, *(value for value in (curve.doubled_loss, curve.doubled_low, curve.doubled_high) if value is not None)]
        heights = sorted({round(low, 3) for low in (min(drawn), losses[-1], max(drawn))})
        axes.set_xticks(ticks, [number(tick) for tick in ticks])
        axes.set_yticks(heights, [number(height) for height in heights])
        axes.minorticks_off()
        axes.set_xlabel("training examples, logarithmic")
        axes.set_ylabel("validation loss, nats per token")

    rows: list[tuple[Any, ...]] = [tuple(getattr(point, name) for name in CurvePoint.model_fields) for point in curve.points]
    if curve.doubled_loss is not None:
        rows.append((None, doubled, curve.doubled_loss, None, None))
    return draw_plot("learning_curve", "Would more examples help?", curve.text, 250, draw, tuple(CurvePoint.model_fields), rows)


def demonstrations(view: RunView) -> Plot | None:
    """Draw what each number of demonstrations scores on validation, and the number that was chosen."""
    found = {rung: choice for rung, choice in view.choices.items() if choice.scores}
    if not found:
        return None

    def draw(axes: Axes) -> None:
        for rung, choice in found.items():
            shots, scores = zip(*sorted(choice.scores.items()), strict=True)
            axes.plot(shots, scores, "o-", color=COLOUR[rung], linewidth=2, markersize=5)
            best = choice.scores[choice.shots]
            axes.plot([choice.shots], [best], "o", markersize=12, markerfacecolor="none", markeredgecolor=COLOUR["ink"], clip_on=False)
        axes.set_xscale("log", base=2)
        ticks = sorted({shots for choice in found.values() for shots in choice.scores})
        axes.set_xticks(ticks, [number(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("demonstrations, logarithmic")
        axes.set_ylabel(f"{name_of(next(iter(found.values())).metric)}, validation")

    label = "; ".join(f"{name_of(rung)}: {choice.shots} demonstrations are best on {choice.n} examples" for rung, choice in found.items())
    rows = [(rung, shots, score, choice.n) for rung, choice in found.items() for shots, score in sorted(choice.scores.items())]
    columns = ("rung", "demonstrations", "score", "n")
    return draw_plot("demonstrations", "How many demonstrations", label, 230, draw, columns, rows)
