"""Writes the model card: the report's facts in the form that model hubs read."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from prooftune.models.demo import DEMO_MODEL
from prooftune.report import tables, wording
from prooftune.report.limits import limitations
from prooftune.report.markdown import DEMO_HUB_ID, base_model, fenced, markdown, source_name
from prooftune.report.usage import load_snippet, trained_folder
from prooftune.report.view import RunView

__all__ = ["DEMO_HUB_ID", "model_card"]


def model_card(view: RunView) -> str:
    """Return the card as Markdown with Hugging Face's metadata on top; it holds no path of this machine and no example.

    Words that failures share, and values of the slices' columns, are named: they are what the model is bad at.
    """
    return (
        markdown()
        .get_template("model_card.md.j2")
        .render(
            view=view,
            metadata=Markup(metadata(view)),  # noqa: S704  # YAML, quoted by its writer
            title=wording.TITLES[view.decision.verdict],
            headline=wording.headline(view),
            what_next=wording.what_next(view),
            base=base_model(view),
            source=source_name(view),
            quality=tables.quality_table(view),
            effort=tables.effort_table(view),
            limitations=limitations(view),
            split=tables.stage_tables(view, "split").pairs,
            training=[(name, value) for name, value in tables.training_settings(view) if name != "base model"],
            snippet=fenced(load_snippet(view, base=_public_base(view), trained=trained_folder(view)), "python"),
            folder=trained_folder(view),
        )
    )


def metadata(view: RunView) -> str:
    """Return the card's front matter as YAML, without its fences."""
    from huggingface_hub import ModelCardData

    candidate, method = view.candidate, view.spec.backend.method.kind
    source = view.spec.data.source
    data = ModelCardData(
        base_model=base_model(view),
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
            metric_name=f"{wording.name_of(metric.name)} (95 % interval {wording.interval(metric)}, n = {metric.n:,})",
            metric_value=metric.value,
            metric_args={"ci_low": metric.ci_low, "ci_high": metric.ci_high, "n": metric.n, "unscored": metric.unscored},
        )
        for metric in candidate.metrics.values()
    ]


def _public_base(view: RunView) -> str | None:
    """Return what stands for the base model in code; None = the demo model, which is this project's own conversion of the hub's."""
    return None if view.spec.backend.model == DEMO_MODEL else base_model(view)
