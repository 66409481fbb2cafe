"""What every plot is: an SVG, its data and a sentence that says what it shows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from prooftune.report.svg import new_figure, style, to_svg
from prooftune.report.wording import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHED: Final = (0, (3, 2.5))


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawn plot and the data behind it."""

    name: str
    """File name of its data, without suffix."""
    title: str
    label: str
    """What it shows, in one sentence, for those who do not see it."""
    svg: str
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


def draw_plot(
    name: str,
    title: str,
    label: str,
    height: float,
    draw: Callable[[Axes], None],
    columns: tuple[str, ...],
    rows: Sequence[tuple[Any, ...]],
) -> Plot:
    """Return the plot that ``draw`` makes on empty axes; ``height`` in user units."""
    with style(name), warnings.catch_warnings():
        # Layout measures with DejaVu Sans; the page shows text in the reader's own fonts, which have more scripts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure: Figure = new_figure(height)
        axes = figure.add_subplot()
        draw(axes)
        axes.tick_params(length=0, pad=6)
        return Plot(name, title, label, to_svg(figure, name, label), columns, tuple(rows))


def rows_only(axes: Axes, names: Sequence[str], *, colour: str, size: float = 12) -> None:
    """Make the vertical axis a list of names, the first on top."""
    axes.set_yticks(range(len(names)), list(names), color=colour, fontsize=size)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)


def short(text: str, limit: int = 26) -> str:
    """Return text from the data on one line, so short that it can stand beside an axis."""
    line = " ".join(visible(text).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def csv_lines(plot: Plot) -> Iterator[tuple[object, ...]]:
    """Yield the header and the rows of a plot's data, hidden characters shown."""
    yield plot.columns
    for row in plot.rows:
        yield tuple(visible(value) if isinstance(value, str) else value for value in row)
