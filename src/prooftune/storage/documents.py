"""One small JSON document, changed by compare-and-swap: read, change, write, and again where somebody else came between."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from pydantic import ValidationError

from prooftune.errors import IntegrityError, TransientError
from prooftune.storage.objects import AlreadyThere, NoSuchObject, ObjectStore, VersionChanged
from prooftune.types import Frozen

ATTEMPTS = 100
"""Each lost race means that another process has won one, so this many processes may change a document at once."""
_LONGEST_PAUSE_S = 0.2

Document = TypeVar("Document", bound=Frozen)


def read_document(store: ObjectStore, key: str, empty: Document) -> tuple[Document, str | None]:
    """Return a document and its version; one that is not there is ``empty`` and has none. Raises IntegrityError where it is damaged."""
    # The version is taken before the content: should it change in between, the swap fails instead of losing the change.
    version = store.version(key)
    if version is None:
        return empty, None
    try:
        return type(empty).model_validate_json(store.get(key)), version
    except NoSuchObject:
        return empty, None
    except ValidationError as error:
        kind = type(empty).__name__
        raise IntegrityError(f"{store.uri}: {key} is no {kind} ({error.error_count()} problems); restore it from a copy") from None


def change_document(store: ObjectStore, key: str, empty: Document, step: Callable[[Document], Document]) -> Document:
    """Change a document, which is ``empty`` where it is not there yet. Returns and raises as ``swap``."""
    return swap(store, key, lambda: read_document(store, key, empty), step)


def swap(store: ObjectStore, key: str, read: Callable[[], tuple[Document, str | None]], step: Callable[[Document], Document]) -> Document:
    """Read, change and write a document until nobody came between, and return it as it then is.

    Args:
        store: Where it is.
        key: Of the document.
        read: Returns it and its version; the version is None where it is not there yet.
        step: Makes the change, and may be asked several times; it returns what it got to change nothing.

    Raises:
        TransientError: others kept changing it, or the store's answer got lost and the change is not there.
        IntegrityError: the document is damaged.
    """
    for attempt in range(ATTEMPTS):
        before, version = read()
        after = step(before)
        if after == before:
            return before
        try:
            store.put(key, as_bytes(after), if_absent=version is None, if_match=version)
        except (AlreadyThere, VersionChanged):
            time.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.005 * 2**attempt)))  # noqa: S311 - jitter is no secret
        except TransientError:
            # The answer got lost, not necessarily the write.
            if read()[0] != after:
                raise
            return after
        else:
            return after
    raise TransientError(f"{key} in {store.uri} was changed by others {ATTEMPTS} times in a row; try again")


def as_bytes(document: Frozen) -> bytes:
    """Return a document as it is stored."""
    return (document.model_dump_json(indent=1) + "\n").encode()
