"""Files of training rows, as far as they are alike at every provider: a line is a JSON object, and all that is wrong is told at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from prooftune.data.lines import read_lines
from prooftune.errors import DataError, Problem
from prooftune.types import Example, Message

Found = Iterator[tuple[str, str]]
"""Code and reason of each thing that is wrong with a row."""


class Unfit(Exception):
    """A row that would be refused, or an example that has none."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason


def write_lines_of(examples: Path, row_of: Callable[[Example], dict[str, Any]], out: Path, head: bytes = b"") -> None:
    """Write a row for each example, one line each, in their order, behind ``head``; ``row_of`` raises Unfit where there is none.

    Raises:
        DataError: examples have no row; all of them are named.
    """
    problems: list[Problem] = []
    with out.open("wb") as file:
        file.write(head)
        for number, example in enumerate(read_lines(examples, Example), start=1):
            try:
                file.write((json.dumps(row_of(example), ensure_ascii=False) + "\n").encode())
            except Unfit as unfit:
                problems.append(Problem(f"{examples.name}:{number}", f"{unfit.reason} ({example.source})", unfit.code))
    if problems:
        raise DataError(f"{len(problems)} of the examples cannot be written as rows for the provider:", tuple(problems))


def pair_of(example: Example, prompt: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a preference pair in OpenAI's form, which others took over.

    Raises:
        Unfit: the example has no rejected answer.
    """
    return {
        "input": {"messages": list(prompt)},
        "preferred_output": [{"role": "assistant", "content": example.target}],
        "non_preferred_output": [{"role": "assistant", "content": rejected_of(example)}],
    }


def rejected_of(example: Example) -> str:
    """Return the answer that is not preferred.

    Raises:
        Unfit: there is none.
    """
    if example.rejected is None:
        advice = "give records with chosen and rejected answers, or set backend.objective: supervised"
        raise Unfit("no-rejected-answer", f"has no rejected answer, which a preference pair needs; {advice}")
    return example.rejected


def plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return messages as role and content alone."""
    return [{"role": message.role, "content": message.content} for message in messages]


def parse_row(line: bytes) -> dict[str, Any]:
    """Return the row that a line holds.

    Raises:
        Unfit: it holds none.
    """
    if not line.strip():
        raise Unfit("blank-line", "is blank; each line is a JSON object")
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise Unfit("not-utf8", f"is not UTF-8 at byte {error.start}") from None
    except (ValueError, RecursionError):
        raise Unfit("not-json", "is not JSON; each line is a JSON object") from None
    if not isinstance(row, dict):
        raise Unfit("not-an-object", f"is a JSON {type(row).__name__}; each line is a JSON object")
    return row


def check_lines(
    lines: Iterable[bytes], name: str, found_in: Callable[[dict[str, Any], int], Iterable[tuple[str, str]]]
) -> tuple[int, list[Problem]]:
    """Return how many rows a file has, and what is wrong with each, as ``NAME:LINE``.

    ``found_in`` takes a row and its line, and returns what is wrong with it, or raises Unfit with the first thing.
    """
    rows, problems = 0, list[Problem]()
    for rows, line in enumerate(lines, start=1):
        try:
            found = list(found_in(parse_row(line), rows))
        except Unfit as unfit:
            found = [(unfit.code, unfit.reason)]
        problems += [Problem(f"{name}:{rows}", reason, code) for code, reason in found]
    return rows, problems
