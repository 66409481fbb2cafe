"""What a file's bytes hold: one generator a format, each yielding a line number and a row or the flaw that rejects it.

Line numbers are 1-based physical lines (for CSV the line a row starts on, for Parquet the row). Memory is bounded by ``Limits``.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Generator, Iterator
from typing import Any, BinaryIO

from prooftune.data.rows import encode_object, parse_object
from prooftune.data.streams import FileUnusable, Flaw, Limits, LongLine, Readable, bounded_lines, open_text

Rows = Generator[tuple[int, bytes | Flaw]]
"""Line numbers with compact JSON objects, or with the flaw that rejects the row."""

_COMPRESSIONS = (".gz", ".zst")
_ARRAY_TOKEN = re.compile(rb'["\[\]{},]|\\.', re.DOTALL)
_CHUNK = 1 << 20


def format_of(name: str) -> tuple[str, str] | None:
    """Format and compression by a file's name: ``a.jsonl.gz`` → ``(".jsonl", ".gz")``; None for a file that holds no data."""
    name = name.lower()
    compression = next((end for end in _COMPRESSIONS if name.endswith(end)), "")
    stem = name.removesuffix(compression)
    ending = next((end for end in FORMATS if stem.endswith(end)), None)
    if ending is None or (compression and ending == ".parquet"):
        return None
    return ending, compression


def read_rows(raw: BinaryIO, name: str, limits: Limits) -> Rows:
    """Read the rows of an open file whose name says its format.

    Raises:
        FileUnusable: when the file as a whole cannot be read, or not beyond some point.
    """
    kind = format_of(name)
    if kind is None:
        raise FileUnusable("unknown-format", f"is none of {known_formats()}")
    ending, compression = kind
    return FORMATS[ending](raw, compression, limits)


def known_formats() -> str:
    """The endings that are read, for messages."""
    return f"{', '.join(FORMATS)} (each but .parquet also with {' or '.join(_COMPRESSIONS)})"


def read_json_lines(raw: BinaryIO, compression: str, limits: Limits) -> Rows:
    """Read one JSON object a line; blank lines are skipped."""
    return _objects(open_text(raw, compression, limits), limits)


def _objects(stream: Readable, limits: Limits) -> Rows:
    for number, line in bounded_lines(stream, limits.line_bytes):
        if isinstance(line, LongLine):
            yield number, line.flaw()
        elif not line.isspace():
            yield number, parse_object(line, limits.depth)


def read_text_lines(raw: BinaryIO, compression: str, limits: Limits) -> Rows:
    """Read one ``{"text": …}`` a line; blank lines are skipped."""
    for number, line in bounded_lines(open_text(raw, compression, limits), limits.line_bytes):
        if isinstance(line, LongLine):
            yield number, line.flaw()
        elif not line.isspace():
            try:
                yield number, encode_object({"text": line.rstrip(b"\r\n").decode()})
            except UnicodeDecodeError as error:
                yield number, Flaw("not-utf-8", f"is not UTF-8 at byte {error.start + 1}; save the file as UTF-8")


def read_json(raw: BinaryIO, compression: str, limits: Limits) -> Rows:
    """Read a JSON array of objects element by element, or, where the file does not start with ``[``, JSON lines."""
    stream = open_text(raw, compression, limits)
    head = stream.peek(_CHUNK).lstrip()
    if (head.startswith(b"{") and head.split(b"\n", 1)[0].strip() in (b"{", b"")) or head.startswith(b"{\r"):
        raise FileUnusable("wrong-type", "holds one JSON object over several lines; required is a list of objects, or one object a line")
    if not head.startswith(b"["):
        yield from _objects(stream, limits)
        return
    for number, element in _array_elements(stream.read, limits.line_bytes):
        yield number, element if isinstance(element, Flaw) else parse_object(element, limits.depth)


def _array_elements(read: Callable[[int], bytes], limit: int) -> Iterator[tuple[int, bytes | Flaw]]:
    """Split a JSON array into the bytes of its elements, by brackets and quotes alone: broken elements stay apart."""
    depth, in_string, line = 0, False, 1
    element = _Element(limit)
    while chunk := read(_CHUNK):
        while chunk.endswith(b"\\") and (more := read(1)):  # an escape must not be torn
            chunk += more
        start = 0
        for match in _ARRAY_TOKEN.finditer(chunk):
            token = match[0]
            if token == b'"':
                in_string = not in_string
            elif in_string or len(token) == 2:
                continue
            elif token in b"[{":
                depth += 1
                if depth == 1:
                    line += chunk.count(b"\n", start, match.start())
                    start = match.end()
            elif (depth == 1 and token in b",]}") or (token in b"]}" and depth == 0):
                line = element.add(chunk[start : match.start()], line)
                start = match.end()
                yield from element.take(required=token == b",")
                depth -= token != b","
                if depth <= 0:
                    yield from _trailing(chunk[start:] + read(_CHUNK), line)
                    return
            elif token in b"]}":
                depth -= 1
        line = element.add(chunk[start:], line)
    raise FileUnusable("truncated-file", "the list is never closed with ]: the file is cut off, or a quote is missing before", line)


def _trailing(rest: bytes, line: int) -> Rows:
    if rest.strip():
        yield line, Flaw("trailing-text", "has text after the end of the list, which was not read")


class _Element:
    """The bytes of one array element as they come in, never more than the limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._length = 0
        self._line = 0

    def add(self, part: bytes, line: int) -> int:
        """Take more bytes, which start on ``line``; return the line they end on."""
        if not self._line and (lead := part.lstrip()):
            line += part.count(b"\n", 0, len(part) - len(lead))
            self._line, part = line, lead
        elif not self._line:
            return line + part.count(b"\n")
        self._length += len(part)
        if self._length <= self._limit:
            self._parts.append(part)
        else:
            self._parts.clear()
        return line + part.count(b"\n")

    def take(self, *, required: bool) -> Iterator[tuple[int, bytes | Flaw]]:
        """Yield what was gathered and start anew; nothing at all between two commas is a flaw."""
        if self._length > self._limit:
            yield self._line, Flaw("oversized-row", f"the element has {self._length:,} bytes; a row may have at most {self._limit:,}")
        elif self._parts:
            yield self._line, b"".join(self._parts) + b"\n"
        self._parts, self._length, self._line = [], 0, 0


class _CsvLines:
    """Text lines for the CSV reader; lines it must not see whole are replaced, and their flaws remembered."""

    def __init__(self, raw: BinaryIO, compression: str, limits: Limits) -> None:
        self.stream = open_text(raw, compression, limits)
        self._lines = bounded_lines(self.stream, limits.line_bytes)
        self.flaw: Flaw | None = None

    def __iter__(self) -> Iterator[str]:
        for _, line in self._lines:
            if isinstance(line, LongLine):
                self.flaw = line.flaw()
                # A lone quote stands in for the quotes that were skipped, so that the rows after this one are read right.
                yield ('"' if line.odd_quotes != line.head.count(b'"') % 2 else "") + "\n"
                continue
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                self.flaw = Flaw("not-utf-8", f"is not UTF-8 at byte {error.start + 1} of a line; save the file as UTF-8")
                text = line.decode(errors="replace")
            yield text

    def take_flaw(self) -> Flaw | None:
        """The flaw of the lines since the last call."""
        flaw, self.flaw = self.flaw, None
        return flaw


def read_csv(raw: BinaryIO, compression: str, limits: Limits, delimiter: str | None = None) -> Rows:
    """Read a table with a header (RFC 4180, UTF-8); the delimiter is the commonest of comma, semicolon and tab in the header.

    All values are strings. A row with more or fewer fields than the header is a flaw.
    """
    lines = _CsvLines(raw, compression, limits)
    header_bytes = lines.stream.peek(_CHUNK).split(b"\n", 1)[0]
    delimiter = delimiter or max(",;\t", key=lambda mark: header_bytes.count(mark.encode()))
    rows = _csv_rows(lines, delimiter, limits.line_bytes)
    names = _header(rows)
    for number, row in rows:
        if isinstance(row, Flaw):
            yield number, row
        elif len(row) != len(names):
            yield number, Flaw("ragged-row", f"has {len(row)} fields; the header has {len(names)}. Quote fields that hold {delimiter!r}")
        else:
            yield number, encode_object(dict(zip(names, row, strict=True)))


def _csv_rows(lines: _CsvLines, delimiter: str, limit: int) -> Iterator[tuple[int, list[str] | Flaw]]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    # The limit is the module's, not the reader's: put it back even when the generator is closed early.
    before = csv.field_size_limit(limit)
    try:
        while True:
            number = reader.line_num + 1
            row: list[str] | Flaw
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                row = _csv_flaw(error, reader.line_num, number, limit)
            flaw = lines.take_flaw()
            if flaw or row:
                yield number, flaw or row
    finally:
        csv.field_size_limit(before)


def _csv_flaw(error: csv.Error, last: int, first: int, limit: int) -> Flaw:
    text = str(error)
    if text.startswith("field larger"):
        return Flaw(
            "oversized-row",
            f"a field runs over {limit:,} characters, to line {last}: is a quote not closed?",
        )
    if text.startswith("unexpected end"):
        return Flaw("broken-line", f"a quote is not closed by the end of the file; lines {first}-{last} are dropped")
    return Flaw("broken-line", f"is not CSV: {text.split(' - ')[0]}")


def _header(rows: Iterator[tuple[int, list[str] | Flaw]]) -> list[str]:
    number, names = next(rows, (1, []))
    if isinstance(names, Flaw):
        raise FileUnusable(names.code, f"the header {names.reason}", number)
    names = [name.strip() for name in names]
    if names and not all(names):
        raise FileUnusable("bad-header", f"column {names.index('') + 1} has no name; the first line must name every column", number)
    if repeated := next((i + 1 for i, name in enumerate(names) if name in names[:i]), None):
        raise FileUnusable("bad-header", f"column {repeated} has the name of one before it; name every column differently", number)
    return names


def read_tsv(raw: BinaryIO, compression: str, limits: Limits) -> Rows:
    """Read a table as :func:`read_csv` does, with tabs between fields."""
    return read_csv(raw, compression, limits, delimiter="\t")


def read_parquet(raw: BinaryIO, compression: str, limits: Limits) -> Rows:
    """Read a Parquet file in batches of 256 rows; NaN is read as null."""
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    number = 0
    try:
        table = pq.ParquetFile(raw)
        _refuse_parquet(table, limits)
        for batch in table.iter_batches(batch_size=256):
            for row in batch.to_pylist():
                number += 1
                data = encode_object(row)
                if isinstance(data, bytes) and len(data) > limits.line_bytes:
                    data = Flaw("oversized-row", f"the row has {len(data):,} bytes; a row may have at most {limits.line_bytes:,}")
                yield number, data
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:
        raise FileUnusable("broken-parquet", f"is no readable Parquet file ({str(error).splitlines()[0][:120]})", number + 1) from None


def _refuse_parquet(table: Any, limits: Limits) -> None:
    schema = table.schema_arrow
    names = [field.name for field in schema]
    if len(set(names)) != len(names):
        raise FileUnusable("bad-header", "two columns have one name; name every column differently")
    if binary := [field.name for field in schema if "binary" in str(field.type)]:
        raise FileUnusable("wrong-type", f"column {binary[0]!r} holds bytes, not text; drop it")
    metadata = table.metadata
    if (size := sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))) > limits.expanded_bytes:
        raise FileUnusable("expands-too-far", f"the file expands to {size:,} bytes, more than {limits.expanded_bytes:,}; split it")


FORMATS: dict[str, Callable[[BinaryIO, str, Limits], Rows]] = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
    ".txt": read_text_lines,
}
