"""Whether a run is what it says it was made from: the manifest, the seal, the splits, the spec and the lineage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from prooftune.data.shapes import example_id
from prooftune.errors import IntegrityError
from prooftune.lineage import digest_of
from prooftune.storage.disk import sha256_of
from prooftune.storage.registry import read_registry
from prooftune.types import Example
from prooftune.verification.audit import NOTHING, Audit

MANIFEST = "manifest.json"


def check_manifest(audit: Audit) -> str:
    """Compare the manifest with the digest that the registry keeps of it, and return its digest."""
    run_id, facts = audit.manifest.run_id, audit.manifest.facts
    ref = audit.store.measure(f"runs/{run_id}/{MANIFEST}")
    try:
        history = read_registry(audit.store, str(facts["name"]))["history"] if "name" in facts else []
    except IntegrityError as error:
        audit.note(f"registry of {facts['name']}", "the document", str(error), "a registry")
        history = []
    for entry in history:
        if entry["run_id"] == run_id:
            audit.same("digests", MANIFEST, "SHA-256 in the registry", ref.sha256, entry["manifest"]["sha256"])
            audit.same("decisions", MANIFEST, "facts.decision, as registered", facts.get("decision"), entry["decision"])
    return ref.sha256


def check_data(audit: Audit) -> list[Example]:
    """Recompute the seal, the counts and the ids of the examples; return the held-out ones."""
    data = _json(audit, "data_manifest.json")
    path = audit.required("holdout.jsonl")
    if path is None or data is None:
        return []
    seal = sha256_of(path)
    audit.same("digests", "data_manifest.json", "seal", data.get("seal"), seal)
    for name, split in data.get("splits", {}).items():
        if (kept := audit.path(name)) is not None:
            audit.same("digests", "data_manifest.json", f"splits.{name}.sha256", split["sha256"], sha256_of(kept))
            audit.same("counts", "data_manifest.json", f"splits.{name}.examples", split["examples"], _lines(kept.read_bytes()))
        elif (made := audit.path(name.replace(".jsonl", ".openai.jsonl"))) is not None:
            audit.same("counts", "data_manifest.json", f"splits.{name}.examples", split["examples"], _lines(made.read_bytes()))
    examples = audit.rows("holdout.jsonl", Example) or []
    for example in examples:
        audit.same("examples", "holdout.jsonl", f"id of {example.source}", example.id, example_id(example.messages, example.rejected))
    if len({example.id for example in examples}) < len(examples):
        audit.note("holdout.jsonl", "the ids", "some stand twice", "each once")
    return examples


def check_lineage(audit: Audit) -> None:
    """Recompute the lineage's digests; a run from before there was one has none to check."""
    lineage = audit.manifest.facts.get("lineage")
    if not isinstance(lineage, Mapping):
        return
    audit.same("digests", MANIFEST, "facts.lineage.sha256", lineage.get("sha256"), digest_of(lineage))
    if (spec := audit.required("spec.yaml")) is not None:
        audit.same("digests", "spec.yaml", "SHA-256, by the lineage,", sha256_of(spec), lineage.get("spec_sha256"))
    if (data := _json(audit, "data_manifest.json")) is not None:
        audit.same("digests", "data_manifest.json", "seal", data.get("seal"), lineage.get("seal"))
        splits = lineage.get("data", {}).get("splits", NOTHING)
        audit.same("digests", "data_manifest.json", "splits", data.get("splits"), splits)


def _json(audit: Audit, name: str) -> Any:
    path = audit.required(name)
    if path is None:
        return None
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        audit.note(name, "the content", "no JSON", "JSON")
        return None


def _lines(content: bytes) -> int:
    return content.count(b"\n")
