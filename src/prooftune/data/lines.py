"""Read and write JSON lines of our own types: the form in which stages hand rows to each other."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from prooftune.errors import IntegrityError

Row = TypeVar("Row", bound=BaseModel)


def read_lines(path: Path, kind: type[Row]) -> Generator[Row]:
    """Yield one ``kind`` a line.

    Raises:
        IntegrityError: a line is not a ``kind``; stages write these files themselves, so the file was changed or cut.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield kind.model_validate_json(line)
            except ValidationError as error:
                reason = error.errors(include_input=False, include_url=False)[0]["msg"]
                raise IntegrityError(
                    f"{path.name}:{number} is not a {kind.__name__} ({reason}), although a stage wrote it; run that stage again"
                ) from None


def write_lines(path: Path, rows: Iterable[BaseModel]) -> int:
    """Write one JSON object a line, as UTF-8 with line feeds on every system, and return how many."""
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as lines:
        for row in rows:
            lines.write(row.model_dump_json() + "\n")
            count += 1
    return count
