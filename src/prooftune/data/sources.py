"""Where a source's files are: on disk (a file, a glob, a folder) or in a bucket. Nothing is read here but names.

A name that comes from a folder or bucket is only ever shown; a file outside the named folder is never followed to.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from prooftune.data.buckets import BucketFile, list_bucket
from prooftune.data.formats import format_of, known_formats
from prooftune.data.streams import FileUnusable, Limits
from prooftune.errors import DataError

_GLOB = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A data file on disk."""

    name: str
    """Relative to the folder that the source names, fit for messages."""
    size: int
    """Bytes, as listed."""
    path: Path

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open for reading; never blocks on a FIFO or device.

        Raises:
            FileUnusable: when it cannot be opened, is no regular file, or changes while it is being read.
        """
        try:
            raw = os.fdopen(os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0)
        except OSError as error:
            raise FileUnusable("unreadable", f"cannot be opened: {_strerror(error)}") from None
        with raw:
            before = os.fstat(raw.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise FileUnusable("unreadable", "is no regular file")
            yield raw
            after = os.fstat(raw.fileno()) if not raw.closed else self.path.stat()
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise FileUnusable("changed", "changed while it was being read; run again when nothing writes to it")


DataFile = LocalFile | BucketFile


@dataclass(frozen=True, slots=True)
class Found:
    """The files of a source."""

    files: tuple[DataFile, ...]
    """In the order of their names."""
    ignored: tuple[str, ...]
    """What lies beside them and is not read: name and why."""


def find_files(source: str, limits: Limits) -> Found:
    """List the data files of a path, glob, folder or ``s3://bucket/key-or-prefix``.

    Raises:
        DataError: when there is nothing, or nothing that can be read.
        StoreUnavailable, TransientError: when a bucket refuses or cannot be reached.
    """
    if source.startswith("s3://"):
        found = _in_bucket(source, limits)
    elif "://" in source:
        raise DataError(
            f"{source}: {source.split('://')[0]}:// is not known; a source is a path, a glob, s3://bucket/key or hf://owner/name"
        )
    else:
        found = _on_disk(source, limits)
    if not found.files:
        beside = f" (ignored: {'; '.join(found.ignored[:5])})" if found.ignored else ""
        raise DataError(f"{source} holds no data files{beside}; known are {known_formats()}")
    return found


def _on_disk(source: str, limits: Limits) -> Found:
    if not source or "\0" in source:
        raise DataError(f"{source!r} is not a path")
    path = Path(source)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno == errno.ENOENT and _GLOB & set(source):
            return _matching(path, limits)
        raise DataError(f"{shown(source)}: {_strerror(error)}") from None
    if stat.S_ISDIR(mode):
        return _sorted_out(path, _walk(path, limits), in_folder=True)
    if not stat.S_ISREG(mode):
        raise DataError(f"{shown(source)} is {_kind(mode)}; required is a regular file")
    if format_of(path.name) is None:
        raise DataError(f"{shown(source)}: the ending says no known format; known are {known_formats()}")
    return Found((LocalFile(shown(path.name), path.stat().st_size, path),), ())


def _matching(pattern: Path, limits: Limits) -> Found:
    fixed = 0
    while not _GLOB & set(pattern.parts[fixed]):
        fixed += 1
    root = Path(*pattern.parts[:fixed])
    try:
        # pathlib's ** does not go through links, so a loop of links ends.
        paths = [path for path in root.glob(str(Path(*pattern.parts[fixed:]))) if not path.is_dir()]
    except (OSError, ValueError) as error:
        raise DataError(f"{shown(str(pattern))} is not a usable pattern: {error}") from None
    if not paths:
        raise DataError(f"{shown(str(pattern))} matches no file")
    _refuse_many(len(paths), str(pattern), limits)
    return _sorted_out(root, paths, in_folder=False)


def _walk(root: Path, limits: Limits) -> list[Path]:
    """All paths below a folder but hidden ones, without following links to folders."""
    paths: list[Path] = []
    for folder, subfolders, names in os.walk(root, onerror=_raise_walk, followlinks=False):
        here = Path(folder)
        links = [name for name in subfolders if (here / name).is_symlink()]
        subfolders[:] = sorted(name for name in subfolders if name not in links and not name.startswith("."))
        paths += [here / name for name in (*names, *links) if not name.startswith(".")]
        _refuse_many(len(paths), str(root), limits)
    return paths


def _raise_walk(error: OSError) -> None:
    raise DataError(f"{shown(str(error.filename))}: {_strerror(error)}; make the folder readable or take it out of the source")


def _refuse_many(count: int, source: str, limits: Limits) -> None:
    if count > limits.files:
        raise DataError(f"{shown(source)} holds more than {limits.files:,} files; name a smaller folder or join files")


def _sorted_out(root: Path, paths: list[Path], *, in_folder: bool) -> Found:
    files: list[LocalFile] = []
    ignored: list[str] = []
    inside = root.resolve()
    for path in sorted(paths, key=lambda path: path.relative_to(root).parts):
        name = shown(path.relative_to(root).as_posix())
        reason = _why_not(path, inside)
        if reason:
            ignored.append(f"{name} ({reason})")
        else:
            files.append(LocalFile(name, path.stat().st_size, path))
    if in_folder:
        files, texts = _without_notes(files)
        ignored += texts
    return Found(tuple(files), tuple(sorted(ignored)))


def _why_not(path: Path, inside: Path) -> str:
    try:
        mode = path.stat().st_mode
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: pathlib's word for a loop of links before Python 3.13
        return _strerror(error)
    if path.is_symlink() and stat.S_ISDIR(mode):
        return "a link to a folder"
    if not real.is_relative_to(inside):
        return "a link that leaves the folder"
    if not stat.S_ISREG(mode):
        return _kind(mode)
    if format_of(path.name) is None:
        return "no data format"
    return "" if path.stat().st_size else "empty"


def _without_notes(files: list[LocalFile]) -> tuple[list[LocalFile], list[str]]:
    """In a folder, plain text is data only where there is nothing else: beside data files it is a README or a licence."""
    data = [file for file in files if not file.name.lower().endswith((".txt", ".txt.gz", ".txt.zst"))]
    if not data:
        return files, []
    return data, [f"{file.name} (text beside data files)" for file in files if file not in data]


def _in_bucket(source: str, limits: Limits) -> Found:
    files: list[BucketFile] = []
    ignored: list[str] = []
    for file in list_bucket(source):
        if format_of(file.key) and file.size:
            files.append(replace(file, name=shown(file.name)))
        else:
            ignored.append(f"{shown(file.name)} ({'empty' if format_of(file.key) else 'no data format'})")
        _refuse_many(len(files) + len(ignored), source, limits)
    return Found(tuple(sorted(files, key=lambda file: file.name)), tuple(sorted(ignored)))


def shown(name: str) -> str:
    """A file name fit for messages and JSON: valid UTF-8, nothing that is not printable."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _strerror(error: OSError | RuntimeError) -> str:
    number = error.errno if isinstance(error, OSError) else errno.ELOOP
    known = {
        errno.ENOENT: "there is no such file",
        errno.ELOOP: "a link that leads back to itself",
        errno.EACCES: "permission denied",
        errno.ENOTDIR: "a part of the path is no folder",
        errno.ENAMETOOLONG: "the name is too long",
    }
    return known.get(number or 0, os.strerror(number) if number else str(error))


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFDIR: "a folder",
    }
    return kinds.get(stat.S_IFMT(mode), "no regular file")
