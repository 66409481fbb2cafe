"""Divide examples into train, validation and a sealed holdout, so that nothing in the holdout was learnt from.

Examples that share a near-duplicate cluster, a ``group_by`` value or an id form one *unit*, and units are never divided. The result depends
on the examples and the seed alone, not on the order of the input.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import numpy as np

from prooftune.data.classes import class_sizes
from prooftune.data.duplicates import connected, find_clusters
from prooftune.data.lines import read_lines, write_lines
from prooftune.data.old import OldRun
from prooftune.errors import DataError, IntegrityError, Problem
from prooftune.spec import Amount, Split
from prooftune.storage.disk import sha256_of
from prooftune.types import Example, SplitName


@dataclass(frozen=True, slots=True)
class _Unit:
    """Examples that stay together."""

    examples: tuple[Example, ...]
    luck: float
    """Uniform in [0, 1), from the seed and the content."""
    stratum: str
    time: float
    """Seconds since 1970 or the column's own number, of its newest example: older examples of the unit go where the newest goes."""

    def __len__(self) -> int:
        return len(self.examples)


def split(examples: Path, split: Split, out: Path, old: OldRun | None = None) -> dict[str, object]:
    """Write ``train.jsonl``, ``validation.jsonl`` and ``holdout.jsonl`` and return their counts and the holdout's seal.

    Rows stand in the order of their ids, which are digests, so the order says nothing about the source. What ``old`` held out is held out
    again, and its share of what ``old`` did not know beside it: what ``old`` was trained on can prove nothing in a comparison with it.

    Raises:
        DataError: a column of the spec is missing or unreadable, or the units cannot fill three splits.
    """
    rows = sorted(read_lines(examples, Example), key=_by_id)
    _require_columns(rows, split)
    column, units = _units(rows, split)
    parts = _divide(units, split, len(rows), old)
    used: dict[SplitName, list[Example]] = {
        name: sorted((row for unit in members for row in unit.examples), key=_by_id) for name, members in parts.items()
    }
    _require_disjoint(used, split)
    for name, members in used.items():
        write_lines(out / f"{name}.jsonl", members)
    counts: dict[str, int] = {name: len(members) for name, members in used.items()}
    figures: dict[str, object] = {
        "counts": {**counts, "unused": len(rows) - sum(counts.values())},
        "holdout_sha256": sha256_of(out / "holdout.jsonl"),
        "order": "time" if split.time_by else "random",
        "stratified_by": column,
        "strata": _strata(parts) if column else {},
        "groups": len(units),
        "largest_group": max(len(unit) for unit in units),
        "overlap": {"ids": 0, "groups": 0},  # proven above, or the stage would have failed
    }
    return figures if old is None else figures | {"held_out_again": sum(row.id in old.sealed for row in used["holdout"])}


def verify_seal(holdout: Path, sha256: str) -> None:
    """Check that the holdout is the one that was sealed; call it before every use.

    Raises:
        IntegrityError: its bytes have changed since.
    """
    found = sha256_of(holdout)
    if found != sha256:
        raise IntegrityError(
            f"{holdout.name} has SHA-256 {found[:12]}…, sealed as {sha256[:12]}…: the held-out set was changed after the split, so no "
            "score on it counts; run the split stage again"
        )


def in_spread_order(rows: Sequence[Example], split: Split) -> list[tuple[Example, ...]]:
    """Return the units of the examples in an order of which every beginning holds each stratum in proportion."""
    _, units = _units(sorted(rows, key=_by_id), split)
    return [unit.examples for unit in _spread(units, split.seed)]


def _by_id(row: Example) -> tuple[str, str]:
    return row.id, row.source


def _require_columns(rows: Sequence[Example], split: Split) -> None:
    columns = sorted({name for row in rows for name in row.metadata})
    problems = [
        Problem(f"data.split.{field}", f"no example has a column {name!r}; there are: {', '.join(columns) or 'none'}", "missing-column")
        for field, name in (("group_by", split.group_by), ("stratify_by", split.stratify_by), ("time_by", split.time_by))
        if name is not None and name not in columns
    ]
    if problems:
        raise DataError("the examples cannot be split as the spec asks:", tuple(problems))


def _units(rows: Sequence[Example], split: Split) -> tuple[str | None, list[_Unit]]:
    """Return the name of what is stratified by (None = nothing), and the units."""
    column, stratum_of = _stratifier(rows, split)
    times = _times(rows, split.time_by)
    members: dict[int, list[int]] = defaultdict(list)
    for index, root in enumerate(_components(rows, split.group_by)):
        members[root].append(index)
    units = [
        _Unit(
            examples=tuple(rows[index] for index in indices),
            luck=_luck(split.seed, rows[indices[0]].id),
            stratum=min(Counter(stratum_of[index] for index in indices).items(), key=lambda item: (-item[1], item[0]))[0],
            time=max(times[index] for index in indices),
        )
        for indices in members.values()
    ]
    return column, units


def _stratifier(rows: Sequence[Example], split: Split) -> tuple[str | None, list[str]]:
    """Return what is stratified by, and each row's stratum."""
    if split.time_by is not None:
        return None, [""] * len(rows)  # time decides alone; strata would put old examples behind newer ones
    if split.stratify_by is not None:
        return split.stratify_by, [str(row.metadata.get(split.stratify_by)) for row in rows]
    targets = [row.target for row in rows]
    return ("target", targets) if class_sizes(targets) else (None, [""] * len(rows))


def _components(rows: Sequence[Example], group_by: str | None) -> list[int]:
    """Lowest row index of each row's connected component over shared ids, clusters and ``group_by`` values."""
    first: dict[tuple[str, str], int] = {}
    edges = [(first.setdefault(tie, index), index) for index, row in enumerate(rows) for tie in _ties(row, group_by)]
    return connected(len(rows), np.array(edges, dtype=np.int64).reshape(-1, 2))


def _ties(row: Example, group_by: str | None) -> Iterable[tuple[str, str]]:
    """What a row must not share with a row of another split. A missing ``group_by`` value ties to nothing."""
    yield "id", row.id
    if row.group:
        yield "cluster", row.group
    if group_by is not None and row.metadata.get(group_by) is not None:
        yield "group_by", str(row.metadata[group_by])


def _times(rows: Sequence[Example], time_by: str | None) -> list[float]:
    if time_by is None:
        return [0.0] * len(rows)
    times, problems = [], []
    for row in rows:
        value = row.metadata.get(time_by)
        try:
            times.append(_seconds(value))
        except (TypeError, ValueError):
            problems.append(Problem(row.source, f"{time_by} is {value!r}; it must be a number or an ISO 8601 date", "bad-time"))
    if problems:
        raise DataError(f"data.split.time_by: {len(problems)} examples have no usable {time_by!r}:", tuple(problems))
    return times


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    if not isinstance(value, str):
        return float(value)
    moment = datetime.fromisoformat(value.strip())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _luck(seed: int, name: str) -> float:
    """A uniform number in [0, 1) that is the same on every machine and in every library version."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8]) / 2**64


def _divide(units: Sequence[_Unit], split: Split, total: int, old: OldRun | None) -> dict[SplitName, list[_Unit]]:
    holdout, validation = _count(split.holdout, total), _count(split.validation, total)
    again, fresh = _held_out_before(units, old)
    holdout = sum(map(len, again)) + round(holdout / max(total, 1) * sum(map(len, fresh)))
    if holdout + validation >= total or len(units) < 3:
        raise DataError(
            f"{total} examples in {len(units)} groups cannot give {holdout} held out, {validation} for validation and some to train on; "
            "bring more data, or lower data.split.holdout and data.split.validation"
        )
    chronological = split.time_by is not None

    def in_order(some: Sequence[_Unit]) -> list[_Unit]:
        return _newest_first(some) if chronological else _spread(some, split.seed)

    parts: dict[SplitName, list[_Unit]] = {}
    parts["holdout"] = [*again, *_take(in_order(fresh), holdout - sum(map(len, again)), prefix=chronological)[0]]
    sealed = {id(unit) for unit in parts["holdout"]}
    order = [unit for unit in in_order(units) if id(unit) not in sealed]
    parts["validation"], order = _take(order, validation, prefix=chronological)
    parts["train"] = order if split.train is None else _take(order, split.train, prefix=False)[0]
    if empty := [name for name in parts if not parts[name]]:
        largest = max(len(unit) for unit in units)
        raise DataError(
            f"no group of examples fits into {' and '.join(empty)}: the largest of {len(units)} groups holds {largest} of {total} examples "
            "and a group is never divided; choose another data.split.group_by or larger splits"
        )
    return parts


def _held_out_before(units: Sequence[_Unit], old: OldRun | None) -> tuple[list[_Unit], Sequence[_Unit]]:
    """Return the units that an old run held out, and those from which the rest of the holdout is drawn: all that it did not know."""
    if old is None:
        return [], units
    sealed, taught = _like_what_is_gone(units, old)
    sealed |= old.sealed
    again = [unit for unit in units if any(row.id in sealed for row in unit.examples)]
    known = sealed | old.learnt | taught
    return again, [unit for unit in units if not any(row.id in known for row in unit.examples)]


def _like_what_is_gone(units: Sequence[_Unit], old: OldRun) -> tuple[set[str], set[str]]:
    """Return the ids of near-duplicates of what the old run held out, and of what it was trained on, that is not among the examples.

    No group tells of those: what the source writes otherwise, or with another target, has superseded them, and what is not to be learnt
    from again was left out.
    """
    rows = [row for unit in units for row in unit.examples]
    here = {row.id for row in rows}
    sealed, taught = ([one for one in part if one.id not in here] for part in (old.splits["holdout"], old.taught))
    if not sealed and not taught:
        return set(), set()
    texts = ["\n".join(message.content for message in one.prompt if message.role == "user") for one in (*sealed, *taught, *rows)]
    groups = find_clusters(texts).groups
    theirs = set(groups[: len(sealed)]) - {""}, set(groups[len(sealed) : -len(rows)]) - {""}
    like = ({row.id for row, group in zip(rows, groups[-len(rows) :], strict=True) if group in some} for some in theirs)
    return next(like), next(like)


def _count(amount: Amount, total: int) -> int:
    return amount if isinstance(amount, int) else max(1, round(amount * total))


def _newest_first(units: Sequence[_Unit]) -> list[_Unit]:
    return sorted(units, key=lambda unit: (-unit.time, unit.luck))


def _spread(units: Sequence[_Unit], seed: int) -> list[_Unit]:
    """Order units at random, but so that every stretch of the order holds each stratum in proportion (systematic sampling)."""
    strata: dict[str, list[_Unit]] = defaultdict(list)
    for unit in sorted(units, key=lambda unit: unit.luck):
        strata[unit.stratum].append(unit)
    placed: list[tuple[float, float, _Unit]] = []
    for stratum, members in strata.items():
        size, before = sum(map(len, members)), 0
        start = _luck(seed, f"stratum {stratum}")  # or a stratum of one would always stand in the middle
        for unit in members:
            placed.append(((before + start * len(unit)) / size, unit.luck, unit))
            before += len(unit)
    return [unit for _, _, unit in sorted(placed, key=lambda entry: entry[:2])]


def _take(order: Sequence[_Unit], want: int, *, prefix: bool) -> tuple[list[_Unit], list[_Unit]]:
    """Take units in order until ``want`` examples are together, and return them and the rest.

    A unit that would overshoot is passed over for smaller ones behind it; with ``prefix`` the first one ends the taking, because
    a unit behind it is older.
    """
    taken: list[_Unit] = []
    rest: list[_Unit] = []
    missing = want
    for position, unit in enumerate(order):
        if len(unit) <= missing:
            taken.append(unit)
            missing -= len(unit)
            continue
        rest.append(unit)
        if prefix:
            rest.extend(order[position + 1 :])
            break
    return taken, rest


def _require_disjoint(parts: Mapping[SplitName, Sequence[Example]], split: Split) -> None:
    owner: dict[tuple[str, str], SplitName] = {}
    for name, rows in parts.items():
        for row in rows:
            for tie in _ties(row, split.group_by):
                if owner.setdefault(tie, name) != name:
                    raise DataError(f"{row.source} shares its {tie[0]} with an example of {owner[tie]} and was put into {name}")


def _strata(parts: Mapping[SplitName, Sequence[_Unit]]) -> dict[str, dict[str, int]]:
    """Examples by stratum and split."""
    table: dict[str, dict[str, int]] = {}
    for name, units in parts.items():
        for unit in units:
            table.setdefault(unit.stratum, dict.fromkeys(get_args(SplitName), 0))[name] += len(unit)
    return dict(sorted(table.items()))
