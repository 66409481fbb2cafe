"""Looks for data that the champion was not made from.

What was seen is remembered in ``watch/TASK/data.json``: a source whose listing is as it was is not read again, one whose bytes are as they
were is not validated again. Data that may still be written are left for a later look: they changed a moment ago, changed while they were
read, or a file breaks off within its last row.
"""

from __future__ import annotations

import tempfile
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import AwareDatetime

from prooftune import __version__
from prooftune.data.fingerprint import fingerprint_source
from prooftune.data.lines import read_lines
from prooftune.data.reading import read_source
from prooftune.data.rows import CUT_OFF
from prooftune.data.validation import validate
from prooftune.errors import DataError
from prooftune.spec import RunSpec, digest
from prooftune.storage.documents import change_document, read_document
from prooftune.storage.objects import ObjectStore
from prooftune.storage.registry_document import Registry
from prooftune.storage.registry_document import read_document as read_registry
from prooftune.types import Example, Finding, Frozen
from prooftune.watching.listing import Listing, list_source
from prooftune.watching.looks import FOLDER, Look, Quiet, new_ones, stamp, tried_runs
from prooftune.watching.signals import Signal

SHOWN = 5
"""So many problems are named."""


class Counted(Frozen):
    """What a source was found to hold."""

    stamp: str
    """Of the listing that was read."""
    basis: str
    """Of what the count depends on besides the source: settings of the data, version, runs whose examples are known."""
    fingerprint: str
    """Of the bytes, as ``fingerprint_source`` has it."""
    digest: str = ""
    """Of the set of valid examples: another order, name or repetition of the same ones is the same data."""
    examples: int = 0
    """Valid ones, after cleaning."""
    new: int = 0
    """Valid ones that no run in question was made from."""
    rejected: int = 0
    problems: tuple[str, ...] = ()
    """Why the data cannot be used, or why not yet; empty = they can."""


class SeenData(Frozen):
    """``watch/TASK/data.json``: what the last look saw."""

    source: str = ""
    stamp: str = ""
    """Of the listing."""
    seen_at: AwareDatetime | None = None
    """When this listing was seen first, by the looker's clock."""
    counted: Counted | None = None
    """Of the newest listing that was read."""


def look_at_data(store: ObjectStore, spec: RunSpec, now: datetime) -> Look:
    """Say whether the source holds at least ``watch.min_new_examples`` valid examples that the champion was not made from.

    Valid is what a run's own ingest and validation leave. New is what no champion was made from, unless it was rolled back, and no run
    since the present champion either: data that were tried and did not help are no news. Without a champion, the first data are.

    Raises:
        StoreUnavailable, TransientError: the store or the source cannot be reached.
        IntegrityError: the registry or what was remembered is damaged.
    """
    registry, _ = read_registry(store, spec.name)
    key = f"{FOLDER}{spec.name}/data.json"
    before, _ = read_document(store, key, SeenData())
    try:
        listing = list_source(spec.data.source)
    except DataError as error:
        return Quiet(kind="data", reason=error.message, trouble=True)
    unchanged = (before.source, before.stamp) == (spec.data.source, listing.stamp)
    seen_at = before.seen_at if unchanged and before.seen_at else now
    seen = before.model_copy(update={"source": spec.data.source, "stamp": listing.stamp, "seen_at": seen_at})
    counted, basis, wait = before.counted, _basis(spec, registry), timedelta()
    if counted is None or (counted.stamp, counted.basis) != (listing.stamp, basis):
        wait = _still_to_wait(listing, seen_at, now, timedelta(minutes=spec.watch.quiet_minutes))
        counted = None if wait else _count(store, spec, registry, listing, basis, before.counted)
        seen = seen.model_copy(update={"counted": counted or before.counted})
    if seen != before:
        change_document(store, key, SeenData(), lambda _: seen)
    if counted is None:
        why = f"changed a moment ago; looked at in {wait.total_seconds() / 60:.1f} minutes" if wait else "changed while they were read"
        return Quiet(kind="data", reason=f"the data {why}", figures={"files": listing.files, "bytes": listing.bytes})
    return _said(spec, registry, counted, listing, now)


def _basis(spec: RunSpec, registry: Registry) -> str:
    """Return the digest of what a count depends on besides the source; how the examples are divided later changes none."""
    settings = spec.data.model_dump(mode="json", exclude={"source", "split", "residency", "max_retention_days", "min_examples"})
    return digest([__version__, spec.data.source, settings, tried_runs(registry)])


def _still_to_wait(listing: Listing, seen_at: datetime, now: datetime, quiet: timedelta) -> timedelta:
    """Return how much longer the data must stay as they are.

    Their clock may be ahead of ours; that they have not changed since a look of ours counts as well.
    """
    if listing.changed_at is None:
        return timedelta()
    return max(timedelta(), min(listing.changed_at, seen_at) + quiet - now)


def _count(store: ObjectStore, spec: RunSpec, registry: Registry, listing: Listing, basis: str, before: Counted | None) -> Counted | None:
    """Return what the source holds; None = it changed meanwhile."""
    source = spec.data.source
    fingerprint = fingerprint_source(source)
    if before is not None and (before.basis, before.fingerprint) == (basis, fingerprint):
        return before.model_copy(update={"stamp": listing.stamp})
    counted = Counted(stamp=listing.stamp, basis=basis, fingerprint=fingerprint)
    try:
        with tempfile.TemporaryDirectory() as folder:
            counted = counted.model_copy(update=_validated(store, spec, registry, Path(folder)))
    except DataError as error:
        problems = (error.message, *(str(problem) for problem in error.problems[:SHOWN]))
        counted = counted.model_copy(update={"problems": problems})
    return counted if list_source(source).stamp == listing.stamp else None


def _validated(store: ObjectStore, spec: RunSpec, registry: Registry, out: Path) -> dict[str, object]:
    """Read and validate the source as a run does, and return the counts. Raises DataError as a run does."""
    rejected = read_source(spec.data.source, out, on_invalid="skip")["rejected"]
    cut_off = [f"{one.where}: {one.reason}" for one in read_lines(out / "problems.jsonl", Finding) if one.reason.endswith(CUT_OFF)]
    if cut_off:
        return {"rejected": rejected, "problems": tuple(cut_off[:SHOWN])}
    validate(out / "records.jsonl", out / "problems.jsonl", spec.data, out)
    examples = list(read_lines(out / "examples.jsonl", Example))
    ids, new = {example.id for example in examples}, new_ones(store, tried_runs(registry), examples)
    return {"rejected": rejected, "digest": digest(sorted(ids)), "examples": len(ids), "new": len(new)}


def _said(spec: RunSpec, registry: Registry, counted: Counted, listing: Listing, now: datetime) -> Look:
    champion = registry.champion
    figures = {
        "champion": champion,
        "examples": counted.examples,
        "new_examples": counted.new,
        "rejected_rows": counted.rejected,
        "files": listing.files,
        "bytes": listing.bytes,
        "problems": list(counted.problems),
    }
    if counted.problems:
        reason = f"the data cannot be used as they are: {counted.problems[0]}"
        return Quiet(kind="data", reason=reason, figures=figures, trouble=not counted.problems[0].endswith(CUT_OFF))
    news = f"{counted.new:,} of {counted.examples:,} valid examples are new" + (f" to the champion {champion}" if champion else "")
    if counted.new < spec.watch.min_new_examples:
        return Quiet(kind="data", reason=f"{news}; watch.min_new_examples is {spec.watch.min_new_examples:,}", figures=figures)
    if counted.examples < spec.data.min_examples:
        return Quiet(kind="data", reason=f"{news}; data.min_examples is {spec.data.min_examples:,}", figures=figures)
    return Signal(kind="data", task=spec.name, digest=counted.digest, reason=news, at=stamp(now), figures=figures)
