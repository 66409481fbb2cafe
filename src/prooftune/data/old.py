"""The examples of an earlier run, to be learnt from again: which ones, and beside which new ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import get_args

import yaml

from prooftune.data.cleaning import prompt_key
from prooftune.data.lines import read_lines
from prooftune.errors import DataError
from prooftune.spec import digest
from prooftune.storage.manifest import Manifest, find_run
from prooftune.storage.objects import NoSuchObject, ObjectStore
from prooftune.types import ArtifactRef, Example, FileRef, Finding, SplitName


@dataclass(frozen=True)
class OldRun:
    """The examples that a published run was made from, by split."""

    run_id: str
    splits: dict[SplitName, tuple[Example, ...]]
    earlier: tuple[Example, ...] = ()
    """What the runs before it were trained on and it does not have: its weights may know them, and the source may hold them still."""

    @cached_property
    def sealed(self) -> frozenset[str]:
        """Ids of the examples that it held out."""
        return frozenset(example.id for example in self.splits["holdout"])

    @property
    def taught(self) -> tuple[Example, ...]:
        """The examples that it, or a run before it, was trained on or had its checkpoint chosen by."""
        return (*self.splits["train"], *self.splits["validation"], *self.earlier)

    @cached_property
    def learnt(self) -> frozenset[str]:
        """Their ids."""
        return frozenset(example.id for example in self.taught)


def old_run_ref(store: ObjectStore, run_id: str) -> FileRef:
    """Return what a run's examples are, by content.

    Raises:
        NoSuchObject: there is no such run; the message names those with a similar id.
        DataError: it was published without its examples.
    """
    line = _line(store, run_id)
    return FileRef(path=run_id, sha256=digest([{name: ref.sha256 for name, ref in splits.items()} for splits in line.values()]))


def read_old_run(store: ObjectStore, run_id: str) -> OldRun:
    """Return a published run's examples; each says which line of which of its splits it stood in. Raises as ``old_run_ref``."""
    line = _line(store, run_id)
    splits = {name: tuple(_examples(store.fetch(ref), run_id, name)) for name, ref in line.pop(run_id).items()}
    known = {example.id for examples in splits.values() for example in examples}
    earlier: dict[str, Example] = {}
    for run, published in line.items():
        for name in ("train", "validation"):
            earlier |= {example.id: example for example in _examples(store.fetch(published[name]), run, name) if example.id not in known}
    return OldRun(run_id, splits, tuple(earlier.values()))


def join_old(examples: Sequence[Example], old: OldRun, keep: float) -> tuple[list[Example], list[Example], list[Finding]]:
    """Return the examples that go on, those of the old run among them that were added, and a finding for each that does not go on.

    What stands in the source as well is the source's. Of what the old run was trained on, a share goes on, and of what the runs before it
    were, the same share of what the source still has: what was left out once is not new. An old example whose prompt the
    source has with another target is superseded: the source is newer, and knows better.
    """
    left_out = {example.id for example in (*old.splits["train"], *old.earlier) if _luck(example.id) >= keep}
    known = {example.id for example in examples}
    prompts = {prompt_key(example) for example in examples if example.rejected is None}
    kept, added, findings = [], [], []
    for example in examples:
        if example.id in left_out:
            reason = f"the run {old.run_id} was trained on it, and data.old.keep is {keep:g}"
            findings.append(Finding(where=example.source, code="old-left-out", reason=reason, action="dropped"))
        else:
            kept.append(example)
    for name in get_args(SplitName):
        for example in old.splits[name]:
            if example.id in known or example.id in left_out:
                continue
            added.append(example)
            if example.rejected is None and prompt_key(example) in prompts:
                reason = "the source has its prompt, with another target or written otherwise, and is newer"
                findings.append(Finding(where=example.source, code="superseded", reason=reason, action="dropped"))
            else:
                kept.append(example)
    return kept, added, findings


def _line(store: ObjectStore, run_id: str) -> dict[str, dict[SplitName, ArtifactRef]]:
    """Return the splits of a run, and of the runs that it was made from or went on from in turn, as far as they are still published."""
    line = {run_id: _published(find_run(store, run_id))}
    names = _before(store, run_id)
    while names:
        name = names.pop(0)
        if name in line:
            continue
        try:
            line[name] = _published(find_run(store, name))
        except (NoSuchObject, DataError):
            continue
        names += _before(store, name)
    return line


def _before(store: ObjectStore, run_id: str) -> list[str]:
    """Return the runs whose examples or weights a run's spec names."""
    ref = find_run(store, run_id).files.get("spec.yaml")
    spec = yaml.safe_load(store.fetch(ref).read_bytes()) if ref else {}
    named = (spec["data"].get("old", {}).get("run"), spec["backend"].get("start_from")) if spec else ()
    return [str(run) for run in named if run is not None]


def _published(manifest: Manifest) -> dict[SplitName, ArtifactRef]:
    files, run_id = manifest.files, manifest.run_id
    if missing := [f"{name}.jsonl" for name in get_args(SplitName) if f"{name}.jsonl" not in files]:
        raise DataError(
            f"the run {run_id} was published without {', '.join(missing)}, as runs of earlier versions were; run its spec once more, and "
            "promote the new run, or name it in data.old.run and backend.start_from"
        )
    return {name: files[f"{name}.jsonl"] for name in get_args(SplitName)}


def _examples(path: Path, run_id: str, name: SplitName) -> list[Example]:
    rows = enumerate(read_lines(path, Example), start=1)
    return [example.model_copy(update={"source": f"{run_id}/{name}.jsonl:{line}", "group": ""}) for line, example in rows]


def _luck(example_id: str) -> float:
    """A uniform number in [0, 1) that depends on the content alone."""
    return int.from_bytes(hashlib.sha256(f"keep:{example_id}".encode()).digest()[:8]) / 2**64
