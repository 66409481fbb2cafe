"""The examples of an earlier run, to be learnt from again: which ones, and beside which new ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import get_args

from prooftune.data.cleaning import prompt_key
from prooftune.data.lines import read_lines
from prooftune.errors import DataError
from prooftune.spec import digest
from prooftune.storage.manifest import find_run
from prooftune.storage.objects import ObjectStore
from prooftune.types import ArtifactRef, Example, FileRef, Finding, SplitName


@dataclass(frozen=True)
class OldRun:
    """The examples that a published run was made from, by split."""

    run_id: str
    splits: dict[SplitName, tuple[Example, ...]]

    @cached_property
    def sealed(self) -> frozenset[str]:
        """Ids of the examples that it held out."""
        return frozenset(example.id for example in self.splits["holdout"])

    @cached_property
    def learnt(self) -> frozenset[str]:
        """Ids of the examples that it was trained on, or had its checkpoint chosen by."""
        return frozenset(example.id for example in (*self.splits["train"], *self.splits["validation"]))


def old_run_ref(store: ObjectStore, run_id: str) -> FileRef:
    """Return what a run's examples are, by content.

    Raises:
        NoSuchObject: there is no such run; the message names those with a similar id.
        DataError: it was published without its examples.
    """
    return FileRef(path=run_id, sha256=digest({name: ref.sha256 for name, ref in _published(store, run_id).items()}))


def read_old_run(store: ObjectStore, run_id: str) -> OldRun:
    """Return a published run's examples; each says which line of which of its splits it stood in. Raises as ``old_run_ref``."""
    published = _published(store, run_id)
    return OldRun(run_id, {name: tuple(_examples(store.fetch(ref), run_id, name)) for name, ref in published.items()})


def join_old(examples: Sequence[Example], old: OldRun, keep: float) -> tuple[list[Example], list[Example], list[Finding]]:
    """Return the examples that go on, those of the old run among them that were added, and a finding for each that does not go on.

    What stands in the source as well is the source's. Of what the old run was trained on, a share goes on. An old example whose prompt the
    source has with another target is superseded: the source is newer, and knows better.
    """
    left_out = {example.id for example in old.splits["train"] if _luck(example.id) >= keep}
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
                reason = "the source has its prompt with another target, which is newer"
                findings.append(Finding(where=example.source, code="superseded", reason=reason, action="dropped"))
            else:
                kept.append(example)
    return kept, added, findings


def _published(store: ObjectStore, run_id: str) -> dict[SplitName, ArtifactRef]:
    files = find_run(store, run_id).files
    if missing := [f"{name}.jsonl" for name in get_args(SplitName) if f"{name}.jsonl" not in files]:
        raise DataError(
            f"the run {run_id} was published without {', '.join(missing)}, as runs of earlier versions were; run its spec once more, and "
            "promote the new run, or name it in data.old.run"
        )
    return {name: files[f"{name}.jsonl"] for name in get_args(SplitName)}


def _examples(path: Path, run_id: str, name: SplitName) -> list[Example]:
    rows = enumerate(read_lines(path, Example), start=1)
    return [example.model_copy(update={"source": f"{run_id}/{name}.jsonl:{line}", "group": ""}) for line, example in rows]


def _luck(example_id: str) -> float:
    """A uniform number in [0, 1) that depends on the content alone."""
    return int.from_bytes(hashlib.sha256(f"keep:{example_id}".encode()).digest()[:8]) / 2**64
