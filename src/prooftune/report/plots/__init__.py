"""The plots of a report, each with its data and a sentence that says what it shows."""

from prooftune.report.plots.answers import answer_tokens, confusion, latency, tokens
from prooftune.report.plots.base import Plot, csv_lines
from prooftune.report.plots.evidence import difference, judge, ladder, slices
from prooftune.report.plots.money import break_even
from prooftune.report.plots.risks import forgetting, perplexity
from prooftune.report.plots.training import demonstrations, learning_curve, loss
from prooftune.report.view import RunView

__all__ = ["Plot", "csv_lines", "draw_plots"]
_EVIDENCE = (difference, ladder, slices, judge)
_MONEY_AND_RISKS = (break_even, forgetting, perplexity, confusion)
_DETAILS = (demonstrations, loss, learning_curve, tokens, answer_tokens, latency)


def draw_plots(view: RunView) -> dict[str, Plot]:
    """Return by name every plot that the run has data for."""
    drawn = (draw(view) for draw in (*_EVIDENCE, *_MONEY_AND_RISKS, *_DETAILS))
    return {plot.name: plot for plot in drawn if plot is not None}
