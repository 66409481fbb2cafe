"""The data stages without a server or a model: what ``validate`` and ``plan`` are made of. Nothing outlives the folder given."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prooftune.data.lines import read_lines
from prooftune.errors import DataError
from prooftune.spec import Data, RunSpec
from prooftune.types import Finding

if TYPE_CHECKING:
    from prooftune.data.old import OldRun


@dataclass
class Rehearsal:
    """What the data stages found and would do."""

    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By stage; a stage that could not be done is not in it."""
    seconds: dict[str, float] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    refusals: list[DataError] = field(default_factory=list)
    """What a run would stop with."""

    @property
    def invalid(self) -> int:
        """Rows that are no valid example."""
        validated = self.figures.get("validate", {})
        return int(validated["rows"]) - int(validated["valid"]) if validated else len(self.findings)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Findings by code and action, codes in alphabetical order."""
        table: dict[str, dict[str, int]] = {}
        for (code, action), count in sorted(Counter((finding.code, finding.action) for finding in self.findings).items()):
            table.setdefault(code, {})[action] = count
        return table

    @contextmanager
    def stage(self, name: str, folder: Path) -> Iterator[Path]:
        """Time a stage and keep its refusal, which the next ones notice by its missing figures."""
        out = folder / name
        out.mkdir()
        started = time.monotonic()
        try:
            yield out
        except DataError as error:
            self.refusals.append(error)
        self.seconds[name] = time.monotonic() - started


def rehearse(spec: RunSpec, folder: Path) -> Rehearsal:
    """Ingest, validate and split in an empty folder, and collect everything that is wrong instead of stopping at the first.

    Raises:
        NoSuchObject, DataError: the run that ``data.old`` or ``backend.start_from`` names is not published, or without its examples.
        StoreUnavailable, TransientError: the source is in a bucket or hub that refuses or cannot be reached.
    """
    from prooftune.data.old import read_old_run
    from prooftune.data.reading import read_source
    from prooftune.data.splitting import split
    from prooftune.storage.objects import open_store

    named = {
        name: None if name is None else read_old_run(open_store(spec.store), name) for name in (spec.data.old.run, spec.backend.start_from)
    }
    old = named[spec.data.old.run]
    found = Rehearsal()
    data = spec.data.model_copy(update={"on_invalid": "skip"})
    with found.stage("ingest", folder) as out:
        found.figures["ingest"] = dict(read_source(data.source, out, on_invalid="skip"))
    if (problems := folder / "ingest" / "problems.jsonl").is_file():
        found.findings = list(read_lines(problems, Finding))
    if "ingest" in found.figures:
        _validate(found, data, folder, old)
    if "validate" in found.figures:
        with found.stage("split", folder) as out:
            found.figures["split"] = dict(
                split(folder / "validate" / "examples.jsonl", spec.data.split, out, old or named[spec.backend.start_from])
            )
    _refuse_invalid(found, spec.data)
    return found


def _validate(found: Rehearsal, data: Data, folder: Path, old: OldRun | None) -> None:
    """Validate; where personal data stops it, look past that, so that what else is wrong is found too."""
    from prooftune.data.validation import validate

    records, problems = (folder / "ingest" / f"{name}.jsonl" for name in ("records", "problems"))
    with found.stage("validate", folder) as out:
        try:
            found.figures["validate"] = dict(validate(records, problems, data, out, old=old))
            found.findings = list(read_lines(out / "findings.jsonl", Finding))
        except DataError as error:
            known = {finding.where for finding in found.findings}
            stopping = [
                Finding(where=problem.where, code=problem.code, reason=problem.reason, action="dropped")
                for problem in error.problems
                if problem.where not in known
            ]
            if data.pii == "stop" and any(finding.code.startswith("pii-") for finding in stopping):
                shutil.rmtree(out)
                _validate(found, data.model_copy(update={"pii": "redact"}), folder, old)
                found.findings = [finding for finding in found.findings if not finding.code.startswith("pii-")]
            found.findings += stopping
            raise


def _refuse_invalid(found: Rehearsal, data: Data) -> None:
    if data.on_invalid == "fail" and found.invalid and "validate" in found.figures:
        rows = found.figures["validate"]["rows"]
        found.refusals.append(
            DataError(
                f"{found.invalid:,} of {rows:,} rows are invalid and data.on_invalid is fail; correct them, or set data.on_invalid: skip"
            )
        )
