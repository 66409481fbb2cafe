"""Reads the files that stages wrote for the report, and says which one is not what its stage wrote."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from prooftune.errors import IntegrityError
from prooftune.types import Frozen, SplitName

Kind = TypeVar("Kind", bound=BaseModel)
Row = TypeVar("Row")


class Histogram(Frozen):
    """Counts of integer lengths; bin ``i`` holds ``edges[i] ≤ length < edges[i + 1]``."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    p50: float | None = None
    p95: float | None = None


class Confusion(Frozen):
    """One cell of a confusion matrix."""

    target: str
    answer: str
    count: int


def read_model(path: Path, kind: type[Kind]) -> Kind:
    """Return the one ``kind`` that a file holds.

    Raises:
        IntegrityError: it holds something else.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise _not_written(path.name, kind.__name__, error) from None


def read_list(path: Path, kind: type[Kind]) -> tuple[Kind, ...]:
    """Return the ``kind`` objects of a file that holds a JSON list of them.

    Raises:
        IntegrityError: it holds something else.
    """
    try:
        return tuple(TypeAdapter(list[kind]).validate_json(path.read_bytes()))  # type: ignore[valid-type]
    except ValidationError as error:
        raise _not_written(path.name, f"list of {kind.__name__}", error) from None


def read_looks(path: Path) -> list[dict[str, Any]]:
    """Return what the gate said of each checkpoint that was tried on the holdout.

    Raises:
        IntegrityError: the file tells of no looks.
    """
    try:
        looks: list[dict[str, Any]] = json.loads(path.read_bytes())["looks"]
    except (ValueError, KeyError, TypeError):
        raise IntegrityError(f"{path.name} tells of no looks, although a stage wrote it; run that stage again") from None
    return looks


def read_objects(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON object of each line.

    Raises:
        IntegrityError: a line is no JSON object.
    """
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise IntegrityError(f"{path.name}:{number} is not JSON ({error.msg}), although a stage wrote it; run it again") from None
        if not isinstance(row, dict):
            raise IntegrityError(f"{path.name}:{number} is no JSON object, although a stage wrote it; run that stage again")
        yield row


def read_log(path: Path) -> Iterator[dict[str, int | float | None]]:
    """Yield the rows of training's log.

    Raises:
        IntegrityError: a line is not a row with a step.
    """
    for number, row in enumerate(read_objects(path), start=1):
        if "step" not in row:
            raise IntegrityError(f"{path.name}:{number} has no step, although training wrote it; run train again")
        yield row


def read_confusions(path: Path) -> tuple[Confusion, ...]:
    """Return the cells above 0 of a confusion matrix: a CSV with a row for each target and, after its name, a column for each answer.

    Raises:
        IntegrityError: it is no such matrix.
    """
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    try:
        return tuple(
            Confusion(target=target, answer=answer, count=int(count))
            for target, *counts in rows
            for answer, count in zip(header[1:], counts, strict=True)
            if int(count)
        )
    except ValueError as error:
        raise IntegrityError(f"{path.name} is no confusion matrix ({error}), although a stage wrote it; run that stage again") from None


def read_token_lengths(figures: Mapping[str, Any]) -> dict[str, Histogram]:
    """Return the histograms of tokens per example that the stage tokens handed on, by split."""
    found = {name: figures[name] for name in get_args(SplitName) if "histogram" in figures.get(name, {})}
    return {name: Histogram(**split["histogram"], p50=split.get("p50"), p95=split.get("p95")) for name, split in found.items()}


def _not_written(name: str, kind: str, error: ValidationError) -> IntegrityError:
    reason = error.errors(include_input=False, include_url=False)[0]["msg"]
    return IntegrityError(f"{name} holds no {kind} ({reason}), although a stage wrote it; run that stage again")
