"""Whether the evidence follows from the answers: scores, metrics, comparisons and the decision, computed again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prooftune.errors import ProoftuneError
from prooftune.evaluation.champion import compared
from prooftune.evaluation.gate import decide_and_write, worth_training
from prooftune.evaluation.metrics import score
from prooftune.evaluation.scoring import Contest, summarise
from prooftune.evidence import Champion, Costs, Forgetting, JudgeReport
from prooftune.spec import RunSpec
from prooftune.storage.manifest import read_manifest
from prooftune.storage.objects import NoSuchObject
from prooftune.storage.registry import champion_met
from prooftune.types import Decision, Evaluation, Example, Frozen, Prediction
from prooftune.verification.audit import NOTHING, Audit
from prooftune.verification.looks import check_looks

EVALUATION, PREDICTIONS, DECISION, CANDIDATE = ".evaluation.json", ".predictions.jsonl", "decision.json", "candidate"
SHOWN = 3
"""Example ids that a mismatch names."""
WEIGHED: Mapping[str, type[Frozen]] = {"forgetting": Forgetting, "judge": JudgeReport, "champion": Champion, "costs": Costs}
"""Files of evidence that the gate reads, where a stage wrote them."""


def check_evaluations(audit: Audit, spec: RunSpec, holdout: Sequence[Example]) -> dict[str, list[Prediction]]:
    """Compute every contestant's scores, metrics and intervals from its answers; return the answers to the whole holdout by contestant.

    The answers come back without their scores, so that whoever compares them has to score them anew.
    """
    answered: dict[str, list[Prediction]] = {}
    written: dict[str, Any] = {}
    names = [name.removesuffix(EVALUATION) for name in audit.manifest.files if name.endswith(EVALUATION)]
    for name in names:
        evaluation = audit.document(f"{name}{EVALUATION}", Evaluation)
        predictions = audit.rows(f"{name}{PREDICTIONS}", Prediction)
        if evaluation is None or predictions is None:
            continue
        _check_scores(audit, f"{name}{PREDICTIONS}", predictions, spec)
        _check_metrics(audit, f"{name}{EVALUATION}", evaluation, predictions, spec)
        if "/" not in name:
            _check_coverage(audit, name, predictions, holdout)
            answered[name] = [prediction.model_copy(update={"scores": {}}) for prediction in predictions]
            written[name] = evaluation.model_dump(mode="json")
    if not audit.evidence_is_whole:
        return answered
    told = {one["name"]: one for one in audit.manifest.facts.get("evaluations", [])}  # type: ignore[attr-defined]
    audit.same("metrics", "manifest.json", "facts.evaluations", told, written)
    return answered


def check_decision(audit: Audit, spec: RunSpec, answered: Mapping[str, list[Prediction]]) -> None:
    """Let the gate decide again on what is published and compare its decision with ``decision.json``."""
    written = audit.document(DECISION, Decision)
    if written is None:
        audit.required(DECISION)
        return
    found = written.model_dump(mode="json")
    audit.same("decisions", "manifest.json", "facts.decision", audit.manifest.facts.get("decision"), found)
    try:
        expected = _decide(audit, spec, answered, written)
    except ProoftuneError as error:
        audit.note(DECISION, "the decision", written.verdict, f"no decision: {error}")
        return
    audit.same("decisions", DECISION, "", found, expected)


def check_champion(audit: Audit, spec: RunSpec, answered: Mapping[str, list[Prediction]], holdout: Sequence[Example]) -> None:
    """Compare the candidate with the champion again, from the answers of both."""
    champion = audit.document("champion.json", Champion)
    if champion is None:
        return
    met = champion_met(audit.store, spec.name, audit.manifest.run_id)
    if met is not None:
        audit.same("comparisons", "champion.json", "run_id", champion.run_id, met[0])
    if champion.run_id is None or champion.reason:
        return
    try:
        former = Audit(audit.store, read_manifest(audit.store, champion.run_id))
    except NoSuchObject:
        audit.note("champion.json", "run_id", f"{champion.run_id}, which is published no more", "a published run")
        return
    published = former.rows(f"{CANDIDATE}{PREDICTIONS}", Prediction) or []
    asked = former.rows("holdout.jsonl", Example) or []
    for one in former.mismatches:
        audit.note(f"{champion.run_id}/{one.file}", one.what, one.found, one.expected)
    if former.mismatches:
        return
    theirs = [prediction.model_copy(update={"scores": {}}) for prediction in published]
    old = former.manifest.files["holdout.jsonl"].sha256
    new = audit.manifest.files["holdout.jsonl"].sha256
    ours = answered.get(CANDIDATE, [])
    audit.same("comparisons", "champion.json", "same_holdout", champion.same_holdout, old == new)
    if old == new:
        expected = compared("new", new, theirs, ours, spec, seen=0)
    else:
        candidates = audit.rows(f"champion/candidate_old{PREDICTIONS}", Prediction) or []
        champions = audit.rows(f"champion/champion_new{PREDICTIONS}", Prediction) or []
        expected = [
            *compared("old", old, theirs, candidates, spec, len(asked) - len(candidates)),
            *compared("new", new, champions, ours, spec, len(holdout) - len(champions)),
        ]
    rivals = [rival.model_dump(mode="json") for rival in expected]
    audit.same("comparisons", "champion.json", "rivals", champion.model_dump(mode="json")["rivals"], rivals)


def _check_scores(audit: Audit, file: str, predictions: Sequence[Prediction], spec: RunSpec) -> None:
    """Score every answer again; a metric's mismatches are told together."""
    wrong: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        for metric, value in prediction.scores.items():
            audit.checked["scores"] += 1
            if value != score(metric, prediction.answer, prediction.target, spec.task):
                wrong.setdefault(metric, []).append(prediction)
    for metric, rows in wrong.items():
        named = ", ".join(f"{row.example_id}: {row.scores[metric]}" for row in rows[:SHOWN])
        first = ", ".join(f"{row.example_id}: {score(metric, row.answer, row.target, spec.task)}" for row in rows[:SHOWN])
        audit.note(file, f"score {metric} of {len(rows)} answers", named, first)


def _check_metrics(audit: Audit, file: str, evaluation: Evaluation, predictions: Sequence[Prediction], spec: RunSpec) -> None:
    contest = Contest((), evaluation.holdout_sha256, tuple(evaluation.metrics), 0, spec.task)
    try:
        again = summarise(
            evaluation.name, evaluation.description, predictions, contest, evaluation.seconds, evaluation.batch_size, evaluation.model
        )
    except ProoftuneError as error:
        audit.note(file, "the metrics", "there", f"none: {error}")
        return
    audit.same("metrics", file, "", evaluation.model_dump(mode="json"), again.model_dump(mode="json"))
    if spec.task.metric not in evaluation.metrics:
        audit.note(file, f"metrics.{spec.task.metric}", NOTHING, "the metric that the gate decides on")
    if "/" not in file:
        audit.same("digests", file, "holdout_sha256", evaluation.holdout_sha256, audit.manifest.files["holdout.jsonl"].sha256)


def _check_coverage(audit: Audit, name: str, predictions: Sequence[Prediction], holdout: Sequence[Example]) -> None:
    """Every held-out example is answered once, under its own question and target."""
    file, known = f"{name}{PREDICTIONS}", {example.id: example for example in holdout}
    counts = Counter(prediction.example_id for prediction in predictions)
    if lost := [key for key in known if key not in counts]:
        audit.note(file, "answers to held-out examples", f"none to {', '.join(lost[:SHOWN])}", f"one to each of {len(known)}")
    if odd := [key for key, count in counts.items() if count > 1 or key not in known]:
        audit.note(file, "answers", f"more than one, or to no held-out example: {', '.join(odd[:SHOWN])}", "one to each held-out example")
    for prediction in predictions:
        if (example := known.get(prediction.example_id)) is not None:
            questions = [message.content for message in example.prompt if message.role == "user"]
            audit.same("answers", file, f"target of {example.id}", prediction.target, example.target)
            audit.same("answers", file, f"prompt of {example.id}", prediction.prompt, questions[-1] if questions else "")


def _decide(audit: Audit, spec: RunSpec, answered: Mapping[str, list[Prediction]], written: Decision) -> dict[str, Any]:
    rungs = {name: answered[name] for name in by_rung(answered, spec.baseline.ladder) if name != CANDIDATE}
    if CANDIDATE not in answered:
        return _decide_before_training(audit, spec, list(rungs))
    weighed: dict[str, Any] = {name: audit.document(f"{name}.json", kind) for name, kind in WEIGHED.items()}
    weighed = {name: found for name, found in weighed.items() if found is not None} | check_looks(audit, spec.gate, written)
    with TemporaryDirectory() as folder:
        out = Path(folder)
        decide_and_write(rungs, answered[CANDIDATE], audit.path("holdout.jsonl") or out, spec, weighed, out)
        if (slices := audit.path("slices.json")) is not None:
            audit.same("comparisons", "slices.json", "", json.loads(slices.read_bytes()), json.loads((out / "slices.json").read_bytes()))
        decision: dict[str, Any] = json.loads((out / DECISION).read_bytes())
    return decision


def by_rung(names: Iterable[str], ladder: Sequence[str]) -> list[str]:
    """Return contestants in the order of the ladder, others after them: of two rungs that are equally good the earlier one counts."""
    place = {rung: number for number, rung in enumerate(ladder)}
    return sorted(names, key=lambda name: (place.get(name, len(place)), name))


def _decide_before_training(audit: Audit, spec: RunSpec, rungs: Sequence[str]) -> dict[str, Any]:
    counts = json.loads(_read(audit, "data_manifest.json"))["splits"]
    baselines = [Evaluation.model_validate_json(_read(audit, f"{name}{EVALUATION}")) for name in rungs]
    found = worth_training(counts["train.jsonl"]["examples"], counts["holdout.jsonl"]["examples"], baselines, spec)
    return {"verdict": "none: nothing speaks against training"} if found is None else found.model_dump(mode="json")


def _read(audit: Audit, name: str) -> bytes:
    path = audit.required(name)
    return path.read_bytes() if path else b"{}"
