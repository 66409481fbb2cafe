"""Byte streams that stay bounded whatever a file holds: expansion of compressed files, and lines of any length."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, Protocol

UTF8_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what a source may hold; beyond them a row is rejected or a file refused."""

    line_bytes: int = 1 << 20
    """Longest row, in bytes; a longer one is skipped without being held in memory."""
    depth: int = 64
    """Deepest nesting of objects and lists in a row (pydantic's JSON parser stops at 200)."""
    expansion: int = 200
    """Largest ratio of expanded to compressed bytes, looked at past ``expansion_floor`` (text reaches 5-30; deflate can do 1,032)."""
    expansion_floor: int = 64 << 20
    """Expanded bytes below which the ratio is not looked at."""
    expanded_bytes: int = 256 << 30
    """Most bytes that one compressed file may expand to."""
    files: int = 100_000
    """Most files of one source."""


class Flaw(NamedTuple):
    """Why a row is rejected: a kebab-case code and one sentence without the row's text."""

    code: str
    reason: str


class FileUnusable(ValueError):
    """A file as a whole cannot be read; carries the flaw and, where known, the line it begins at."""

    def __init__(self, code: str, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.flaw = Flaw(code, reason)
        self.line = line


@dataclass(frozen=True, slots=True)
class LongLine:
    """What is kept of a line over the limit."""

    head: bytes
    """Its first ``Limits.line_bytes`` bytes."""
    length: int
    """Its whole length in bytes."""
    odd_quotes: bool
    """Whether the part that was skipped holds an odd number of ``"``, so that a CSV reader can keep step."""

    def flaw(self) -> Flaw:
        """The flaw that rejects it."""
        return Flaw("oversized-row", f"the line has {self.length:,} bytes; a row may have at most {len(self.head):,}")


def sha256_of(raw: BinaryIO) -> str:
    """SHA-256 hex of what is left of an open file."""
    return hashlib.file_digest(raw, "sha256").hexdigest()  # type: ignore[arg-type]  # wants only readinto


class Readable(Protocol):
    """What is needed of a stream of bytes: ``io.BufferedReader`` and ``io.BytesIO`` have it."""

    def read(self, size: int, /) -> bytes:
        """Up to so many bytes; empty at the end."""
        ...

    def readline(self, size: int, /) -> bytes:
        """Up to and with the next newline, at most so many bytes; empty at the end."""
        ...


def bounded_lines(stream: Readable, limit: int) -> Iterator[tuple[int, bytes | LongLine]]:
    """Yield 1-based line numbers and lines with their line end, holding no more than ``limit`` bytes of any."""
    readline = stream.readline
    for number in itertools.count(1):
        line = readline(limit + 1)
        if not line:
            return
        if len(line) > limit and not line.endswith(b"\n"):
            yield number, _skip_rest(stream, line, limit)
        else:
            yield number, line


def _skip_rest(stream: Readable, start: bytes, limit: int) -> LongLine:
    length, quotes = len(start), start[limit:].count(b'"')
    while piece := stream.readline(limit):
        length += len(piece)
        quotes += piece.count(b'"')
        if piece.endswith(b"\n"):
            break
    return LongLine(start[:limit], length, bool(quotes % 2))


class Expanded(io.RawIOBase):
    """The expanded bytes of a file: stops at a bomb, reports damage as :class:`FileUnusable`, never closes the file itself."""

    def __init__(self, raw: BinaryIO, compression: str, limits: Limits) -> None:
        self._raw = raw
        self._expanded = _expand(raw, compression)
        self._limits = limits
        self._count = 0

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with expanded bytes; 0 at the end."""
        try:
            data = self._expanded.read(len(buffer))
        except EOFError:
            raise FileUnusable(
                "truncated-file", f"the compressed file breaks off after {self._count:,} expanded bytes; get it again"
            ) from None
        except (gzip.BadGzipFile, ValueError, zlib.error) as error:
            raise FileUnusable("broken-compression", f"the compressed data are damaged ({error}); get the file again") from None
        except OSError as error:
            raise FileUnusable("unreadable", f"cannot be read: {error.strerror or error}") from None
        buffer[: len(data)] = data
        self._count += len(data)
        self._refuse_bombs()
        return len(data)

    def _refuse_bombs(self) -> None:
        limits, read = self._limits, max(self._raw.tell(), 1)
        if self._count > limits.expansion_floor and self._count > limits.expansion * read:
            ratio = self._count // read
            reason = f"the file expands {ratio} times, more than {limits.expansion}; decompress it yourself if it is meant"
            raise FileUnusable("expands-too-far", reason)
        if self._expanded is not self._raw and self._count > limits.expanded_bytes:
            raise FileUnusable("expands-too-far", f"the file expands to more than {limits.expanded_bytes:,} bytes; split it")


def open_text(raw: BinaryIO, compression: str, limits: Limits) -> io.BufferedReader[Expanded]:
    """Open the (expanded) bytes of a text file after its byte order mark.

    Args:
        raw: The file as it lies on disk.
        compression: ``""``, ``".gz"`` or ``".zst"``.
        limits: Caps on expansion.

    Raises:
        FileUnusable: for UTF-16 or UTF-32, whose byte order mark is seen; while reading, for damage and bombs.
    """
    stream = io.BufferedReader(Expanded(raw, compression, limits), 1 << 20)
    head = stream.peek(4)[:4]
    if head.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")):
        raise FileUnusable("not-utf-8", "the file is UTF-16 or UTF-32, by its first bytes; save it as UTF-8")
    if head.startswith(UTF8_BOM):
        stream.read(len(UTF8_BOM))
    return stream


def _expand(raw: BinaryIO, compression: str) -> BinaryIO:
    if not compression:
        return raw
    if compression == ".gz":
        return gzip.GzipFile(fileobj=raw, mode="rb")  # type: ignore[return-value]  # a GzipFile reads as a BinaryIO does
    import pyarrow as pa  # type: ignore[import-untyped]

    # Arrow closes the file that it is given, so it gets a handle of its own; both share one position.
    return pa.CompressedInputStream(pa.PythonFile(os.fdopen(os.dup(raw.fileno()), "rb", buffering=0), mode="r"), "zstd")  # type: ignore[no-any-return]
