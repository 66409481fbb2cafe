"""What a warm start goes on from: the weights of a published run, or its tuned model at the same provider."""

from __future__ import annotations

from pathlib import Path

import yaml

from prooftune.errors import IntegrityError, Problem, SpecError
from prooftune.providers.collection import MANAGED, ManagedModel
from prooftune.spec import Backend, digest
from prooftune.storage.manifest import Manifest, find_run
from prooftune.storage.objects import ObjectStore
from prooftune.storage.registry_contest import WEIGHTS
from prooftune.types import ArtifactRef, FileRef, ModelRef

FIELD = "backend.start_from"
AT_PROVIDER = f"model/{MANAGED}"
LOADED = (".safetensors", ".safetensors.index.json", "/adapter_config.json", "/config.json")
SAME = ("kind", "r", "alpha", "layers")
"""Fields of ``backend.method`` that make the shape of what was trained."""


def start_ref(store: ObjectStore, run_id: str, backend: Backend) -> FileRef:
    """Return which weights a training goes on from, by content.

    Raises:
        NoSuchObject: there is no such run; the message names those with a similar id.
        SpecError: it trained nothing, or something that the backend cannot go on from.
    """
    manifest = find_run(store, run_id)
    _require_same(store, manifest, backend)
    return FileRef(path=run_id, sha256=digest({name: ref.sha256 for name, ref in _weights(manifest).items()}))


def start_folder(store: ObjectStore, run_id: str, backend: Backend, model: ModelRef) -> Path:
    """Return a local folder with the weights to go on from: an adapter, or a whole model of a ``full`` training.

    Raises:
        NoSuchObject, SpecError: as ``start_ref``.
        IntegrityError: the weights were changed, or were tuned from another base model than ``model``.
    """
    manifest = find_run(store, run_id)
    _require_same(store, manifest, backend)
    lineage = manifest.facts.get("lineage")
    known = lineage["model"]["sha256"] if isinstance(lineage, dict) else model.sha256
    if known != model.sha256:
        raise IntegrityError(
            f"{FIELD}: {run_id} was tuned from {backend.model} with SHA-256 {known[:16]}…, which now has {model.sha256[:16]}…. Bring that "
            "model back, or set the field to null to start from the new one"
        )
    paths = [store.fetch(ref) for ref in _weights(manifest).values()]
    return paths[0].parent


def start_model(store: ObjectStore, run_id: str, backend: Backend, address: str) -> str:
    """Return the tuned model to go on from, as its provider calls it.

    Raises:
        NoSuchObject, SpecError: as ``start_ref``, or it lives in another account or region than ``address``.
    """
    manifest = find_run(store, run_id)
    _require_same(store, manifest, backend)
    tuned = ManagedModel.model_validate_json(store.fetch(manifest.files[AT_PROVIDER]).read_bytes())
    if tuned.address != address:
        raise _unfit(f"{run_id} lives at {tuned.address}, and this run trains at {address}; start from null there")
    return tuned.model


def _require_same(store: ObjectStore, manifest: Manifest, backend: Backend) -> None:
    """Check that a run trained the same base model, by the same method, at the same provider."""
    run_id = manifest.run_id
    if not _weights(manifest):
        raise _unfit(f"{run_id} trained nothing, so there is nothing to go on from; name another run, or null")
    before = yaml.safe_load(store.fetch(manifest.files["spec.yaml"]).read_bytes())["backend"]
    if before["provider"] != backend.provider:
        raise _unfit(f"{run_id} was trained by {before['provider']}, and backend.provider is {backend.provider}; name another run, or null")
    if before["model"] != backend.model:
        raise _unfit(f"{run_id} was tuned from {before['model']}, and backend.model is {backend.model}; name another run, or null")
    if backend.managed:
        return
    method = backend.method.model_dump(mode="json")
    if differing := [name for name in SAME if before["method"][name] != method[name]]:
        told = ", ".join(f"{name} {before['method'][name]} there, {method[name]} here" for name in differing)
        raise _unfit(f"{run_id} has weights of another shape: backend.method has {told}; make them the same, or set the field to null")


def _weights(manifest: Manifest) -> dict[str, ArtifactRef]:
    """Return what a training is loaded from, by name: without the tokenizer, which is the base model's."""
    if AT_PROVIDER in manifest.files:
        return {AT_PROVIDER: manifest.files[AT_PROVIDER]}
    return {name: ref for name, ref in manifest.files.items() if name.startswith(WEIGHTS) and name.endswith(LOADED)}


def _unfit(reason: str) -> SpecError:
    told = f"{reason}. A retraining sets the field to its champion; retrain.warm_start: false leaves it null"
    return SpecError("training cannot go on from that run:", (Problem(FIELD, told),))
