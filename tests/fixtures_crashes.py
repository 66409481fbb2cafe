"""Processes that die at a write to the object store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prooftune.storage.objects import ObjectStore


class Crash(BaseException):
    """The process dies: nothing that catches errors catches this."""


@dataclass
class CrashingStore:
    """An object store whose process dies at the ``at``-th write: before it reaches the store, or after."""

    store: ObjectStore
    at: int
    after: bool
    writes: int = 0
    crashed: bool = False

    def put(self, key: str, data: bytes, **conditions: Any) -> str:
        """Write, or die."""
        self.writes += 1
        if self.writes == self.at:
            self.crashed = True
            if self.after:
                self.store.put(key, data, **conditions)
            raise Crash
        return self.store.put(key, data, **conditions)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)
