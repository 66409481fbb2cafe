"""How both contestants did on parts of the holdout: where a metadata column has one value."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prooftune.data.lines import read_lines
from prooftune.errors import DataError
from prooftune.evaluation.gate.comparison import Pair, compare, interval_of, pair_up, scored_pairs
from prooftune.evidence import Slice
from prooftune.spec import Gate, Task
from prooftune.types import Example, Prediction, Scalar

MOST_VALUES = 50
"""Of a column; one with more holds names or numbers of single cases."""
NO_VALUE = "(none)"
"""Value of the examples that lack the column, or have null in it."""


def slices_of(
    baseline: Sequence[Prediction], candidate: Sequence[Prediction], holdout: Path, task: Task, gate: Gate, seed: int
) -> tuple[Slice, ...]:
    """Return ``task.metric`` by column of ``task.slices`` and by value, both sides with ``1 - gate.alpha`` intervals and the difference.

    The slices of a column are disjoint and hold every example that is scored; columns come as in the spec, values sorted.

    Raises:
        DataError: no held-out example has a column of ``task.slices``, the two did not answer exactly the holdout, or an example is scored
            on one side only.
    """
    metadata = check_slices(holdout, task)
    pairs = pair_up("the baseline", baseline, candidate)
    if metadata.keys() != {b.example_id for b, _ in pairs}:
        raise DataError(f"the {len(pairs)} answers are not to the {len(metadata)} examples of {holdout.name}; evaluate both sides again")
    scored = scored_pairs(task.metric, pairs, task)
    found: list[Slice] = []
    for column in task.slices:
        parts: dict[str, list[Pair]] = {}
        for pair in scored:
            parts.setdefault(_text(metadata[pair[0].example_id].get(column)), []).append(pair)
        found += [_slice(column, value, parts[value], task, gate, seed) for value in sorted(parts)]
    return tuple(found)


def check_slices(holdout: Path, task: Task) -> dict[str, dict[str, Scalar]]:
    """Return the metadata of the held-out examples by their id, if it has the columns of ``task.slices``.

    Raises:
        DataError: no held-out example has a column, or a column has too many values to slice by.
    """
    metadata = {example.id: example.metadata for example in read_lines(holdout, Example)}
    known = {column for one in metadata.values() for column in one}
    if unknown := [column for column in task.slices if column not in known]:
        there = f"the columns there are: {', '.join(sorted(known))}" if known else "the examples have no further columns"
        raise DataError(f"task.slices names {', '.join(unknown)}, which none of the {len(metadata)} held-out examples has; {there}")
    for column in task.slices:
        values = {_text(one.get(column)) for one in metadata.values()}
        if len(values) > MOST_VALUES:
            raise DataError(
                f"task.slices names {column}, which has {len(values)} values among {len(metadata)} held-out examples; a column to slice by "
                f"has at most {MOST_VALUES}, each with many examples"
            )
    return metadata


def _text(value: Scalar) -> str:
    if value is None:
        return NO_VALUE
    return str(value).lower() if isinstance(value, bool) else str(value)


def _slice(column: str, value: str, pairs: Sequence[Pair], task: Task, gate: Gate, seed: int) -> Slice:
    compared = compare(task.metric, pairs, task, alpha=gate.alpha, seed=seed)
    sides = [interval_of(task.metric, [pair[side] for pair in pairs], task, alpha=gate.alpha, seed=seed) for side in (0, 1)]
    return Slice(
        column=column,
        value=value,
        n=compared.n,
        baseline=compared.baseline_value,
        baseline_low=sides[0][0],
        baseline_high=sides[0][1],
        candidate=compared.candidate_value,
        candidate_low=sides[1][0],
        candidate_high=sides[1][1],
        difference=compared.difference,
        ci_low=compared.ci_low,
        ci_high=compared.ci_high,
        p_value=compared.p_value,
        guarded=compared.n >= gate.min_slice,
    )
