"""Turns a matplotlib figure into SVG for the inside of an HTML page: themed by the page's CSS, same bytes every time, no request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONTESTANTS: Final = ("zero_shot", "few_shot", "retrieved", "optimised", "larger_model", "rag", "candidate")
"""Each has a colour of its own, told apart by the colour-blind too."""
VERDICTS: Final = ("promote", "keep", "inconclusive", "stop")
ROLES: Final = ("ink", "muted", "rule", "surface", "verdict", *CONTESTANTS, "train", "validation", "holdout", *VERDICTS)
"""What a colour means; each is a CSS custom property of the page, so that a plot reads in light and in dark."""
COLOUR: Final[Mapping[str, str]] = {role: f"#0a0b{index:02x}" for index, role in enumerate(ROLES)}
"""Stand-in colours that matplotlib draws with and that become ``var(--role)`` in the SVG."""
WIDTH: Final = 420
"""User units (CSS pixels at full size) of every plot; so narrow that its text can still be read on a phone."""
_STYLE: Final[dict[str, Any]] = {
    "svg.fonttype": "none",  # text stays text: sharp, selectable, in the reader's own font
    "font.family": "DejaVu Sans",  # measured with the font that comes with matplotlib, the same everywhere
    "font.size": 12,
    "text.color": COLOUR["ink"],
    "axes.edgecolor": COLOUR["rule"],
    "axes.labelcolor": COLOUR["muted"],
    "axes.labelsize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOUR["rule"],
    "grid.linewidth": 0.8,
    "xtick.color": COLOUR["rule"],
    "ytick.color": COLOUR["rule"],
    "xtick.labelcolor": COLOUR["muted"],
    "ytick.labelcolor": COLOUR["muted"],
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "axes.unicode_minus": True,
    "text.parse_math": False,  # a dollar sign in the data is a dollar sign
}


def new_figure(height: float) -> Figure:
    """Return an empty figure of ``WIDTH`` × ``height`` user units."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")


def style(name: str) -> Any:
    """Return the context in which a plot is drawn and saved; ``name`` makes its ids its own and the same in every run."""
    import matplotlib

    return matplotlib.rc_context({**_STYLE, "svg.hashsalt": name})


def to_svg(figure: Figure, name: str, label: str) -> str:
    """Return the figure as one ``<svg>`` element without prolog, metadata, style sheet, name spaces or fixed size."""
    from io import StringIO

    text = StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ElementTree.fromstring(text.getvalue())  # noqa: S314  # matplotlib wrote it a moment ago
    used = set(re.findall(r"#([\w-]+)", text.getvalue()))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        _clean(element, used, name)
    root.attrib = {"viewBox": root.attrib["viewBox"], "class": "plot", "role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def _clean(element: ElementTree.Element, used: set[str], name: str) -> None:
    element.tag = element.tag.rpartition("}")[2]
    element.attrib = {key.rpartition("}")[2]: _own(value, name) for key, value in element.attrib.items()}
    if (found := element.attrib.pop("id", None)) in used:
        element.attrib["id"] = f"{name}-{found}"
    if css := element.attrib.get("style"):
        css = re.sub(r"#0a0b([0-9a-f]{2})", lambda hit: f"var(--{ROLES[int(hit[1], 16)].replace('_', '-')})", css)
        element.attrib["style"] = re.sub(r"font-family: [^;]*; ", "", css)  # the page's own font
    element.tail = None
    if element.text is not None and not element.text.strip():
        element.text = None


def _own(value: str, name: str) -> str:
    """Make a reference to an id of this figure one to an id of this plot: a page holds several."""
    return re.sub(r"(^|url\()#", rf"\1#{name}-", value)
