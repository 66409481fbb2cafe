"""What every sensor shares: what a look may say, which champion is in use, and which rows of a growing log count."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, get_args

import yaml

from prooftune.data.cleaning import prompt_key, target_key
from prooftune.data.lines import read_lines
from prooftune.data.reading import read_source
from prooftune.errors import DataError
from prooftune.evaluation.champion import Learnt
from prooftune.results import read_result
from prooftune.spec import RunSpec, parse_spec
from prooftune.storage.manifest import Manifest, read_manifest
from prooftune.storage.objects import NoSuchObject, ObjectStore
from prooftune.storage.registry_document import Registry, champions_in_line, read_document
from prooftune.types import Example, Frozen, Metric, Record, SplitName
from prooftune.watching.signals import Kind, Signal

FOLDER = "watch/"
"""Of all that sensors remember in the object store, by task."""
WEEK = timedelta(days=7)


class Quiet(Frozen):
    """A look that found nothing to retrain for, and why; or that could not look."""

    kind: Kind
    reason: str
    """A sentence for people."""
    figures: dict[str, Any] = {}
    """What was measured, JSON-able."""
    trouble: bool = False
    """Whether it could not look: that nothing was found says nothing then."""


Look = Signal | Quiet


@dataclass(frozen=True, slots=True)
class InUse:
    """The champion of a task."""

    run_id: str
    since: datetime
    """When it came into use, UTC."""
    manifest: Manifest
    store: ObjectStore

    @property
    def spec(self) -> RunSpec:
        """The spec that its run was given.

        Raises:
            SpecError: it is none for this version.
        """
        return parse_spec(yaml.safe_load(self.file("spec.yaml").read_bytes()), where=f"spec.yaml of {self.run_id}")

    def file(self, name: str) -> Path:
        """Return a published file of its run.

        Raises:
            DataError: its run has published none of this name.
            NoSuchObject, IntegrityError: it is gone from the store, or was changed.
        """
        if (ref := self.manifest.files.get(name)) is None:
            raise DataError(f"the champion {self.run_id} has published no {name}; `prooftune promote` puts another run in use")
        return self.store.fetch(ref)


def champion_in_use(store: ObjectStore, task: str) -> InUse | None:
    """Return the champion of a task; None = it has none yet.

    Raises:
        NoSuchObject: its run is no longer published.
        IntegrityError: the registry or the manifest is damaged.
    """
    registry, _ = read_document(store, task)
    if registry.champion is None:
        return None
    since = max(change.at for change in registry.changes if change.champion == registry.champion)
    return InUse(registry.champion, datetime.fromisoformat(since), read_manifest(store, registry.champion), store)


def examples_of(store: ObjectStore, run_id: str) -> set[str]:
    """Return the ids of the examples that a run was made from, trained on or not; none where it is no longer published."""
    try:
        profile = store.get(read_manifest(store, run_id).files["profile.csv"].key).decode()
    except (NoSuchObject, KeyError):
        return set()
    return {row["id"] for row in csv.DictReader(io.StringIO(profile)) if row["status"] == "kept"}


def new_ones(store: ObjectStore, runs: Sequence[str], examples: Iterable[Example]) -> set[str]:
    """Return the ids of the examples that none of the runs was made from, nor from one of the same prompt and target once normalised.

    Of runs that have published no splits, only the ids are known.
    """
    known = set().union(*(examples_of(store, run) for run in runs))
    others = {example.id: example for example in examples if example.id not in known}
    written_otherwise: set[tuple[str, str]] = set()
    for run in runs if others else ():
        written_otherwise |= _contents_of(store, run)
    return {name for name, example in others.items() if _content(example) not in written_otherwise}


def _contents_of(store: ObjectStore, run_id: str) -> set[tuple[str, str]]:
    try:
        files = read_manifest(store, run_id).files
        refs = [files[name] for name in (f"{split}.jsonl" for split in get_args(SplitName)) if name in files]
        return {_content(example) for ref in refs for example in read_lines(store.fetch(ref), Example)}
    except NoSuchObject:
        return set()


def _content(example: Example) -> tuple[str, str]:
    return prompt_key(example), target_key(example)


def tried_runs(registry: Registry) -> tuple[str, ...]:
    """Return the runs whose examples are nothing new: of every champion that is not rolled back, and since the champion in use."""
    line, runs = champions_in_line(registry.changes), [entry.run_id for entry in registry.history]
    newest = runs.index(line[-1]) if line else 0
    return tuple(run for at, run in enumerate(runs) if run in line or at >= newest)


def published_metric(store: ObjectStore, run_id: str, metric: str) -> Metric | None:
    """Return what a run published of its candidate, or None. Raises as ``read_result``."""
    found = [evaluation for evaluation in read_result(store, run_id).evaluations if evaluation.name == "candidate"]
    return found[0].metrics.get(metric) if found else None


def trained_on(train: Path) -> list[Example]:
    """Return the examples of a published ``train.openai.jsonl``, without their ids and metadata."""
    return [
        Example(id="", source=f"{train.name}:{number}", messages=row.conversation)
        for number, row in enumerate(read_lines(train, Learnt), start=1)
    ]


class Logged(NamedTuple):
    """A row of a log that grows: production's feedback or traffic."""

    at: datetime
    fields: dict[str, object]


def read_log(source: str) -> tuple[list[dict[str, object]], int]:
    """Return the rows of a log that could be read, in its order, and how many could not.

    Raises:
        DataError: there is no such file, or none of its rows can be read.
        StoreUnavailable, TransientError: a bucket refuses or cannot be reached.
    """
    with tempfile.TemporaryDirectory() as folder:
        figures = read_source(source, Path(folder), on_invalid="skip")
        rows = [record.fields for record in read_lines(Path(folder) / "records.jsonl", Record)]
    return rows, int(str(figures["rejected"]))


def in_time(rows: Sequence[dict[str, object]], default: datetime | None = None) -> Iterator[Logged]:
    """Yield the rows whose ``at`` is a moment; one without takes ``default``, or is left out."""
    for fields in rows:
        if (at := moment(fields["at"]) if "at" in fields else default) is not None:
            yield Logged(at, fields)


def recent(rows: Sequence[Logged], now: datetime, since: datetime, least: int) -> list[Logged]:
    """Return the rows of this ISO week and of as many weeks before as it takes for ``least`` of them, oldest first; none before ``since``.

    Which rows count follows from their number and times alone, never from what they say: no test on them is bent.
    """
    ordered = sorted((row for row in rows if since <= row.at), key=lambda row: row.at)
    start = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=now.weekday())
    while ordered and start > ordered[0].at and sum(row.at >= start for row in ordered) < least:
        start -= WEEK
    return [row for row in ordered if row.at >= start]


def moment(value: object) -> datetime | None:
    """Return an ISO 8601 moment, UTC where it names no zone; None = it is none."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found if found is None or found.tzinfo else found.replace(tzinfo=UTC)


def week_of(now: datetime) -> str:
    """Return the ISO week, ``2026-W48``: what persists is one occurrence a week."""
    year, week, _ = now.isocalendar()
    return f"{year}-W{week:02d}"


def stamp(now: datetime) -> str:
    """Return a moment as signals and documents have it: UTC, ISO 8601, seconds."""
    return now.astimezone(UTC).isoformat(timespec="seconds")
