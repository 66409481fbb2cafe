"""Rows that were paid for, kept line by line as they come: what a killed stage left behind is not asked for again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from prooftune.data.lines import read_lines

Row = TypeVar("Row", bound=BaseModel)


def read_kept(path: Path, kind: type[Row]) -> list[Row]:
    """Return the rows that a killed call left behind, and cut off the line that it was writing.

    Raises:
        IntegrityError: a whole line is not a ``kind``.
    """
    cut_unfinished(path)
    return list(read_lines(path, kind))


def cut_unfinished(path: Path) -> None:
    """Cut off the line that a killed call was writing; a file that is not there yet is empty."""
    path.touch()
    whole = path.read_bytes().rpartition(b"\n")
    with path.open("r+b") as file:
        file.truncate(len(whole[0]) + len(whole[1]))


def keep(path: Path, row: BaseModel) -> None:
    """Append a row; one thread at a time."""
    with path.open("ab") as file:
        file.write(_line(row))


def keep_together(path: Path, rows: Iterable[BaseModel]) -> None:
    """Append rows, all or none of them, whenever the process is killed."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_bytes(path.read_bytes() + b"".join(map(_line, rows)))
    unfinished.replace(path)


def _line(row: BaseModel) -> bytes:
    return row.model_dump_json().encode() + b"\n"
