"""One protocol for everything that must last: a local folder or S3, by URI.

Two conditional writes are all the coordination there is: create-if-absent and compare-and-swap. With them several workers
on several hosts share a store without another server. An object is visible whole or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from prooftune.errors import IntegrityError, Problem, ProoftuneError, SpecError
from prooftune.spec import Store
from prooftune.storage.s3_client import environment_endpoint
from prooftune.types import ArtifactRef

WORK = "work"
"""First segment that no key may have: a local store keeps the stages' working files there."""
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=+@-]{0,199}")
_LONGEST_KEY = 700
"""S3 allows 1,024 bytes, and the store's prefix needs some of them."""
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class NoSuchObject(ProoftuneError, FileNotFoundError):
    """The store holds nothing under this key."""


class AlreadyThere(ProoftuneError, FileExistsError):
    """A create-if-absent came second: the key is taken, and its content is untouched."""


class VersionChanged(ProoftuneError, RuntimeError):
    """A compare-and-swap came second: the object is no longer the version that was read."""


class InvalidKey(ProoftuneError, ValueError):
    """A name is not fit to be a key: it could leave the store or collide with the store's own files."""


class ObjectStore(Protocol):
    """Named bytes that last. Keys are relative, ``/``-separated and checked by ``check_key``.

    Every method raises StoreUnavailable when the store refuses (a wrong key, no such bucket, a full or read-only disk),
    TransientError when another try may help, and InvalidKey for a key outside the allow-list.
    """

    @property
    def uri(self) -> str:
        """Where the store is, as it can be shown: it never holds a secret."""

    def check(self) -> None:
        """Prove, by a write, that the store can be used and honours conditional writes."""

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises NoSuchObject."""

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """Write a small object atomically and return its version.

        Raises:
            AlreadyThere: ``if_absent``, and the key is taken.
            VersionChanged: ``if_match``, and the object is gone or has another version.
            TransientError: also when the outcome is unknown (the connection broke while the answer was due): read before trying again.
        """

    def version(self, key: str) -> str | None:
        """What ``if_match`` compares: it differs whenever the content does. None = no such object."""

    def exists(self, key: str) -> bool:
        """Whether the key holds an object."""

    def list(self, prefix: str = "") -> Iterator[str]:
        """Keys that start with ``prefix``, in code point order."""

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is fine."""

    def upload(self, path: Path, key: str) -> ArtifactRef:
        """Copy a file of any size into the store; nothing is sent when the same content is there already.

        Raises:
            IntegrityError: the file changed meanwhile, or the store holds other bytes than were sent.
        """

    def measure(self, key: str) -> ArtifactRef:
        """Size and SHA-256 of what the store holds, found by reading all of it. Raises NoSuchObject."""

    def fetch(self, ref: ArtifactRef) -> Path:
        """A local file, only to be read, with exactly the bytes that ``ref`` stands for; files of one folder share a folder.

        Raises:
            NoSuchObject: nothing is stored under the key.
            IntegrityError: the stored bytes have another digest.
        """

    def work_dir(self) -> Path:
        """A folder on this host, the same for every process of this user, where stages may keep unfinished work."""


def open_store(store: Store) -> ObjectStore:
    """The object store that a spec names. Nothing is touched or created before the first use.

    Raises:
        SpecError: ``store.uri`` or ``store.endpoint_url`` cannot be a store's address.
    """
    if "://" not in store.uri:
        from prooftune.storage.local import LocalStore

        return LocalStore(Path(store.uri))
    address = urlsplit(store.uri)
    if address.scheme != "s3" or not _BUCKET.fullmatch(address.netloc) or address.query or address.fragment:
        raise _unusable(
            "store.uri", f"must be a folder or s3://bucket/prefix without a user, port or query; found scheme {address.scheme!r}"
        )
    prefix = address.path.strip("/")
    if prefix and not all(_SEGMENT.fullmatch(segment) for segment in prefix.split("/")):
        raise _unusable("store.uri", f"the prefix {prefix!r} may hold letters, digits and . _ = + @ - between single slashes")
    endpoint_url = store.endpoint_url or environment_endpoint()
    endpoint = urlsplit(endpoint_url or "https://aws")
    if endpoint.scheme not in ("http", "https") or not endpoint.hostname or "@" in endpoint.netloc:
        raise _unusable("store.endpoint_url", "must be http(s)://host:port; credentials belong in the environment, never in an address")
    from prooftune.storage.s3 import S3Store

    return S3Store(address.netloc, prefix, endpoint_url)


def check_key(key: str) -> str:
    """Return the key if it is fit to be a path inside the store: an allow-list, so that no name from data or a spec can lead elsewhere.

    Raises:
        InvalidKey: naming the rule.
    """
    segments = key.split("/")
    if len(key) > _LONGEST_KEY or segments[0] == WORK or not all(_SEGMENT.fullmatch(segment) for segment in segments):
        raise InvalidKey(
            f"{key[:100]!r} cannot be a key of the store: at most {_LONGEST_KEY} characters, segments of letters, digits and . _ = + @ - "
            f"that start with a letter, digit or _ and have at most 200 characters, the first not {WORK!r}. Rename what it was made from"
        )
    return key


def is_key(name: str) -> bool:
    """Whether a name found in the store is an object's key, and not one of the store's own files."""
    try:
        check_key(name)
    except InvalidKey:
        return False
    return True


def check_prefix(prefix: str) -> str:
    """Return the prefix if some key may start with it. Raises InvalidKey."""
    if prefix:
        check_key(prefix + "_" if prefix.endswith("/") else prefix)
    return prefix


def missing(uri: str, key: str) -> NoSuchObject:
    """The error for a key that holds nothing."""
    return NoSuchObject(f"{uri} holds nothing under {key!r}; run the command again to make it, or check store.uri")


def already_there(uri: str, key: str) -> AlreadyThere:
    """The error for a create-if-absent that came second."""
    return AlreadyThere(f"{uri} holds {key!r} already; it was left as it is")


def version_changed(uri: str, key: str) -> VersionChanged:
    """The error for a compare-and-swap that came second."""
    return VersionChanged(f"{key!r} in {uri} changed since it was read; read it again and repeat the change")


def mismatch(uri: str, ref: ArtifactRef, found: str) -> IntegrityError:
    """The error for stored bytes that are not those written down."""
    return IntegrityError(
        f"{uri}: {ref.key!r} has SHA-256 {found}, written down is {ref.sha256}. It was changed or damaged after it was written: "
        "restore it from a copy, or delete it and run the command again"
    )


def _unusable(field: str, reason: str) -> SpecError:
    return SpecError("the spec's store is not usable:", (Problem(field, reason),))
