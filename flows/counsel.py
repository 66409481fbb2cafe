"""What ``advise`` and ``break-even`` answer, as JSON. None of it imports torch or prefect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def advise_on(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Say what to do about a task before any model has run: from data, use, prices and the power of the holdout.

    Raises:
        SpecError, DataError: a run would not get as far as advice.
        StoreUnavailable, TransientError: the source is in a bucket or hub that refuses or cannot be reached.
    """
    from flows.commands import rehearsed
    from flows.planning import local_folder
    from flows.planning_managed import tokens_of, with_tokenizer_here
    from prooftune.economics import lengths
    from prooftune.evaluation.advice import advise

    with rehearsed(path, overrides) as (spec, found, splits):
        tokens: dict[str, Any]
        if spec.backend.managed:
            tokens = tokens_of(with_tokenizer_here(spec), splits)
        else:
            folder = local_folder(spec.backend)
            encode = (lengths.exact_encoder(folder) if folder else None) or lengths.guess
            counted = lengths.count_lengths(splits, spec.task, spec.backend.method.max_length, encode)
            tokens = {name: {"examples": split.examples, "total": split.total} for name, split in counted.items()}
        advice, decision = advise(spec, splits["train"], found.figures["split"]["counts"], found.figures["validate"], tokens)
    return {
        "spec": str(path),
        "overrides": list(overrides),
        "name": spec.name,
        **advice.model_dump(mode="json"),
        "stops": list(decision.reasons) if decision else [],
    }


def break_even(
    requests_per_month: int | None, tuning: float, before: float, after: float, hosting: float, work_saved: float
) -> dict[str, Any]:
    """Say when tuning is paid back; everything in USD, ``before`` and ``after`` a request, ``hosting`` and ``work_saved`` a month."""
    from prooftune.economics import break_even as money

    saving, monthly_cost = before - after, hosting - work_saved
    return {
        "requests_per_month": requests_per_month,
        "tuning_usd": tuning,
        "saving_usd_per_request": saving,
        "saving_usd_per_month": money.saving_per_month(saving, monthly_cost, requests_per_month),
        "requests": money.requests_until_paid(tuning, saving, monthly_cost, requests_per_month),
        "months": money.months_until_paid(tuning, saving, monthly_cost, requests_per_month),
    }
