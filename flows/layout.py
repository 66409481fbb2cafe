"""How all screens of the command line are laid out: marks, pairs, tables, and lines that can be copied.

Text from data, specs and servers is never read as markup or control codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from prooftune.report.wording import visible

WIDEST = 110
"""Longer lines are hard to read; a wider terminal stays empty on the right."""


def show(*parts: RenderableType) -> None:
    """Print to stdout."""
    console = Console(highlight=False)
    console.width = min(console.width, WIDEST)
    for part in parts:
        console.print(part, markup=False, soft_wrap=isinstance(part, Text) and bool(part.no_wrap))


def figures_table(*headers: str) -> Table:
    """Table without vertical lines; a header that begins with ``>`` is of a column of figures."""
    table = Table(box=box.SIMPLE_HEAD if any(headers) else None, pad_edge=False, header_style="dim", show_header=any(headers))
    for header in headers:
        table.add_column(header.removeprefix(">"), justify="right" if header.startswith(">") else "left", overflow="fold")
    return table


def plain(value: object, style: str = "") -> Text:
    """A value as text that folds."""
    return Text(visible(str(value)), style, overflow="fold")


def marked(mark: str, colour: str, text: str) -> Table:
    """A mark and a text that wraps beside it, not below."""
    grid = Table.grid(padding=(0, 1))
    grid.add_row(Text(mark, f"bold {colour}"), plain(text, colour if colour == "dim" else ""))
    return grid


def pairs(rows: Mapping[str, RenderableType]) -> Table:
    """What a value is, dim, and the value."""
    grid = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        grid.add_row(Text(name, "dim"), value)
    return grid


def unbroken(rows: Mapping[str, Text]) -> list[Text]:
    """The same in lines that are never broken or cut, so that they can be copied."""
    widest = max(map(len, rows), default=0)
    lines = [Text.assemble((f"  {name:<{widest}}  ", "dim"), value) for name, value in rows.items()]
    for line in lines:
        line.no_wrap = True
    return lines


def command(text: str) -> Text:
    """What to type."""
    return Text(visible(text), "cyan")


def place_of(place: str) -> Text:
    """A path or URL, as a link where the terminal knows links."""
    url = place if "://" in place else Path(place).absolute().as_uri()
    return Text(visible(place), f"underline link {url}" if url.startswith(("file:", "http:", "https:")) and url.isprintable() else "")
