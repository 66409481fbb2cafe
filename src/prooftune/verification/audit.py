"""What an audit of a published run found: how much was recomputed, and every value that differs from what is written."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from prooftune.data.lines import read_lines
from prooftune.errors import IntegrityError
from prooftune.storage.manifest import Manifest
from prooftune.storage.objects import NoSuchObject, ObjectStore
from prooftune.types import Frozen

TOLERANCE = 1e-9
"""Relative and absolute: what the order of additions may change from machine to machine."""
NOTHING = "nothing"
Row = TypeVar("Row", bound=BaseModel)


class Mismatch(Frozen):
    """One value that is not what it should be by the rest of the run."""

    file: str
    """Name in the manifest, ``candidate.evaluation.json``; ``manifest.json`` for the manifest itself."""
    what: str
    """Dotted field, or what was recomputed."""
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what} is {self.found}, expected {self.expected}"


class Audit:
    """A published run that is being checked. Files that are missing or damaged are noted once and then count as absent."""

    def __init__(self, store: ObjectStore, manifest: Manifest) -> None:
        self.store = store
        self.manifest = manifest
        self.mismatches: list[Mismatch] = []
        self.checked: Counter[str] = Counter()
        self.not_recomputed: list[str] = []
        """What is taken as published, each with the reason."""
        self._unusable: set[str] = set()

    def check_bytes(self) -> None:
        """Read every file and compare its size and digest with the manifest's."""
        for name, ref in self.manifest.files.items():
            try:
                measured = self.store.measure(ref.key)
            except (NoSuchObject, IntegrityError) as error:
                found = NOTHING if isinstance(error, NoSuchObject) else "damaged"
            else:
                found = f"SHA-256 {measured.sha256}, {measured.size:,} bytes"
            if not self.same("files", name, "content", found, f"SHA-256 {ref.sha256}, {ref.size:,} bytes"):
                self._unusable.add(name)

    @property
    def evidence_is_whole(self) -> bool:
        """Whether every file that figures are computed from is there and undamaged: otherwise all that follows would differ as well."""
        return not any(name.endswith((".json", ".jsonl", ".yaml")) for name in self._unusable)

    def path(self, name: str) -> Path | None:
        """A verified local copy of a file; None where the run has none that can be used."""
        if name not in self.manifest.files or name in self._unusable:
            return None
        try:
            return self.store.fetch(self.manifest.files[name])
        except (NoSuchObject, IntegrityError) as error:
            self.note(name, "content", str(error), f"SHA-256 {self.manifest.files[name].sha256}")
            self._unusable.add(name)
            return None

    def required(self, name: str) -> Path | None:
        """The same of a file that every such run has; that it lacks one is a mismatch."""
        if name not in self.manifest.files:
            self.note(name, "the file", NOTHING, "a file that the manifest lists")
        return self.path(name)

    def document(self, name: str, kind: type[Row]) -> Row | None:
        """A JSON file as what it should hold."""
        path = self.path(name)
        if path is None:
            return None
        try:
            return kind.model_validate_json(path.read_bytes())
        except ValueError as error:
            self.note(name, "the content", f"no {kind.__name__} ({type(error).__name__})", f"a {kind.__name__}")
            return None

    def rows(self, name: str, kind: type[Row]) -> list[Row] | None:
        """A file of JSON lines as what it should hold; that the run lacks it, or that it holds something else, is a mismatch."""
        path = self.required(name)
        if path is None:
            return None
        try:
            return list(read_lines(path, kind))
        except IntegrityError as error:
            self.note(name, "a line", str(error), f"a {kind.__name__}")
            return None

    def same(self, kind: str, file: str, what: str, found: object, expected: object, tolerance: float = TOLERANCE) -> bool:
        """Count a comparison and note each part in which both differ."""
        self.checked[kind] += 1
        different = list(differences(found, expected, what, tolerance))
        for where, left, right in different:
            self.note(file, where, left, right)
        return not different

    def note(self, file: str, what: str, found: object, expected: object) -> None:
        """Keep a mismatch."""
        self.mismatches.append(Mismatch(file=file, what=what, found=_text(found), expected=_text(expected)))


def differences(found: object, expected: object, where: str, tolerance: float = TOLERANCE) -> Iterator[tuple[str, object, object]]:
    """Yield each place in which two JSON values differ, dotted, with both values; numbers within the tolerance are equal."""
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        for key in [*expected, *(key for key in found if key not in expected)]:
            yield from differences(found.get(key, NOTHING), expected.get(key, NOTHING), f"{where}.{key}" if where else str(key), tolerance)
    elif _is_list(found) and _is_list(expected) and len(found) == len(expected):  # type: ignore[arg-type]
        for number, (left, right) in enumerate(zip(found, expected, strict=True)):  # type: ignore[call-overload]
            yield from differences(left, right, f"{where}[{number}]", tolerance)
    elif not _equal(found, expected, tolerance):
        yield where, found, expected


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _equal(found: Any, expected: Any, tolerance: float) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (found, expected))
    return (
        math.isclose(found, expected, rel_tol=tolerance, abs_tol=tolerance)
        if numbers
        else type(found) is type(expected) and found == expected
    )


def _text(value: object, limit: int = 300) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= limit else text[: limit - 1] + "…"
