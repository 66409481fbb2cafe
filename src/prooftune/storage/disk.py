"""Files that are either whole or absent: what the local store and the S3 cache are written with."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prooftune.errors import IntegrityError, ProoftuneError, StoreUnavailable

CHUNK = 1 << 20
"""Bytes read or written at a time."""
TEMPORARY = ".tmp"
"""Folder, below a store's root, of files that are still being written. One place, so that leftovers are found without a walk."""
LEFTOVER_AGE = 24 * 3600.0
"""Seconds without a write after which a temporary file belongs to a process that died."""


@dataclass(frozen=True, slots=True)
class Written:
    """A temporary file that is complete and on the disk."""

    path: Path
    sha256: str
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class InParts:
    """A file that is sent in parts, with the digests it had when it was first read."""

    path: Path
    sha256: str
    parts: tuple[bytes, ...]
    """SHA-256 of each part; at least one, also for an empty file."""
    part_size: int
    """Bytes of every part but the last."""

    def read_part(self, number: int) -> bytes:
        """The bytes of a part, counted from 1. Raises IntegrityError when they are no longer those of the digest."""
        with self.path.open("rb") as file:
            file.seek((number - 1) * self.part_size)
            data = file.read(self.part_size)
        if hashlib.sha256(data).digest() != self.parts[number - 1]:
            raise _changed_meanwhile(self.path)
        return data


def read_in_parts(path: Path, part_size: int) -> InParts:
    """Digest a file and its parts in one reading."""
    whole, parts = hashlib.sha256(), list[bytes]()
    with path.open("rb") as file:
        while (data := file.read(part_size)) or not parts:
            whole.update(data)
            parts.append(hashlib.sha256(data).digest())
    return InParts(path, whole.hexdigest(), tuple(parts), part_size)


def sha256_of(path: Path) -> str:
    """SHA-256 hex of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def chunks_of(path: Path, sha256: str) -> Iterator[bytes]:
    """The content of a file, a piece at a time. Raises IntegrityError at its end when it is not that of the digest."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
            yield chunk
    if found.hexdigest() != sha256:
        raise _changed_meanwhile(path)


@contextmanager
def temporary(root: Path, chunks: Iterable[bytes]) -> Iterator[Written]:
    """Write chunks to a temporary file below ``root`` and flush it to the disk; it is gone at the end unless it was moved into place."""
    folder = root / TEMPORARY
    make_folder(folder)
    path = folder / f"{os.getpid()}-{uuid.uuid4().hex}"
    sha256, size = hashlib.sha256(), 0
    try:
        with path.open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
                sha256.update(chunk)
                size += len(chunk)
            file.flush()
            os.fsync(file.fileno())
        yield Written(path, sha256.hexdigest(), size)
    finally:
        path.unlink(missing_ok=True)


def move_into_place(written: Written, target: Path) -> None:
    """Make a temporary file visible under its name, atomically and durably: a crash leaves either the old file or the new one."""
    make_folder(target.parent)
    written.path.replace(target)
    _flush_folder(target.parent)


def make_folder(folder: Path) -> None:
    """Create a folder and those above it, each entry flushed to the disk: a file is only as durable as the path to it."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _flush_folder(folder.parent)


def remove(path: Path) -> None:
    """Remove a file durably; one that is not there is fine."""
    path.unlink(missing_ok=True)
    if path.parent.is_dir():
        _flush_folder(path.parent)


def sweep(root: Path) -> int:
    """Remove temporary files that no living process can still be writing, and return how many there were."""
    folder, removed = root / TEMPORARY, 0
    if not folder.is_dir():
        return 0
    for path in folder.iterdir():
        try:
            if time.time() - path.stat().st_mtime > LEFTOVER_AGE:
                path.unlink()
                removed += 1
        except FileNotFoundError:
            continue  # another process moved or swept it
    return removed


def require_space(folder: Path, size: int) -> None:
    """Refuse a write that cannot fit, before it fills the disk for everyone else.

    Raises:
        StoreUnavailable: when fewer than ``size`` bytes are free.
    """
    free = free_bytes(folder)
    if free < size:
        raise StoreUnavailable(f"{folder} has {free:,} bytes free and {size:,} are to be written; free some space, or use another disk")


def free_bytes(folder: Path) -> int:
    """Bytes that an ordinary user may still write where ``folder`` is or will be."""
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    return shutil.disk_usage(existing).free


@contextmanager
def refusals(root: Path, doing: str) -> Iterator[None]:
    """Turn what the operating system refuses into a StoreUnavailable that says what to do about it."""
    try:
        yield
    except ProoftuneError:
        raise  # ours are OSErrors too, and already say it
    except OSError as error:
        raise StoreUnavailable(f"cannot {doing} in {root}: {_advice(error, root)}") from error


def _advice(error: OSError, root: Path) -> str:
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{reason} ({free_bytes(root):,} bytes free); free some space, or use another disk. What was there before is intact"
    if error.errno == errno.EFBIG:
        return f"{reason}: above this process's file size limit; raise it (ulimit -f). What was there before is intact"
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return f"{error.filename}: {reason}; a file stands where a folder is needed, or the reverse. Move it away, or use another folder"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error.filename or root}: {reason}; make the folder writable for this user, or use one that is"
    return f"{error.filename or root}: {reason}"


def _changed_meanwhile(path: Path) -> IntegrityError:
    return IntegrityError(f"{path} changed while it was uploaded; let what writes it finish, then run the command again")


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of_folder(folder: Path) -> str:
    """Return the SHA-256 over the relative names and contents of all files below a folder, in the order of their names."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(f"{path.relative_to(folder).as_posix()} {sha256_of(path)}\n".encode())
    return found.hexdigest()
