"""Published runs in a registry, with weights that are their names."""

from __future__ import annotations

import json
from typing import Any

from prooftune.storage.local import LocalStore
from prooftune.storage.manifest import publish, read_manifest
from prooftune.storage.registry import (
    read_registry,
    register,
)
from prooftune.types import ArtifactRef, Decision, Verdict

PROMOTE = Decision(verdict="promote", reasons=("Because of this.",))
WHY = {"reason": "a check", "by": "ann"}


def enter(
    store: LocalStore,
    run_id: str,
    verdict: Verdict = "promote",
    *,
    task: str = "triage",
    registered: bool = True,
    weights: str | None = None,
    met: str | None = "the one in use",
) -> dict[str, Any]:
    """Publish a run, with its id as weights unless they are given, and register it; the answer is that of the registry."""
    folder = store.root.parent / "files" / run_id
    folder.mkdir(parents=True)
    (folder / "weights").write_text(weights or run_id)
    decision = Decision(verdict=verdict, reasons=("Because of this.",))
    files = {"report.html": folder / "weights"}
    if verdict != "do_not_fine_tune":
        files["adapter/adapter_model.safetensors"] = folder / "weights"
        met = read_registry(store, task)["champion"] if met == "the one in use" else met
        (folder / "champion.json").write_text(json.dumps({"run_id": met, "rivals": []}))
        files["champion.json"] = folder / "champion.json"
    manifest = publish(store, run_id, files, {"name": task, "decision": decision.model_dump(mode="json")})
    return register(store, task, run_id, manifest, decision) if registered else {}


def handed_on(store: LocalStore, run_id: str) -> dict[str, ArtifactRef]:
    """What the stages before the contest had handed to a published run."""
    files = read_manifest(store, run_id).files
    return {name: ref for name, ref in files.items() if name != "champion.json"}
