"""Writes the model card: the report's facts in the form that model hubs read."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from prooftune.models.demo import DEMO_MODEL
from prooftune.report import tables, wording
from prooftune.report.usage import load_snippet, trained_folder
from prooftune.report.view import RunView

DEMO_HUB_ID: Final = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""What the demo model is called on the hub."""


def model_card(view: RunView) -> str:
    """Return the card as Markdown with Hugging Face's metadata on top; it holds no example text and no path of this machine."""
    made = Environment(
        loader=PackageLoader("prooftune.report", "templates"),
        autoescape=False,  # noqa: S701  # Markdown, not HTML: _finalize escapes
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_finalize,
    )
    functions = (wording.name_of, wording.points, wording.p_value, wording.duration, wording.number)
    made.filters.update({function.__name__: function for function in functions})
    return made.get_template("model_card.md.j2").render(
        view=view,
        metadata=Markup(metadata(view)),  # noqa: S704  # YAML, quoted by its writer
        title=wording.TITLES[view.decision.verdict],
        headline=wording.headline(view),
        what_next=wording.what_next(view),
        base=_base_model(view),
        source=_source_name(view),
        quality=tables.quality_rows(view),
        cost=tables.cost_rows(view),
        split=tables.stage_tables(view, "split").pairs,
        training=[(name, value) for name, value in tables.training_settings(view) if name != "base model"],
        snippet=_fenced(load_snippet(view, base=_public_base(view), trained=trained_folder(view)), "python"),
        folder=trained_folder(view),
    )


def metadata(view: RunView) -> str:
    """Return the card's front matter as YAML, without its fences."""
    from huggingface_hub import ModelCardData

    candidate, method = view.candidate, view.spec.backend.method.kind
    source = view.spec.data.source
    data = ModelCardData(
        base_model=_base_model(view),
        library_name="transformers" if method == "full" else "peft",
        license="unknown",
        pipeline_tag="text-generation",
        tags=["prooftune", method, view.decision.verdict.replace("_", "-")],
        datasets=[source.removeprefix("hf://")] if source.startswith("hf://") else None,
        metrics=sorted(candidate.metrics) if candidate else None,
        model_name=view.spec.name,
        eval_results=_results(view) or None,
        base_model_relation="finetune" if method == "full" else "adapter",
    )
    return str(data.to_yaml())


def _results(view: RunView) -> list[Any]:
    """Return the candidate's results as the hub's ``EvalResult``; without a candidate there is no model to report on."""
    from huggingface_hub import EvalResult

    if (candidate := view.candidate) is None:
        return []
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=view.spec.name,
            dataset_name=f"{view.spec.name}, sealed holdout",
            dataset_split="holdout",
            dataset_args={"sha256": candidate.holdout_sha256},
            metric_type=metric.name,
            metric_name=wording.name_of(metric.name),
            metric_value=metric.value,
            metric_args={"ci_low": metric.ci_low, "ci_high": metric.ci_high, "n": metric.n, "unscored": metric.unscored},
        )
        for metric in candidate.metrics.values()
    ]


def _base_model(view: RunView) -> str:
    """Return the base model's hub id, or the name of its folder: where that lies is nobody's business."""
    model = view.spec.backend.model
    if model == DEMO_MODEL:
        return DEMO_HUB_ID
    return PurePosixPath(model).name if model.startswith(("/", ".", "~")) else model


def _public_base(view: RunView) -> str | None:
    """Return what stands for the base model in code; None = the demo model, which is this project's own conversion of the hub's."""
    return None if view.spec.backend.model == DEMO_MODEL else _base_model(view)


def _source_name(view: RunView) -> str:
    source = view.spec.data.source
    return source if "://" in source else PurePosixPath(source).name


def _fenced(code: str, language: str) -> Markup:
    """Return a code block whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}{language}\n{wording.visible(code)}{fence}")  # noqa: S704  # fenced: nothing in it is Markdown


def _finalize(value: Any) -> Any:
    """Escape what Markdown or HTML in it would act on, and show hidden characters, in every text that the template puts out."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return re.sub(r"([\\`*<>|\[\]])", r"\\\1", " ".join(wording.visible(value).split()))
