"""What the champion's published run has kept of it, and whether that is enough to meet it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from prooftune.errors import DataError, IntegrityError, ModelUnavailable, SpecError
from prooftune.evidence import Champion
from prooftune.models.resolve import resolve_model
from prooftune.providers.collection import MANAGED, ManagedModel, read_managed
from prooftune.spec import RunSpec, parse_spec
from prooftune.storage.manifest import Manifest, read_manifest
from prooftune.storage.objects import NoSuchObject, ObjectStore
from prooftune.storage.registry import read_registry
from prooftune.storage.registry_contest import WEIGHTS

VALIDATION = "validation.openai.jsonl"
AT_PROVIDER = f"model/{MANAGED}"
NEEDED = ("spec.yaml", "train.openai.jsonl", "holdout.jsonl", "candidate.predictions.jsonl")
UNUSABLE = (NoSuchObject, IntegrityError, DataError, SpecError, ModelUnavailable)
"""What is wrong with the champion, not with this run: a store or hub that is away is worth another try."""


@dataclass(frozen=True, slots=True)
class ChampionFiles:
    """What the champion's published run has kept of it."""

    run_id: str
    spec: RunSpec
    weights: Path
    """Folder of its adapter, of its whole model after a ``full`` training, or of the file that names a model at its provider."""
    base: Path
    """Folder of its base model on this machine, with the tokenizer; ``weights`` after a ``full`` training and at a provider."""
    managed: ManagedModel | None
    """Which model it is at its provider; None = it is on this machine."""
    train: Path
    """Its training examples as conversations, ``train.openai.jsonl``."""
    validation: Path | None
    """The examples that chose its checkpoint, ``validation.openai.jsonl``; None = its run has published none."""
    holdout: Path
    holdout_sha256: str
    predictions: Path
    """Its answers to its own holdout."""


def champion_files(store: ObjectStore, run_id: str) -> ChampionFiles:
    """Fetch what a comparison with a published champion needs.

    Raises:
        NoSuchObject: the run is no longer published.
        IntegrityError: a file was changed, or the base model is not the one that the champion was tuned from.
        DataError: the run kept too little of the champion.
        SpecError: its spec is none for this version.
        ModelUnavailable: its base model cannot be found.
    """
    manifest = read_manifest(store, run_id)
    weights = _weights_in(manifest)
    kept = [name for name in (*NEEDED, VALIDATION, *weights) if name in manifest.files]
    paths = {name: store.fetch(manifest.files[name]) for name in kept}
    spec = _spec_of(paths["spec.yaml"], run_id)
    folder = paths[weights[0]].parents[weights[0].count("/") - 1]
    managed = read_managed(paths[AT_PROVIDER]) if AT_PROVIDER in paths else None
    return ChampionFiles(
        run_id=run_id,
        spec=spec,
        weights=folder,
        base=folder if managed or spec.backend.method.kind == "full" else _base_of(spec, manifest),
        managed=managed,
        train=paths["train.openai.jsonl"],
        validation=paths.get(VALIDATION),
        holdout=paths["holdout.jsonl"],
        holdout_sha256=manifest.files["holdout.jsonl"].sha256,
        predictions=paths["candidate.predictions.jsonl"],
    )


def opponent(store: ObjectStore, run_id: str | None) -> Champion:
    """Return the champion to meet, without comparisons, and why it cannot be met where it cannot. Fetches all that is needed for it."""
    if run_id is None:
        return Champion(run_id=None)
    try:
        champion_files(store, run_id)
    except UNUSABLE as error:
        return Champion(run_id=run_id, reason=str(error))
    return Champion(run_id=run_id)


def check_champion(store: ObjectStore, task: str) -> str:
    """Return why a candidate of the task could not meet the champion in use, or "": before training, and without fetching any weights."""
    run_id = read_registry(store, task)["champion"]
    if run_id is None:
        return ""
    try:
        manifest = read_manifest(store, run_id)
        names = (*NEEDED, *_weights_in(manifest))
        if gone := [name for name in names if not store.exists(manifest.files[name].key)]:
            raise NoSuchObject(f"{store.uri} holds no more {', '.join(gone)} of the champion {run_id}; restore them from a copy")
        spec = _spec_of(store.fetch(manifest.files["spec.yaml"]), run_id)
        if spec.backend.method.kind != "full" and AT_PROVIDER not in manifest.files:
            _base_of(spec, manifest)
    except UNUSABLE as error:
        return str(error)
    return ""


def answers_here(store: ObjectStore, task: str) -> bool:
    """Return whether a task has a champion that answers on this machine, and not at its provider. Raises NoSuchObject where it is gone."""
    run_id = read_registry(store, task)["champion"]
    return run_id is not None and AT_PROVIDER not in read_manifest(store, run_id).files


def _weights_in(manifest: Manifest) -> list[str]:
    """Return the names of the champion's weights. Raises DataError where they, or anything else that is needed, are not among its files."""
    weights = [name for name in manifest.files if name.startswith(WEIGHTS)]
    if lost := [*(name for name in NEEDED if name not in manifest.files), *([] if weights else ["adapter/"])]:
        raise DataError(f"the champion {manifest.run_id} has published no {', '.join(lost)}; `prooftune rollback` puts another run in use")
    return weights


def _spec_of(file: Path, run_id: str) -> RunSpec:
    where = f"spec.yaml of {run_id}"
    try:
        return parse_spec(yaml.safe_load(file.read_text(encoding="utf-8")), where=where)
    except yaml.YAMLError as error:
        raise SpecError(f"{where} is no YAML: {error}") from None


def _base_of(spec: RunSpec, manifest: Manifest) -> Path:
    """Return the folder of the base model that the champion was tuned from, and of no other that goes by its name now."""
    backend, lineage = spec.backend, manifest.facts.get("lineage")
    found = resolve_model(backend.model, backend.revision, backend.trust_remote_code)
    known = lineage["model"]["sha256"] if isinstance(lineage, dict) else found.sha256
    if found.sha256 != known:
        raise IntegrityError(
            f"the champion {manifest.run_id} was tuned from {backend.model} with SHA-256 {known[:16]}…, {found.path} now has "
            f"{found.sha256[:16]}…. Bring that model back, or put another run in use with `prooftune promote`"
        )
    return found.path
