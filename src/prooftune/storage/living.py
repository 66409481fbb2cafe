"""That a process lives, as others on its machine see it: a lock on a file, which the operating system lets go of however the process ends.

It knows at once what a lease shows after a quarter of an hour. Of a process on another machine it knows nothing.
"""

from __future__ import annotations

import fcntl
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prooftune.storage import disk
from prooftune.storage.objects import ObjectStore


@contextmanager
def shown_alive(store: ObjectStore, key: str) -> Iterator[None]:
    """Show until the block ends that the process lives which writes ``key``; it is written in the block, and by no other process.

    Raises:
        StoreUnavailable: the folder for unfinished work cannot be written, or its file system has no locks.
    """
    path = _path(store, key)
    with disk.refusals(path.parent, "make a file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("wb")
    with file:
        with disk.refusals(path.parent, "lock a file"):
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            forget(store, key)  # before it is unlocked: whoever looks meanwhile must not take the process for dead


def known_dead(store: ObjectStore, key: str) -> bool:
    """Return whether the process that wrote ``key`` has ended; False = it lives, or nobody here can tell."""
    try:
        with _path(store, key).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: several may look at once
    except OSError:  # locked, or without a file: it runs here, or ran on another machine
        return False
    return True


def forget(store: ObjectStore, key: str) -> None:
    """Delete what tells whether a process lives, once nobody asks for it any more."""
    with suppress(OSError):  # an empty file that stays harms nobody
        _path(store, key).unlink(missing_ok=True)


def _path(store: ObjectStore, key: str) -> Path:
    """A file of this machine's own: the folder may be shared over a network, whose locks other machines need not see."""
    return store.work_dir() / "living" / platform.node() / key.replace("/", "-")
