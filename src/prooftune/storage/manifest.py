"""Publishing a run: its files first, the manifest that lists them last, so that a run is visible whole or not at all.

A run's files lie in a folder named by their content, and its manifest is created once and never replaced. Two processes that publish
the same run at once therefore cannot mix their files, and what a registry points at stays what it was.
"""

from __future__ import annotations

import difflib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from prooftune import __version__
from prooftune.errors import IntegrityError, Problem
from prooftune.spec import digest
from prooftune.storage.disk import sha256_of
from prooftune.storage.objects import AlreadyThere, InvalidKey, NoSuchObject, ObjectStore
from prooftune.types import ArtifactRef, Frozen

_RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
log = logging.getLogger(__name__)


class Manifest(Frozen):
    """What a published run consists of. While it exists, everything it lists does."""

    format: Literal[1] = 1
    run_id: str
    prooftune: str
    """Version that published the run."""
    files: dict[str, ArtifactRef]
    """By relative name, ``adapter/adapter_model.safetensors``; files of one folder lie in one folder of the store."""
    facts: dict[str, object]
    """JSON-able: the verdict, the metrics and whatever else a reader wants before fetching a file."""


def publish(store: ObjectStore, run_id: str, files: Mapping[str, Path], facts: Mapping[str, object]) -> ArtifactRef:
    """Upload a run's files and then create its manifest, ``runs/<run_id>/manifest.json``.

    Run again after an interruption, it sends only what is not there. The first manifest of a run stays: where it lists other
    content (seconds in a report, say), that run is already published, and the reference to it is returned.

    Args:
        store: Where to publish.
        run_id: Letters, digits and ``. _ -``.
        files: Local file by relative name.
        facts: JSON-able.

    Returns:
        Reference to the manifest.

    Raises:
        InvalidKey: the run id or a name is not fit to be a key.
    """
    key = _manifest_key(run_id)
    contents = {name: sha256_of(path) for name, path in sorted(files.items())}
    folder = f"runs/{run_id}/{digest(contents)[:16]}"
    manifest = Manifest(
        run_id=run_id,
        prooftune=__version__,
        files={name: store.upload(files[name], f"{folder}/{name}") for name in contents},
        facts=dict(facts),
    )
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    try:
        store.put(key, text.encode(), if_absent=True)
        log.info("published %s: %d files, %d bytes", run_id, len(contents), sum(ref.size for ref in manifest.files.values()))
    except AlreadyThere:
        if read_manifest(store, run_id).files != manifest.files:
            log.warning("%s was published before, with other files; that manifest stays", run_id)
    return store.measure(key)


def read_manifest(store: ObjectStore, run_id: str) -> Manifest:
    """The manifest of a published run.

    Raises:
        NoSuchObject: the run is not published (or only in part, which is the same).
        IntegrityError: the manifest is damaged.
    """
    key = _manifest_key(run_id)
    try:
        manifest = Manifest.model_validate_json(store.get(key))
    except ValidationError as error:
        raise IntegrityError(f"{store.uri}: {key} is not a manifest ({error.error_count()} problems); restore it from a copy") from None
    if manifest.run_id != run_id:
        raise IntegrityError(f"{store.uri}: {key} is the manifest of {manifest.run_id!r}; restore it from a copy")
    return manifest


def find_run(store: ObjectStore, run_id: str) -> Manifest:
    """The manifest of a published run, asked for by a person: an unknown id is answered with those that are like it.

    Raises:
        NoSuchObject, InvalidKey, IntegrityError: as ``read_manifest``.
    """
    try:
        return read_manifest(store, run_id)
    except NoSuchObject:
        raise NoSuchObject(f"{store.uri} holds no run {run_id!r}{_instead(store, run_id)}") from None


def verify_manifest(store: ObjectStore, run_id: str) -> list[Problem]:
    """Read every file of a published run and list those that are missing or differ from the manifest. Raises like ``read_manifest``."""
    problems = []
    for name, ref in read_manifest(store, run_id).files.items():
        try:
            found = store.measure(ref.key)
        except NoSuchObject:
            problems.append(Problem(name, f"{store.uri} holds nothing under {ref.key!r}, which the manifest lists", "missing-file"))
        except IntegrityError as error:
            problems.append(Problem(name, str(error), "damaged-file"))
        else:
            if found != ref:
                reason = f"has {found.size:,} bytes and SHA-256 {found.sha256}, the manifest says {ref.size:,} bytes and {ref.sha256}"
                problems.append(Problem(name, reason, "damaged-file"))
    return problems


def list_runs(store: ObjectStore) -> Iterator[str]:
    """Ids of the runs that are published, in order."""
    for key in store.list("runs/"):
        folder, _, name = key.rpartition("/")
        if name == "manifest.json" and folder.count("/") == 1:
            yield folder.partition("/")[2]


def _manifest_key(run_id: str) -> str:
    if not _RUN_ID.fullmatch(run_id):
        raise InvalidKey(f"{run_id[:120]!r} cannot be a run id: at most 100 letters, digits and . _ -, the first a letter, digit or _")
    return f"runs/{run_id}/manifest.json"


def _instead(store: ObjectStore, run_id: str) -> str:
    """What there is instead, as the end of a message."""
    runs = list(list_runs(store))
    if not runs:
        return ", and no other; `prooftune run SPEC` makes one, and --store names another store"
    near = difflib.get_close_matches(run_id, runs, n=5, cutoff=0.3) or runs[-5:]
    return f"; there are {len(runs)}, such as {', '.join(near)}"
