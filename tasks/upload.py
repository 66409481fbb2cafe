"""Publish the run: every file, then the manifest that makes it visible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import task
from prefect.logging import get_run_logger

from prooftune.errors import ProoftuneError
from prooftune.report.wording import with_flags
from prooftune.spec import RunSpec
from prooftune.storage.manifest import read_manifest
from prooftune.storage.objects import ObjectStore
from prooftune.types import ArtifactRef, Decision, StageOutput
from tasks.artifacts import show_figures, show_link
from tasks.policies import policy
from tasks.stage import Stage

PUBLISHED = {
    "ingest": ("problems.jsonl",),
    "validate": ("findings.jsonl", "profile.csv", "data_docs/"),
    "split": ("",),
    "format": ("",),
    "tokens": ("tokens.csv",),
    "preflight": ("preflight.json", "sample.txt"),
    "estimate": ("estimate.json",),
    "approval": ("",),
    "baselines": ("",),
    "advise": ("",),
    "train": ("adapter/", "model/", "log.jsonl", "job.json", "result/"),
    "evaluate": ("",),
    "champion": ("",),
    "costs": ("",),
    "forgetting": ("",),
    "judge": ("",),
    "failures": ("",),
    "learning_curve": ("",),
    "gate": ("",),
    "settle": ("",),
    "report": ("",),
}
"""Which artifacts of each stage belong to the published run, by prefix."""


def published(outputs: tuple[StageOutput, ...]) -> dict[str, ArtifactRef]:
    """Return the artifacts that belong to the published run, by name; the weights are those of the checkpoint that was taken."""
    found = {
        name: ref
        for output in outputs
        for name, ref in output.artifacts.items()
        if any(name.startswith(prefix) for prefix in PUBLISHED[output.stage])
    }
    taken = {output.stage: output for output in outputs if output.stage in ("train", "evaluate")}
    if "evaluate" not in taken or not (folder := str(taken["evaluate"].figures["weights"])).startswith("further/"):
        return found
    own = "adapter" if any(name.startswith("adapter/") for name in found) else "model"
    further = {name: ref for name, ref in taken["train"].artifacts.items() if name.startswith(f"{folder}/")}
    return found | {f"{own}/{name.removeprefix(f'{folder}/')}": ref for name, ref in further.items()}


def data_manifest(outputs: tuple[StageOutput, ...]) -> dict[str, Any]:
    """Return where the data came from, what became of it, and the digests that prove it."""
    figures = {output.stage: output.figures for output in outputs}
    splits = next(output for output in outputs if output.stage == "split")
    return {
        "source": {name: figures["ingest"][name] for name in ("files", "source_sha256", "rows", "rejected")},
        "examples": {name: figures["validate"][name] for name in ("shape", "kept", "findings")},
        "splits": {
            name: {"sha256": ref.sha256, "examples": figures["split"]["counts"][name.removesuffix(".jsonl")]}
            for name, ref in splits.artifacts.items()
        },
        "seal": figures["split"]["holdout_sha256"],
    }


@task(**policy("upload", version=3, timeout_minutes=120))
def upload(spec: RunSpec, run_id: str, facts: dict[str, Any], outputs: tuple[StageOutput, ...]) -> StageOutput:
    """Upload everything that one needs to use, check and repeat the run; hands on the manifest."""
    from prooftune.storage.manifest import publish

    stage = Stage(spec.store)
    files = {name: stage.objects.fetch(ref) for name, ref in published(outputs).items()}

    def work(out: Path) -> dict[str, Any]:
        (out / "spec.yaml").write_text(spec.resolved_yaml(), encoding="utf-8")
        (out / "data_manifest.json").write_text(json.dumps(data_manifest(outputs), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        own = {path.name: path for path in out.iterdir()}
        manifest = publish(stage.objects, run_id, files | own, facts)
        return {"manifest": manifest.model_dump(mode="json"), "files": len(files) + len(own)}

    output = stage.perform(work)
    link = f"{stage.objects.uri}/{output.figures['manifest']['key']}"
    show_link(link, key="manifest", description="The run is published; its manifest lists every file with its digest.")
    return output


@task(**policy("register", version=3, timeout_minutes=10))
def register(spec: RunSpec, run_id: str, uploaded: StageOutput) -> StageOutput:
    """Enter the run in the registry, and in MLflow's where the spec names one; a promoted candidate becomes the task's champion.

    The verdict is the published one: of two hosts that did the same run at once, and got other answers, the first to publish counts.
    A ``note`` in the figures says why it did not. A mirror that fails is told, and the next run or change of the champion heals it.
    """
    from prooftune.storage.registry import register as enter

    stage = Stage(spec.store)
    manifest = ArtifactRef.model_validate(uploaded.figures["manifest"])
    decision = Decision.model_validate(read_manifest(stage.objects, run_id).facts["decision"])

    def work(out: Path) -> dict[str, Any]:
        registry = enter(stage.objects, spec.name, run_id, manifest, decision, ask=spec.gate.approve_promotion)
        if note := registry.pop("note"):
            get_run_logger().warning("%s is not in use: %s", run_id, with_flags(note, spec.store.flags))
        told = {"registry": registry, "note": note}
        return told if spec.tracking.mlflow is None else told | {"mlflow": mirrored(spec.tracking.mlflow, stage.objects, spec.name)}

    output = stage.perform(work)
    registry, note = output.figures["registry"], with_flags(output.figures["note"], spec.store.flags)
    standing = {name: registry[name] for name in ("champion", "challenger")} | {"this run": run_id, "verdict": decision.verdict}
    said = f"Entered, and not in use: {note}. The artifact `verdict` says what came of it." if note else ""
    show_figures(standing, key="registry", description=said or f"The champion of {spec.name} is {registry['champion'] or 'none'}.")
    return output


def mirrored(tracking_uri: str, objects: ObjectStore, name: str) -> dict[str, Any]:
    """Bring MLflow's registry up to date; ``failed`` says why it is not, else None."""
    from prooftune.tracking.mlflow_registry import mirror

    try:
        return {"failed": None, **mirror(tracking_uri, objects, name)}
    except ProoftuneError as error:
        get_run_logger().warning("MLflow's registry was not brought up to date: %s", error)
        return {"failed": str(error)}
