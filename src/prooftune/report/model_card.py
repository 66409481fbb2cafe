"""Writes the model card: the report's facts in the form that model hubs read."""

from __future__ import annotations

import re
from typing import Any

from markupsafe import Markup

from prooftune.economics.billable import is_open
from prooftune.models.demo import DEMO_MODEL
from prooftune.report import managed, tables, wording
from prooftune.report.asking import ask_snippet, deployment_note
from prooftune.report.limits import limitations
from prooftune.report.markdown import DEMO_HUB_ID, base_model, fenced, markdown, source_name
from prooftune.report.usage import load_snippet, trained_folder
from prooftune.report.view import RunView

__all__ = ["DEMO_HUB_ID", "model_card"]

TRAINERS = ("torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes", "tokenizers", "safetensors")
"""Libraries that train and run models on this machine: a managed model was made with none of them."""


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
            snippet=fenced(_snippet(view), "python"),
            folder=trained_folder(view),
            provider=managed.provider_name(view),
            whereabouts=managed.whereabouts(view),
            needs=deployment_note(view),
            versions={name: version for name, version in view.versions.items() if not (view.spec.backend.managed and name in TRAINERS)},
        )
    )


def metadata(view: RunView) -> str:
    """Return the card's front matter as YAML, without its fences."""
    from huggingface_hub import ModelCardData

    candidate = view.candidate
    source = view.spec.data.source
    data = ModelCardData(
        **_kind(view),
        license="unknown",
        pipeline_tag="text-generation",
        tags=["prooftune", *_tags(view), view.decision.verdict.replace("_", "-")],
        datasets=[source.removeprefix("hf://")] if source.startswith("hf://") else None,
        metrics=sorted(candidate.metrics) if candidate else None,
        model_name=view.spec.name,
        eval_results=_results(view) or None,
        **_relation(view),
    )
    return str(data.to_yaml())


def _kind(view: RunView) -> dict[str, Any]:
    """Return base model and library. A provider's own model is none of the hub's, and no library loads a model that stays there."""
    backend = view.spec.backend
    if not backend.managed:
        return {"base_model": base_model(view), "library_name": "transformers" if backend.method.kind == "full" else "peft"}
    return {"base_model": backend.model} if _on_hub(view) else {}


def _relation(view: RunView) -> dict[str, Any]:
    if view.spec.backend.managed:
        return {"base_model_relation": "finetune"} if _on_hub(view) else {}
    return {"base_model_relation": "finetune" if view.spec.backend.method.kind == "full" else "adapter"}


def _on_hub(view: RunView) -> bool:
    """Whether a managed run's base model is an open one that its provider calls as the hub does, ``owner/name``."""
    backend = view.spec.backend
    return is_open(backend.provider, backend.model) and re.fullmatch(r"[\w.-]+/[\w.-]+", backend.model) is not None


def _tags(view: RunView) -> list[str]:
    backend = view.spec.backend
    return ["managed", backend.provider, backend.objective] if backend.managed else [backend.method.kind]


def _snippet(view: RunView) -> str:
    if view.spec.backend.managed:
        return ask_snippet(view)
    return load_snippet(view, base=_public_base(view), trained=trained_folder(view))


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
