"""The template environment of the documents in Markdown: nothing from data or a model acts as Markdown or HTML."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from prooftune.models.demo import DEMO_MODEL
from prooftune.report import wording
from prooftune.report.view import RunView

DEMO_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""What the demo model is called on the hub."""


def markdown() -> Environment:
    """Return the environment: every text is escaped for Markdown, an unknown name is an error."""
    made = Environment(
        loader=PackageLoader("prooftune.report", "templates"),
        autoescape=False,  # noqa: S701  # Markdown, not HTML: _finalize escapes
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_finalize,
    )
    made.filters.update({function.__name__: function for function in wording.FILTERS})
    return made


def fenced(code: str, language: str) -> Markup:
    """Return a code block whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}{language}\n{wording.visible(code)}{fence}")  # noqa: S704  # fenced: nothing in it is Markdown


def base_model(view: RunView) -> str:
    """Return the base model's hub id, or the name of its folder: where that lies is nobody's business."""
    model = view.spec.backend.model
    if model == DEMO_MODEL:
        return DEMO_HUB_ID
    return PurePosixPath(model).name if model.startswith(("/", ".", "~")) else model


def source_name(view: RunView) -> str:
    """Return where the data came from: an address, or the name of a file without its folder."""
    source = view.spec.data.source
    return source if "://" in source else PurePosixPath(source).name


def escaped(text: str) -> str:
    """Return the text on one line, with what Markdown or HTML in it would act on escaped, and hidden characters shown."""
    return re.sub(r"([\\`*<>|\[\]])", r"\\\1", re.sub(r"\s+", " ", wording.visible(text)))


def _finalize(value: Any) -> Any:
    """Escape every text that the template puts out."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else escaped(value).strip()
