"""Which champion a candidate has to meet, and which one a published run says that it met."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from prooftune.providers.collection import MANAGED, read_managed
from prooftune.spec import digest
from prooftune.storage.manifest import read_manifest
from prooftune.storage.objects import NoSuchObject, ObjectStore
from prooftune.storage.registry_document import opponent_of, read_document
from prooftune.types import ArtifactRef

WEIGHTS = ("adapter/", "model/")
"""Where a published run keeps what it trained."""


class Contest(NamedTuple):
    """What a published run says of its candidate."""

    weights: tuple[str, ...]
    """SHA-256 of its safetensors files, sorted, or a digest of the name of a model at its provider."""
    told: bool
    """Whether it says which champion the candidate met."""
    met: str | None


def champion_to_meet(store: ObjectStore, task: str, run_key: str, files: Mapping[str, ArtifactRef]) -> str | None:
    """Return the champion that a candidate has to meet: the one in use, but for the same run repeated the one that it met; None = none.

    Args:
        store: Where the registry is.
        task: Name of the task.
        run_key: What the run's id is, or begins with, followed by a dash: a digest of everything that the run is made from.
        files: What the stages before this one hand to the published run, by its name there. The same key with other files is a run that
            measured anew, and meets the champion in use. So does another run with the champion's weights the one that they met.
    """
    registry, _ = read_document(store, task)
    for entry in reversed(registry.history):
        mine = entry.run_id == run_key or entry.run_id.startswith(f"{run_key}-")
        if mine and not entry.held_back and _published_with(store, entry.run_id, files):
            return entry.met
    return opponent_of(registry, weights_of(store, files))


def contest_of(store: ObjectStore, run_id: str) -> Contest:
    """Read what a run has published of its candidate. Raises IntegrityError where that is not what the manifest lists."""
    try:
        files = read_manifest(store, run_id).files
    except NoSuchObject:
        return Contest((), told=False, met=None)
    if (ref := files.get("champion.json")) is None:
        return Contest(weights_of(store, files), told=False, met=None)
    return Contest(weights_of(store, files), told=True, met=json.loads(store.fetch(ref).read_bytes())["run_id"])


def weights_of(store: ObjectStore, files: Mapping[str, ArtifactRef]) -> tuple[str, ...]:
    """Return the digests of the weights among a run's files, sorted; for a model at its provider, that of its name there.

    What else is told of such a model, the day on which it ends among it, may change without its being another one.

    Raises:
        IntegrityError: the file that names a model is not the one of the manifest.
        DataError: it is of another version.
    """
    found = {name: ref for name, ref in files.items() if name.startswith(WEIGHTS)}
    here = [ref.sha256 for name, ref in found.items() if name.endswith(".safetensors")]
    there = [read_managed(store.fetch(ref)) for name, ref in found.items() if name.endswith(f"/{MANAGED}")]
    return tuple(sorted([*here, *(digest([one.provider, one.address, one.model]) for one in there)]))


def _published_with(store: ObjectStore, run_id: str, files: Mapping[str, ArtifactRef]) -> bool:
    """Return whether a published run has all these files with the same content."""
    try:
        published = read_manifest(store, run_id).files
    except NoSuchObject:
        return False
    return all(name in published and published[name].sha256 == ref.sha256 for name, ref in files.items())
