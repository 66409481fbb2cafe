"""The ingest stage: from a source to records, with file, line and reason for everything that could not be read."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Literal

from prooftune.data.formats import Rows, read_rows
from prooftune.data.hub import read_hub
from prooftune.data.sources import DataFile, Found, find_files
from prooftune.data.streams import FileUnusable, Flaw, Limits, sha256_of
from prooftune.errors import DataError, Problem, ProoftuneError
from prooftune.spec import digest
from prooftune.types import Finding, Progress, Report, no_report

__all__ = ["Limits", "read_source"]

logger = logging.getLogger(__name__)

_REPORT_EVERY = 20_000
_SHOWN_PROBLEMS = 1000
_BIDI_CONTROL = re.compile(rb"\xe2\x80[\xaa-\xae]|\xe2\x81[\xa6-\xa9]")  # U+202A-202E, U+2066-2069 in UTF-8


def read_source(
    source: str,
    out: Path,
    *,
    on_invalid: Literal["fail", "skip"] = "fail",
    limits: Limits = Limits(),  # noqa: B008 - frozen
    report: Report = no_report,
) -> dict[str, object]:
    """Read every record of a source into ``records.jsonl`` and every rejected row into ``problems.jsonl``.

    A row is rejected when it is not a flat or nested JSON object in strict UTF-8 JSON (or its like in CSV or Parquet) within ``limits``.
    Controls that reverse the direction of text (U+202A-202E, U+2066-2069) are kept, and the row is noted as ``bidi-control``.

    Args:
        source: File, glob, folder, ``s3://bucket/key-or-prefix`` or ``hf://owner/name[/config][:split]``.
        out: Empty folder for the two files.
        on_invalid: ``fail`` raises when a row was rejected; ``skip`` goes on without it.
        limits: Bounds on rows and files.
        report: Told of progress, in bytes.

    Returns:
        ``rows``, ``rejected``, ``noted``, ``files`` (name, sha256, bytes), ``ignored``, ``source_sha256`` (over the files' digests in the
        order of their names) and ``bytes`` (as stored).

    Raises:
        DataError: for rejected rows under ``fail``; always for a file that cannot be read to its end, and where no record is left.
        StoreUnavailable, EnvironmentLacks, TransientError: when a bucket or the hub refuses or cannot be reached.
    """
    found = Found((), ()) if source.startswith("hf://") else find_files(source, limits)
    with (out / "records.jsonl").open("wb", buffering=1 << 20) as records, (out / "problems.jsonl").open("wb") as problems:
        ingest = _Ingest(records, problems, limits, report)
        digests = ingest.files(found.files) if found.files else [ingest.hub(source)]
    ingest.refuse(source, on_invalid)
    figures = {
        "rows": ingest.rows,
        "rejected": ingest.rejected,
        "noted": ingest.noted,
        "files": digests,
        "ignored": _capped(found.ignored),
        "source_sha256": digest([entry["sha256"] for entry in digests]),
        "bytes": sum(int(str(entry["bytes"])) for entry in digests),
    }
    logger.info("read %s rows, rejected %s, of %s files", f"{ingest.rows:,}", f"{ingest.rejected:,}", len(digests))
    return figures


def _capped(names: tuple[str, ...], most: int = 100) -> list[str]:
    return [*names[:most], *([f"… and {len(names) - most:,} more"] if len(names) > most else [])]


class _Ingest:
    """Writes rows and problems as they come, and keeps the counts; memory does not grow with the source."""

    def __init__(self, records: BinaryIO, problems: BinaryIO, limits: Limits, report: Report) -> None:
        self._records = records
        self._problems = problems
        self._limits = limits
        self._report = report
        self.rows = self.rejected = self.noted = 0
        self._rejections: list[Problem] = []
        self._unusable: list[Problem] = []

    def files(self, files: Sequence[DataFile]) -> list[dict[str, object]]:
        """Read files one after the other; return the name, digest and size of each."""
        before, total = 0, sum(file.size for file in files)
        digests = []
        for file in files:
            digests.append(self._file(file, before, total))
            before += file.size
        return digests

    def _file(self, file: DataFile, before: int, total: int) -> dict[str, object]:
        """Read one file; ``before`` of ``total`` bytes of the source are done."""
        sha256 = ""
        try:
            with file.open() as raw:
                sha256 = sha256_of(raw)
                raw.seek(0)
                for count in self._take(file.name, read_rows(raw, file.name, self._limits)):
                    self._report(Progress(done=min(before + raw.tell(), total), total=total, unit="bytes", text=f"{count:,} rows"))
        except ProoftuneError:
            raise  # ours are OSErrors too: a bucket that cannot be reached is no fault of the file
        except FileUnusable as error:
            self._refuse_file(file.name, error)
        except OSError as error:
            self._refuse_file(file.name, FileUnusable("unreadable", f"cannot be read: {error.strerror}"))
        return {"name": file.name, "sha256": sha256, "bytes": file.size}

    def hub(self, source: str) -> dict[str, object]:
        """Read a data set of the hub; its digest is taken over its rows, because it has no file of its own."""
        hashed, size = hashlib.sha256(), 0

        def rows() -> Rows:
            nonlocal size
            for number, row in read_hub(source, self._limits):
                hashed.update(row if isinstance(row, bytes) else row.code.encode())
                size += len(row) if isinstance(row, bytes) else 0
                yield number, row

        for count in self._take(source, rows()):
            self._report(Progress(done=count, total=count, unit="rows"))
        return {"name": source, "sha256": hashed.hexdigest(), "bytes": size}

    def _take(self, name: str, rows: Rows) -> Iterator[int]:
        """Write rows; yield their count now and then."""
        prefix = b'{"source":' + json.dumps(name, ensure_ascii=False).encode()[:-1] + b":"
        write = self._records.write
        with closing(rows):
            for seen, (number, row) in enumerate(rows, start=1):
                if isinstance(row, Flaw):
                    self._reject(Problem(f"{name}:{number}", row.reason, row.code))
                else:
                    if b"\xe2" in row and _BIDI_CONTROL.search(row):
                        self._note(f"{name}:{number}")
                    self.rows += 1
                    write(b'%b%d","fields":%b}\n' % (prefix, number, row))
                if seen % _REPORT_EVERY == 0:
                    yield self.rows
        yield self.rows

    def _reject(self, problem: Problem) -> None:
        self.rejected += 1
        if len(self._rejections) < _SHOWN_PROBLEMS:
            self._rejections.append(problem)
        self._write_finding(Finding(where=problem.where, code=problem.code, reason=problem.reason, action="dropped"))

    def _note(self, where: str) -> None:
        self.noted += 1
        reason = "holds a control character that changes the direction of text; what a reader sees may not be what is trained on"
        self._write_finding(Finding(where=where, code="bidi-control", reason=reason, action="kept"))

    def _refuse_file(self, name: str, error: FileUnusable) -> None:
        problem = Problem(f"{name}:{error.line}" if error.line else name, error.flaw.reason, error.flaw.code)
        self._unusable.append(problem)
        self._write_finding(Finding(where=problem.where, code=problem.code, reason=problem.reason, action="dropped"))

    def _write_finding(self, finding: Finding) -> None:
        self._problems.write(finding.model_dump_json().encode() + b"\n")

    def refuse(self, source: str, on_invalid: Literal["fail", "skip"]) -> None:
        """Raise for what must not be passed over."""
        problems = (*self._unusable, *self._rejections)
        if self._unusable:
            raise DataError(f"{len(self._unusable)} files of {source} cannot be read to their end; repair them or take them out:", problems)
        if not self.rows:
            rejected = f" that can be read ({self.rejected:,} rejected)" if self.rejected else ""
            raise DataError(f"{source} holds no records{rejected}", problems)
        if self.rejected and on_invalid == "fail":
            kept = f"; {len(problems):,} of them are listed" if self.rejected > len(problems) else ""
            raise DataError(
                f"{self.rejected:,} of {self.rows + self.rejected:,} rows of {source} are invalid{kept}."
                " Correct them, or set data.on_invalid: skip to go on without them:",
                problems,
            )
