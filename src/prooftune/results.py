"""How a run ended, as its published manifest tells it, and what a person said of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prooftune.storage.manifest import find_run
from prooftune.storage.objects import ObjectStore
from prooftune.types import Decision, Evaluation, Frozen, RunResult, RunWaiting, StageTime


class Promotion(Frozen):
    """What came of asking a person whether a run is to be put in use."""

    run_id: str
    asked: bool
    """False: the run was not held back for approval."""
    in_use: bool = False
    by: str = ""
    """Who answered."""
    reason: str = ""
    note: str = ""
    """Why the run is not in use."""


def read_result(store: ObjectStore, run_id: str) -> RunResult:
    """Return the result of a published run; each of its stages counts as found done.

    Raises:
        NoSuchObject: there is no such run; the message names those with a similar id.
        InvalidKey: the id is not fit to be one.
        IntegrityError: the manifest is damaged.
    """
    manifest = find_run(store, run_id)
    facts: Mapping[str, Any] = manifest.facts
    decision = Decision.model_validate(facts["decision"])
    return RunResult(
        run_id=facts["run_id"],
        verdict=decision.verdict,
        reasons=decision.reasons,
        decision=decision,
        evaluations=tuple(Evaluation.model_validate(item) for item in facts["evaluations"]),
        report=address_of(store.uri, manifest.files["report.html"].key),
        manifest=address_of(store.uri, f"runs/{run_id}/manifest.json"),
        stages=tuple(StageTime(**stage, cached=True) for stage in facts["stages"]),
    )


def result_json(result: RunResult | RunWaiting) -> dict[str, Any]:
    """Return the result in the form that ``run --json`` promises; of a run that waits, what it waits for."""
    if isinstance(result, RunWaiting):
        return {"run_id": None, "verdict": None, "waiting": result.model_dump(mode="json")}
    decision = result.decision
    metrics: dict[str, Any] = {
        "baseline": _metrics_of(result, decision.baseline),
        "candidate": _metrics_of(result, "candidate"),
    }
    metrics |= {name: getattr(decision, name) for name in ("difference", "ci_low", "ci_high", "p_value", "n")}
    return result.model_dump(mode="json") | {"metrics": metrics}


def _metrics_of(result: RunResult, name: str | None) -> dict[str, float] | None:
    found = [evaluation for evaluation in result.evaluations if evaluation.name == name]
    return {metric.name: metric.value for metric in found[0].metrics.values()} if found else None


def address_of(store_uri: str, key: str) -> str:
    """Return where an object of a store is, for people: a path, or a URI."""
    return f"{store_uri}/{key}" if "://" in store_uri else str(Path(store_uri).resolve() / key)
