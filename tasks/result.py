"""What a run is called, and what it says at its end."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from prefect.runtime import flow_run

from prooftune import __version__
from prooftune.lineage import lineage
from prooftune.providers.tuning import Capability
from prooftune.report.wording import with_flags
from prooftune.results import read_result
from prooftune.spec import RunSpec, digest
from prooftune.storage.manifest import read_manifest
from prooftune.storage.objects import NoSuchObject, open_store
from prooftune.storage.registry import why_not_in_use
from prooftune.types import Decision, Evaluation, FileRef, ModelRef, RunResult, StageOutput, StageTime
from tasks.policies import PLACES, VERSIONS
from tasks.progress import finished_stages
from tasks.upload import data_manifest


def run_key_of(spec: RunSpec, source_fingerprint: str, files: dict[str, FileRef], models: tuple[ModelRef, ...]) -> str:
    """Return the run's name and a digest of all that its result depends on. The same inputs are the same run."""
    contents = {name: file.sha256 for name, file in files.items()}
    content = spec.model_dump(mode="json", exclude=PLACES)
    known = [__version__, VERSIONS, content, source_fingerprint, contents, [model.model_dump() for model in models]]
    return f"{spec.name}-{digest(known)[:12]}"


def run_id_of(spec: RunSpec, run_key: str, outputs: tuple[StageOutput, ...]) -> str:
    """Return the run's id: its key, and, where the run is published already with other results, a digest of these results too.

    A run with ``--fresh`` measures anew. A published run is never replaced, and the result shown is always the one that was just reached.
    """
    results = results_digest(outputs)
    try:
        published = read_manifest(open_store(spec.store), run_key).facts["results"]
    except NoSuchObject:
        return run_key
    return run_key if published == results else f"{run_key}-{results[:6]}"


def results_digest(outputs: tuple[StageOutput, ...]) -> str:
    """Return the digest of everything that the stages before the report handed on."""
    return digest([{name: ref.sha256 for name, ref in output.artifacts.items()} for output in outputs if output.stage != "report"])


def lineage_of(
    spec: RunSpec,
    source_fingerprint: str,
    files: dict[str, FileRef],
    model: ModelRef,
    outputs: tuple[StageOutput, ...],
    capability: Capability | None,
) -> dict[str, Any]:
    """Return what the result is made from, as digests; ``capability`` is what a managed provider said of the base model."""
    contents = {name: file.sha256 for name, file in files.items()}
    provider = None if capability is None else capability.model_dump(mode="json")
    said = next((output.figures for output in outputs if output.stage == "approval"), None)
    approval = None if said is None else {name: said[name] for name in ("approved", "usd", "by", "at", "reason")}
    return lineage(spec, source_fingerprint, data_manifest(outputs), model, contents, VERSIONS, provider, approval)


def run_facts(
    spec: RunSpec, run_id: str, made_from: dict[str, Any], decision: Decision, outputs: tuple[StageOutput, ...]
) -> dict[str, Any]:
    """Return what the manifest says of the run, as JSON: verdict, evidence, lineage and seconds of each stage."""
    objects = open_store(spec.store)
    evaluations = [
        Evaluation.model_validate_json(objects.fetch(ref).read_bytes())
        for output in outputs
        if output.stage in ("baselines", "evaluate")
        for name, ref in output.artifacts.items()
        if name.endswith(".evaluation.json")
    ]
    return {
        "run_id": run_id,
        "name": spec.name,
        "decision": decision.model_dump(mode="json"),
        "evaluations": [evaluation.model_dump(mode="json") for evaluation in evaluations],
        "stages": [{"name": output.stage, "seconds": round(output.seconds, 3)} for output in outputs],
        "prooftune": __version__,
        "results": results_digest(outputs),
        "lineage": made_from,
    }


def run_result(spec: RunSpec, run_id: str) -> RunResult:
    """Return the published result, with what the current flow run did itself and what it found done."""
    objects = open_store(spec.store)
    result = read_result(objects, run_id)
    stages = tuple(StageTime(name=done.stage, seconds=done.seconds, cached=done.cached) for done in finished_stages(UUID(flow_run.id)))
    note = with_flags(why_not_in_use(objects, spec.name, run_id), spec.store.flags)
    return result.model_copy(update={"stages": stages, "ui_url": flow_run.ui_url, "note": note})
