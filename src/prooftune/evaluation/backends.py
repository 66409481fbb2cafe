"""The candidates of several backends on one sealed holdout, side by side: one paired table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from prooftune.data.lines import read_lines
from prooftune.errors import DataError
from prooftune.evaluation.gate.comparison import compare, pair_up
from prooftune.evaluation.statistics import holm
from prooftune.evidence import Costs
from prooftune.providers.collection import MANAGED, ManagedModel
from prooftune.spec import RunSpec, parse_spec
from prooftune.storage.manifest import Manifest, find_run
from prooftune.storage.objects import ObjectStore
from prooftune.types import Evaluation, Frozen, Prediction, Verdict

CANDIDATE = "candidate"


class Contender(Frozen):
    """One backend's candidate, or why it has none."""

    backend: str
    model: str
    """Base model."""
    run_id: str
    verdict: Verdict
    reason: str
    """The verdict's first reason."""
    value: float | None = None
    """Of the metric; None = nothing was trained."""
    ci_low: float | None = None
    ci_high: float | None = None
    n: int = 0
    baseline: str | None = None
    """The best rung of this backend's own base model."""
    baseline_value: float | None = None
    difference: float | None = None
    """To the reference, on the examples that both answered; None for the reference itself."""
    difference_low: float | None = None
    difference_high: float | None = None
    p_value: float | None = None
    """Holm-adjusted over all that are compared with the reference."""
    training_usd: float | None = None
    """None = nothing was trained, or nobody tells what it cost."""
    training_estimated: bool = False
    """Whether that is what the training was estimated to cost, since its provider does not say what it did."""
    usd_per_1000_requests: float | None = None
    """Of tokens alone; a deployment by the hour stands in ``hosting_usd_per_month``."""
    hosting_usd_per_month: float | None = None
    latency_p50_s: float | None = None
    latency_p95_s: float | None = None
    owns_weights: bool | None = None
    """Whether the tuned weights can be had; None = nothing was trained."""
    shutdown: str | None = None
    """Day until which the tuned model answers; None = no end is known."""


class BackendComparison(Frozen):
    """``comparison.json``: one row a backend, the reference first."""

    task: str
    metric: str
    alpha: float
    holdout_sha256: str
    reference: str
    """Backend that the others are compared with: the first one that trained a candidate."""
    contenders: tuple[Contender, ...]


def compare_backends(store: ObjectStore, runs: Mapping[str, str]) -> BackendComparison:
    """Compare the published runs of several backends; ``runs`` are run ids by backend, in the order of the table.

    Raises:
        NoSuchObject: a run is not published.
        DataError: the runs are not of one task, metric and holdout, or none of them trained anything.
    """
    manifests = {backend: find_run(store, run_id) for backend, run_id in runs.items()}
    specs = {backend: _spec(store, manifest) for backend, manifest in manifests.items()}
    first = next(iter(specs.values()))
    if len({(spec.name, spec.task.metric) for spec in specs.values()}) > 1:
        raise DataError("runs of different tasks or metrics cannot be compared; run one spec on every backend")
    answers = {backend: _answers(store, manifest) for backend, manifest in manifests.items()}
    seals = {seal for manifest in manifests.values() if (seal := _seal(manifest))}
    if len(seals) > 1:
        raise DataError(
            f"the runs were scored on {len(seals)} different holdouts; a paired comparison needs one: run one spec on each backend"
        )
    trained = [backend for backend, rows in answers.items() if rows]
    if not trained:
        raise DataError("none of the runs trained a candidate, so there is nothing to compare: see each run's reasons")
    reference = trained[0]
    alpha, seed, metric = first.gate.alpha, first.data.split.seed, first.task.metric
    compared = {
        backend: compare(metric, pair_up(backend, answers[reference], answers[backend]), first.task, alpha=alpha, seed=seed)
        for backend in trained[1:]
    }
    adjusted = dict(zip(compared, holm([one.p_value for one in compared.values()]), strict=True)) if compared else {}
    rows = []
    for backend, manifest in manifests.items():
        row = _contender(store, backend, specs[backend], manifest)
        if backend in compared:
            found = compared[backend]
            row = row.model_copy(
                update={
                    "difference": found.difference,
                    "difference_low": found.ci_low,
                    "difference_high": found.ci_high,
                    "p_value": adjusted[backend],
                }
            )
        rows.append(row)
    return BackendComparison(
        task=first.name, metric=metric, alpha=alpha, holdout_sha256=next(iter(seals), ""), reference=reference, contenders=tuple(rows)
    )


def _contender(store: ObjectStore, backend: str, spec: RunSpec, manifest: Manifest) -> Contender:
    decision: Any = manifest.facts["decision"]
    common: dict[str, Any] = {
        "backend": backend,
        "model": spec.backend.model,
        "run_id": manifest.run_id,
        "verdict": decision["verdict"],
        "reason": next(iter(decision["reasons"]), ""),
        "baseline": decision["baseline"],
        "baseline_value": decision["baseline_value"],
    }
    evaluations = {name: Evaluation.model_validate(found) for found in _evaluations(manifest) for name in [found["name"]]}
    if CANDIDATE not in evaluations:
        return Contender(**common)
    found = evaluations[CANDIDATE]
    metric = found.metrics[spec.task.metric]
    managed = _managed(store, manifest)
    return Contender(
        **common,
        value=metric.value,
        ci_low=metric.ci_low,
        ci_high=metric.ci_high,
        n=metric.n,
        latency_p50_s=found.latency_p50_s,
        latency_p95_s=found.latency_p95_s,
        owns_weights=managed.owns_weights if managed else True,
        shutdown=managed.shutdown if managed else None,
        **_money(store, manifest),
    )


def _money(store: ObjectStore, manifest: Manifest) -> dict[str, Any]:
    if "costs.json" not in manifest.files:
        return {}
    costs = Costs.model_validate_json(store.fetch(manifest.files["costs.json"]).read_bytes())
    tuned = next((option for option in costs.options if option.tuned and option.measured), None)
    if tuned is None:
        return {}
    return {
        "training_usd": tuned.tuning_usd,
        "training_estimated": tuned.tuning_estimated,
        "usd_per_1000_requests": tuned.usd_per_1000_requests,
        "hosting_usd_per_month": tuned.hosting_usd_per_month,
    }


def _managed(store: ObjectStore, manifest: Manifest) -> ManagedModel | None:
    name = f"model/{MANAGED}"
    return ManagedModel.model_validate_json(store.fetch(manifest.files[name]).read_bytes()) if name in manifest.files else None


def _answers(store: ObjectStore, manifest: Manifest) -> list[Prediction]:
    name = f"{CANDIDATE}.predictions.jsonl"
    return list(read_lines(store.fetch(manifest.files[name]), Prediction)) if name in manifest.files else []


def _evaluations(manifest: Manifest) -> list[dict[str, Any]]:
    found: Any = manifest.facts["evaluations"]
    return list(found)


def _seal(manifest: Manifest) -> str:
    return next((str(one["holdout_sha256"]) for one in _evaluations(manifest)), "")


def _spec(store: ObjectStore, manifest: Manifest) -> RunSpec:
    return parse_spec(yaml.safe_load(store.fetch(manifest.files["spec.yaml"]).read_text(encoding="utf-8")))
