"""A local or shared folder as an object store: an object is a file, its version is its SHA-256."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from prooftune.errors import StoreUnavailable, TransientError
from prooftune.storage import disk, objects
from prooftune.types import ArtifactRef

_LOCK_TIMEOUT = 60.0
"""Seconds to wait for another process's rename; it holds the lock for milliseconds."""
log = logging.getLogger(__name__)


class LocalStore:
    """Objects are files below a folder, named by their keys.

    Bytes go to a temporary file first, are flushed to the disk and renamed. Every change of a name happens under one lock
    on the folder, which is what makes the conditions of conditional writes hold between processes.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self._swept = False

    @property
    def uri(self) -> str:
        """The folder."""
        return str(self.root)

    def check(self) -> None:
        """Prove, by a write, that the folder can be used."""
        with disk.refusals(self.root, "write"), disk.temporary(self.root, [b"prooftune"]), self._lock():
            pass

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises NoSuchObject."""
        with self._reading(key) as path:
            return path.read_bytes()

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """Write an object atomically and return its version. Raises AlreadyThere and VersionChanged."""
        return self._write(key, [data], len(data), if_absent=if_absent, if_match=if_match)

    def version(self, key: str) -> str | None:
        """SHA-256 of the content; None = no such object."""
        path = self._path(key)
        with disk.refusals(self.root, f"read {key}"):
            return disk.sha256_of(path) if path.is_file() else None

    def exists(self, key: str) -> bool:
        """Whether the key holds an object."""
        with disk.refusals(self.root, f"look for {key}"):
            return self._path(key).is_file()

    def list(self, prefix: str = "") -> Iterator[str]:
        """Keys that start with ``prefix``, in code point order."""
        folder = self.root / objects.check_prefix(prefix).rpartition("/")[0]
        names = (path.relative_to(self.root).as_posix() for path in folder.rglob("*") if path.is_file())
        with disk.refusals(self.root, f"list {prefix}"):
            return iter(sorted(name for name in names if name.startswith(prefix) and objects.is_key(name)))

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is fine."""
        path = self._path(key)
        with disk.refusals(self.root, f"delete {key}"):
            if path.exists():
                with self._lock():
                    disk.remove(path)

    def upload(self, path: Path, key: str) -> ArtifactRef:
        """Copy a file into the store, unless the same content is there. Raises IntegrityError when the file changes meanwhile."""
        ref = ArtifactRef(key=key, sha256=disk.sha256_of(path), size=path.stat().st_size)
        if self.version(key) == ref.sha256:
            return ref
        self._write(key, disk.chunks_of(path, ref.sha256), ref.size)
        return ref

    def measure(self, key: str) -> ArtifactRef:
        """Size and SHA-256 of what is stored, found by reading all of it. Raises NoSuchObject."""
        with self._reading(key) as path:
            return ArtifactRef(key=key, sha256=disk.sha256_of(path), size=path.stat().st_size)

    def fetch(self, ref: ArtifactRef) -> Path:
        """The stored file itself, verified. Raises NoSuchObject and IntegrityError."""
        found = self.measure(ref.key)
        if found.sha256 != ref.sha256:
            raise objects.mismatch(self.uri, ref, found.sha256)
        return self._path(ref.key)

    def work_dir(self) -> Path:
        """The folder ``work`` below the store's."""
        with disk.refusals(self.root, "make a folder"):
            disk.make_folder(self.root / objects.WORK)
        return self.root / objects.WORK

    def _path(self, key: str) -> Path:
        path = self.root / objects.check_key(key)
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.root)):
            raise StoreUnavailable(f"{path} leads out of the store through a symbolic link; remove the link")
        return path

    @contextmanager
    def _reading(self, key: str) -> Iterator[Path]:
        path = self._path(key)
        with disk.refusals(self.root, f"read {key}"):
            if not path.is_file():
                raise objects.missing(self.uri, key)
            yield path

    def _write(
        self,
        key: str,
        chunks: Iterable[bytes],
        size: int,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> str:
        path = self._path(key)
        with disk.refusals(self.root, f"write {key}"):
            self._sweep_once()
            disk.require_space(self.root, size)
            with disk.temporary(self.root, chunks) as written, self._lock():
                if if_absent and path.exists():
                    raise objects.already_there(self.uri, key)
                if if_match is not None and self.version(key) != if_match:
                    raise objects.version_changed(self.uri, key)
                disk.move_into_place(written, path)
        return written.sha256

    @contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            # Without flock a lock file would outlive a killed process, so such a file system is refused, not worked around.
            with FileLock(self.root / ".lock", timeout=_LOCK_TIMEOUT, poll_interval=0.01, fallback_to_soft=False):
                yield
        except Timeout:
            raise TransientError(f"another process has held {self.root / '.lock'} for {_LOCK_TIMEOUT:.0f} s; try again") from None

    def _sweep_once(self) -> None:
        if not self._swept:
            self._swept = True
            if removed := disk.sweep(self.root):
                log.info("removed %d unfinished files of dead processes from %s", removed, self.root)
