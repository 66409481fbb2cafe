"""Files for Vertex AI in Google Cloud Storage. The only file that imports ``google.cloud.storage``.

``STORAGE_EMULATOR_HOST`` leads to a server that speaks Cloud Storage's protocol, as the client itself reads it; default credentials are
not sent there.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

from prooftune.errors import EnvironmentLacks, IntegrityError, SpecError
from prooftune.providers.calls import TIMEOUT_S, Caller, NotFoundError
from prooftune.providers.vertex_connection import EXTRA, Access, read

EMULATOR = "STORAGE_EMULATOR_HOST"
_URI = re.compile(r"gs://(?P<bucket>[a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/(?P<path>.*))?")


class Bucket:
    """Files below one ``gs://bucket/prefix``."""

    def __init__(self, uri: str, project: str, access: Access) -> None:
        self.name, self.prefix = split(uri)
        try:
            import requests
            from google.api_core.exceptions import GoogleAPIError
            from google.auth.credentials import AnonymousCredentials
            from google.auth.exceptions import GoogleAuthError
            from google.cloud import storage
            from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
        except ImportError:
            raise EnvironmentLacks(EXTRA) from None
        anonymous = os.environ.get(EMULATOR) and not access.token
        credentials = AnonymousCredentials() if anonymous else access.credentials
        self._storage: Any = storage.Client(project=project, credentials=credentials)
        self._bucket: Any = self._storage.bucket(self.name)
        errors = (GoogleAPIError, GoogleAuthError, DataCorruption, InvalidResponse, requests.RequestException)
        self.call = Caller(f"Cloud Storage gs://{self.name}", access.whose, access.token, errors, read)

    def location(self) -> str:
        """Return the region, dual-region or multi-region in which the bucket lies.

        Raises:
            EnvironmentLacks: there is no such bucket, or no right to ask.
            TransientError: no full answer came.
        """
        try:
            return str(self.call(lambda: self._storage.get_bucket(self.name, timeout=TIMEOUT_S, retry=None)).location)
        except NotFoundError as error:
            raise self._lacking(error) from None
        except EnvironmentLacks as error:
            raise EnvironmentLacks(
                f"{error}. data.residency makes it matter where gs://{self.name} is: where it is a right that is missing, grant "
                "storage.buckets.get on it (roles/storage.legacyBucketReader has it)"
            ) from None

    def _lacking(self, error: NotFoundError) -> EnvironmentLacks:
        return EnvironmentLacks(f"there is no bucket gs://{self.name}; make it, or set provider.bucket to another one ({error})")

    def put(self, path: Path, name: str) -> str:
        """Upload a file under a name of ours and return its URI. One that is there with the same bytes is not uploaded again.

        Raises:
            IntegrityError: other bytes are there under that name.
            EnvironmentLacks: there is no such bucket, or no right to write to it.
        """
        from google.api_core.exceptions import PreconditionFailed

        name = f"{self.prefix}{name}"
        blob = self._bucket.blob(name)

        def attempt() -> None:
            """Create if absent: where the answer to an upload was lost, the next attempt finds the file."""
            try:
                blob.upload_from_filename(
                    str(path), content_type="application/jsonl", if_generation_match=0, timeout=TIMEOUT_S, checksum="crc32c", retry=None
                )
            except PreconditionFailed:
                blob.reload(timeout=TIMEOUT_S, retry=None)

        try:
            self.call(attempt)
        except NotFoundError as error:
            raise self._lacking(error) from None
        if blob.md5_hash != _md5(path):
            raise IntegrityError(
                f"gs://{self.name}/{name} holds other bytes than {path.name}, although its name is made of their digest; delete it and run "
                "the same command again"
            )
        return f"gs://{self.name}/{name}"

    def fetch(self, uri: str) -> dict[str, bytes]:
        """Return the files at or below a URI, by their last name."""
        name, prefix = split(uri)
        bucket = self._storage.bucket(name)
        found = self.call(lambda: [one.name for one in bucket.list_blobs(prefix=prefix.rstrip("/"), timeout=TIMEOUT_S, retry=None)])
        return {one.rpartition("/")[2]: self.call(partial(self._read, bucket, one)) for one in found if not one.endswith("/")}

    def _read(self, bucket: Any, name: str) -> bytes:
        """Return a file's bytes. Asked for by name: the link in a listing leads past ``STORAGE_EMULATOR_HOST``."""
        return bytes(bucket.blob(name).download_as_bytes(timeout=TIMEOUT_S, retry=None))


def split(uri: str) -> tuple[str, str]:
    """Return bucket and prefix of a ``gs://`` URI; the prefix is empty or ends with a slash.

    Raises:
        SpecError: it is none.
    """
    match = _URI.fullmatch(uri)
    if match is None:
        raise SpecError(f"provider.bucket is {uri!r}; vertex reads training files from Cloud Storage, gs://bucket/prefix")
    path = (match["path"] or "").strip("/")
    return match["bucket"], f"{path}/" if path else ""


def _md5(path: Path) -> str:
    """Return a file's MD5 in Cloud Storage's form: it tells whether bytes are the same, and protects from nobody."""
    with path.open("rb") as file:
        return base64.b64encode(hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()).decode()
