"""Proves a published run again: every digest and every figure that can be computed from its artifacts, and what does not match.

Digests show that nothing was changed since it was published. Computing the figures again shows that they follow from the answers, whoever
wrote the digests: scores from answers and targets, metrics and intervals from scores, the verdict from both sides' answers and the spec.
What would take a model (the answers themselves, timings, the judge's opinions) is taken as published, and the answer says what that is.
"""

from __future__ import annotations

import yaml

from prooftune.errors import SpecError
from prooftune.spec import RunSpec, parse_spec
from prooftune.storage.manifest import find_run
from prooftune.storage.objects import ObjectStore
from prooftune.types import Frozen
from prooftune.verification.audit import Audit, Mismatch
from prooftune.verification.evidence import check_champion, check_decision, check_evaluations
from prooftune.verification.opinions import check_forgetting, check_judge
from prooftune.verification.origins import check_data, check_lineage, check_manifest

__all__ = ["Mismatch", "Verification", "verify_run"]


class Verification(Frozen):
    """What was computed again of a run, and what differs."""

    run_id: str
    manifest_sha256: str
    matches: bool
    checked: dict[str, int]
    """How many of each kind were compared: files, digests, examples, answers, scores, metrics, comparisons, decisions …"""
    mismatches: tuple[Mismatch, ...]
    not_recomputed: tuple[str, ...] = ()
    """What was taken as published, because it does not follow from what is: only its digest was checked."""


_TAKEN_AS_PUBLISHED = {
    ".predictions.jsonl": "the answers, their tokens and seconds: it would take the models",
    "looks.json": "the looks that were not taken: their answers are not published",
    "forgetting.json": "which items of the general suite were answered rightly, and lm-eval's parts: it would take the models",
    "judge.json": "what the judge said, and what it cost: it would take the judge and the price list",
    "costs.json": "costs and break-even: the price list is not published",
    "estimate.json": "what a managed run was estimated to cost: the training examples and the price list are not published",
    "bill.json": "what a managed run was billed: the provider's word, and the price list is not published",
    "job.json": "what the provider reported of its job",
    "advice.json": "the advice: the training examples are not published as they were read",
    "learning_curve.json": "the learning curve: it would take its trainings",
    "failures.json": "the clusters of failures, which count for no verdict",
}
"""By the end of the file's name."""


def verify_run(store: ObjectStore, run_id: str) -> Verification:
    """Recompute every digest, score, metric, interval, comparison and the decision of a published run from its artifacts.

    Raises:
        NoSuchObject: there is no such run; the message names those with a similar id.
        IntegrityError: the manifest cannot be read.
        EnvironmentLacks: a custom metric of the run is not installed.
    """
    audit = Audit(store, find_run(store, run_id))
    audit.check_bytes()
    sha256 = check_manifest(audit)
    holdout = check_data(audit)
    check_lineage(audit)
    if (spec := _spec(audit)) is not None and holdout:
        answered = check_evaluations(audit, spec, holdout)
    if spec is not None and holdout and audit.evidence_is_whole:
        check_champion(audit, spec, answered, holdout)
        check_forgetting(audit)
        check_judge(audit, spec, answered)
        check_decision(audit, spec, answered)
    found = tuple(dict.fromkeys(audit.mismatches))
    taken = [f"{end}: {why}" for end, why in _TAKEN_AS_PUBLISHED.items() if any(name.endswith(end) for name in audit.manifest.files)]
    return Verification(
        run_id=run_id,
        manifest_sha256=sha256,
        matches=not found,
        checked=dict(audit.checked),
        mismatches=found,
        not_recomputed=(*taken, *audit.not_recomputed),
    )


def _spec(audit: Audit) -> RunSpec | None:
    path = audit.required("spec.yaml")
    if path is None:
        return None
    try:
        return parse_spec(yaml.safe_load(path.read_bytes()))
    except (SpecError, yaml.YAMLError) as error:
        audit.note("spec.yaml", "the spec", " ".join(str(error).split()), "a spec that this version reads")
        return None
