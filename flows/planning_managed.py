"""What a managed run would take: the figures of ``prooftune plan``. Nothing is sent, and no key is needed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from flows.planning import STAGES, data_of
from flows.rehearsal import Rehearsal
from prooftune.data.lines import read_lines
from prooftune.economics.billable import billable_tokens, is_open
from prooftune.economics.managed import Estimate, beyond_limit, estimate_managed
from prooftune.economics.policy import by_code, check_policy, told_kept
from prooftune.economics.prices import load_prices
from prooftune.models.demo import DEMO_MODEL
from prooftune.spec import RunSpec
from prooftune.types import Example, SplitName

WHAT = {
    "tokens": "count as the provider bills, or nearly",
    "baselines": "prompt the provider's base model on the holdout",
    "train": "collect what the job left: name, losses, result files",
    "evaluate": "deploy the candidate if need be, and score it on the holdout",
}
"""Stages that do something else than on this machine."""
ASKS = ("probe", "model", "baselines", "approval", "submit", "train", "evaluate", "champion", "forgetting", "judge")
"""Stages that wait for a provider, a person or a download: how long is not known."""
NOTE = "a provider trains and answers, in its own time"


def plan_managed(spec: RunSpec, found: Rehearsal, splits: Mapping[SplitName, Path]) -> dict[str, Any]:
    """Return tokens, the estimate's lines, the limits that apply, and the stages.

    Raises:
        SpecError: a price is missing, or the provider may not get the data.
    """
    here = with_tokenizer_here(spec)
    listed = load_prices(Path(spec.use.prices) if spec.use.prices else None, date.today())
    check_policy(spec, listed, by_code(found.figures["validate"]["findings"]))
    estimate = estimate_managed(here, splits, listed)
    limits = limits_of(spec, estimate)
    return {
        "name": spec.name,
        "data": data_of(spec, found),
        "tokens": {"exact": estimate.exact, "how": estimate.how, **tokens_of(here, splits)},
        "model": {
            "name": spec.backend.model,
            "provider": spec.backend.provider,
            "here": False,
            "parameters": None,
            "trained": None,
            "method": spec.backend.objective,
        },
        "training": {"steps": None, "epochs": spec.provider.hyperparameters.epochs, "tokens": estimate.training_tokens},
        "machine": None,
        "stages": [
            {"name": name, "what": WHAT.get(name, what), "seconds": _seconds(found, name)}
            for name, what in STAGES.items()
            if _happens(name, spec, needs_approval=limits["needs_approval"])
        ],
        "seconds": None,
        "seconds_note": NOTE,
        "cost_usd": estimate.usd,
        "cost_reason": "estimated; nothing was sent",
        "estimate": estimate.model_dump(mode="json"),
        "limits": limits,
        "kept": told_kept(spec),
    }


def limits_of(spec: RunSpec, estimate: Estimate) -> dict[str, Any]:
    """Return the budget's limits, and what they mean for an estimate.

    What is spent of the month is in the store, which a plan does not look into.
    """
    budget = spec.budget
    return {
        "max_usd": budget.max_usd,
        "allowed": estimate.usd <= budget.max_usd,
        "beyond": beyond_limit(spec, estimate),
        "approve_above_usd": budget.approve_above_usd,
        "needs_approval": budget.approve_above_usd is not None and estimate.usd > budget.approve_above_usd,
        "approve_within_hours": budget.approve_within_hours,
        "monthly_usd": budget.monthly_usd,
        "project": budget.project,
    }


def tokens_of(spec: RunSpec, splits: Mapping[SplitName, Path]) -> dict[str, dict[str, int]]:
    """Return examples and tokens of each split, counted as one epoch over it would be billed."""
    from prooftune.models.resolve import resolve_tokenizer

    backend, named = spec.backend, spec.provider.tokenizer
    folder = None if named is None else resolve_tokenizer(named)
    counted: dict[str, dict[str, int]] = {}
    for name, path in splits.items():
        rows = tuple(read_lines(path, Example))
        billed = billable_tokens(backend.provider, backend.model, rows, spec.task.system, folder)
        counted[name] = {"examples": len(rows), "total": billed.tokens}
    return counted


def with_tokenizer_here(spec: RunSpec) -> RunSpec:
    """Return the spec without a tokenizer that is of no use, or that would have to be downloaded first."""
    named = spec.provider.tokenizer
    if named is None or (is_open(spec.backend.provider, spec.backend.model) and _is_here(named)):
        return spec
    return spec.model_copy(update={"provider": spec.provider.model_copy(update={"tokenizer": None})})


def _is_here(named: str) -> bool:
    if named == DEMO_MODEL or Path(named).expanduser().is_dir():
        return True
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(named, "tokenizer.json"), str)
    except HFValidationError:
        return False


def _happens(stage: str, spec: RunSpec, *, needs_approval: bool) -> bool:
    """Return whether a managed run of the spec has the stage."""
    wanted = {
        "model": any((spec.baseline.model, spec.baseline.larger_here, spec.baseline.embedding)),
        "approval": needs_approval,
        "forgetting": spec.general.measures,
        "judge": spec.judge.model is not None,
        "learn": False,
        "learning_curve": False,
    }
    return wanted.get(stage, True)


def _seconds(found: Rehearsal, stage: str) -> float | None:
    if stage in found.seconds:
        return round(found.seconds[stage], 1)
    return None if stage in ASKS else 0.5
