"""S3, or a server that speaks its protocol, as an object store.

Coordination rests on conditional writes (``If-None-Match: *`` and ``If-Match``), which some older servers accept and ignore;
a store is therefore probed before the first one.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from base64 import b64encode
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platformdirs import user_cache_path

from prooftune.errors import IntegrityError, StoreUnavailable, TransientError
from prooftune.storage import disk, objects
from prooftune.storage.s3_client import Connection
from prooftune.types import ArtifactRef

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PART_SIZE = 16 << 20
"""Bytes of one part; a file up to this size is sent in one request."""
_MOST_PARTS = 10_000
"""S3's limit on the parts of one object."""
_SENDERS = 4
"""Parts in flight at a time; each holds its bytes in memory."""
_LOST_RACE = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
log = logging.getLogger(__name__)


class S3Store:
    """Objects are the keys of a bucket that start with a prefix; their versions are ETags.

    Args:
        bucket: An existing bucket.
        prefix: Put before every key; empty = the bucket is the store.
        endpoint_url: A server other than AWS.
        part_size: Bytes of one part of a multipart upload, at least 5 MiB by S3's rules.
        timeout: Seconds without a byte from the server after which a request counts as lost.
    """

    def __init__(
        self, bucket: str, prefix: str, endpoint_url: str | None = None, *, part_size: int = PART_SIZE, timeout: float = 60.0
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._endpoint = endpoint_url
        self._part_size = part_size
        self._requests = Connection(self.uri, "store.uri", endpoint_url, timeout=timeout).requests
        self._probed = self._swept = False

    @property
    def uri(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def check(self) -> None:
        """Prove, by writes, that the bucket can be used and honours conditional writes."""
        # Written as absent (by this or an earlier probe), so a second time and against a made-up version it must be refused.
        conditions: tuple[dict[str, Any], ...] = ({"IfNoneMatch": "*"}, {"IfNoneMatch": "*"}, {"IfMatch": f'"{"0" * 32}"'})
        if not all([self._is_refused(condition) for condition in conditions][1:]):
            raise StoreUnavailable(
                f"{self.uri}: the server accepts If-None-Match and If-Match and ignores them, so two runs could overwrite each other's "
                "results; use AWS S3 or a newer version of the server"
            )
        self._probed = True

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises NoSuchObject."""
        return b"".join(self._body(key))

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """Write an object atomically and return its version. Raises AlreadyThere and VersionChanged."""
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if if_absent else {"IfMatch": if_match} if if_match is not None else {}
        if condition and not self._probed:
            self.check()
        write_id, checksum = uuid.uuid4().hex, _base64(hashlib.sha256(data).digest())
        with self._requests(f"write {key}") as s3:
            try:
                described: Any = {"ContentType": _content_type(key), "Metadata": {"write": write_id}}
                answer = s3.put_object(**self._at(key), Body=data, ChecksumSHA256=checksum, **described, **condition)
                return answer["ETag"]
            except s3.exceptions.ClientError as error:
                if not condition or not _is_lost_race(error.response):
                    raise
        # A retry inside the SDK, after an answer that got lost, meets our own object: that race was won.
        head = self._head(key)
        if head and head["Metadata"].get("write") == write_id:
            return str(head["ETag"])
        raise objects.already_there(self.uri, key) if if_absent else objects.version_changed(self.uri, key)

    def version(self, key: str) -> str | None:
        """The ETag; None = no such object."""
        head = self._head(key)
        return str(head["ETag"]) if head else None

    def exists(self, key: str) -> bool:
        """Whether the key holds an object."""
        return self._head(key) is not None

    def list(self, prefix: str = "") -> Iterator[str]:
        """Keys that start with ``prefix``, in code point order."""
        with self._requests(f"list {prefix}") as s3:
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix + objects.check_prefix(prefix))
            names = [item["Key"].removeprefix(self._prefix) for page in pages for item in page.get("Contents", [])]
        return iter(sorted(filter(objects.is_key, names)))  # servers other than AWS list in orders of their own

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is fine."""
        with self._requests(f"delete {key}") as s3:
            s3.delete_object(**self._at(key))

    def upload(self, path: Path, key: str) -> ArtifactRef:
        """Send a file, unless the same content is there, and verify what the server holds. Raises IntegrityError."""
        size = path.stat().st_size
        file = disk.read_in_parts(path, max(self._part_size, -(-size // _MOST_PARTS)))
        ref = ArtifactRef(key=key, sha256=file.sha256, size=size)
        head = self._head(key)
        if head and head["Metadata"].get("sha256") == ref.sha256 and head["ContentLength"] == size:
            return ref
        with self._requests(f"upload {key}") as s3:
            if len(file.parts) == 1:
                checksum = _base64(file.parts[0])
                described: Any = {"ContentType": _content_type(key), "Metadata": {"sha256": file.sha256}}
                s3.put_object(**self._at(key), Body=file.read_part(1), ChecksumSHA256=checksum, **described)
            else:
                self._send_parts(s3, file, key)
        self._verify(ref, _checksum(file))
        return ref

    def measure(self, key: str) -> ArtifactRef:
        """Size and SHA-256 of what is stored, found by reading all of it. Raises NoSuchObject."""
        sha256, size = hashlib.sha256(), 0
        for chunk in self._body(key):
            sha256.update(chunk)
            size += len(chunk)
        return ArtifactRef(key=key, sha256=sha256.hexdigest(), size=size)

    def fetch(self, ref: ArtifactRef) -> Path:
        """A verified copy in the user's cache, downloaded once. Raises NoSuchObject and IntegrityError."""
        path = self._cache / "objects" / objects.check_key(ref.key)
        with disk.refusals(self._cache, f"cache {ref.key}"):
            if path.is_file() and disk.sha256_of(path) == ref.sha256:
                return path
            disk.sweep(self._cache)
            disk.require_space(self._cache, ref.size)
            with disk.temporary(self._cache, self._body(ref.key)) as written:
                if written.sha256 != ref.sha256:
                    raise objects.mismatch(self.uri, ref, written.sha256)
                disk.move_into_place(written, path)
        return path

    def work_dir(self) -> Path:
        """A folder of this store's own in the user's cache."""
        folder = self._cache / "work"
        with disk.refusals(folder, "make a folder"):
            disk.make_folder(folder)
        return folder

    @cached_property
    def _cache(self) -> Path:
        address = hashlib.sha256(f"{self._endpoint or ''} {self.uri}".encode()).hexdigest()
        return user_cache_path("prooftune") / "stores" / address[:16]

    def _at(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + objects.check_key(key)}

    def _head(self, key: str) -> dict[str, Any] | None:
        with self._requests(f"look for {key}") as s3:
            try:
                return dict(s3.head_object(**self._at(key), ChecksumMode="ENABLED"))
            except s3.exceptions.ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                    raise
            s3.head_bucket(Bucket=self._bucket)  # a missing bucket must not pass for a missing object
            return None

    def _body(self, key: str) -> Iterator[bytes]:
        with self._requests(f"read {key}") as s3:
            try:
                body = s3.get_object(**self._at(key))["Body"]
            except s3.exceptions.NoSuchKey:
                raise objects.missing(self.uri, key) from None
            yield from body.iter_chunks(disk.CHUNK)

    def _is_refused(self, condition: dict[str, Any]) -> bool:
        with self._requests("write") as s3:
            try:
                # The leading dot keeps it from being a key, so that it is never listed.
                s3.put_object(Bucket=self._bucket, Key=f"{self._prefix}.conditional-writes", Body=b"probe", **condition)
            except s3.exceptions.ClientError as error:
                if not _is_lost_race(error.response):
                    raise
                return True
            return False

    def _send_parts(self, s3: S3Client, file: disk.InParts, key: str) -> None:
        self._sweep_once(s3)
        target = self._at(key)
        upload_id = s3.create_multipart_upload(**target, ChecksumAlgorithm="SHA256", Metadata={"sha256": file.sha256})["UploadId"]

        def send(number: int) -> dict[str, Any]:
            part: dict[str, Any] = {"PartNumber": number, "ChecksumSHA256": _base64(file.parts[number - 1])}
            answer = s3.upload_part(**target, **part, UploadId=upload_id, Body=file.read_part(number))
            return {**part, "ETag": answer["ETag"]}

        try:
            with ThreadPoolExecutor(_SENDERS) as pool:
                parts: Any = list(pool.map(send, range(1, len(file.parts) + 1)))
            s3.complete_multipart_upload(**target, UploadId=upload_id, MultipartUpload={"Parts": parts})
        except BaseException:
            self._abort(target["Key"], upload_id)
            raise

    def _abort(self, name: str, upload_id: str) -> None:
        try:
            with self._requests(f"abort the upload of {name}") as s3:
                s3.abort_multipart_upload(Bucket=self._bucket, Key=name, UploadId=upload_id)
        except (StoreUnavailable, TransientError) as error:
            log.warning("%s; a later upload sweeps its parts", error)

    def _sweep_once(self, s3: S3Client) -> None:
        """Abort uploads below the prefix that a dead process left: their parts are invisible, and billed."""
        if self._swept:
            return
        self._swept = True
        before = datetime.now(UTC) - timedelta(seconds=disk.LEFTOVER_AGE)
        for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=self._prefix):
            for upload in page.get("Uploads", []):
                if upload["Initiated"] < before:
                    self._abort(upload["Key"], upload["UploadId"])

    def _verify(self, ref: ArtifactRef, checksum: str) -> None:
        head = self._head(ref.key)
        if head is None:
            raise IntegrityError(f"{self.uri} took {ref.key!r} and does not hold it; run the command again, or check the server")
        found = head.get("ChecksumSHA256") or self.measure(ref.key).sha256  # a server that keeps no checksum is read back
        if head["ContentLength"] != ref.size or found not in (checksum, ref.sha256):
            self.delete(ref.key)
            raise IntegrityError(f"{self.uri} keeps other bytes than were sent for {ref.key!r}; they were removed, run the command again")


def _is_lost_race(response: Mapping[str, Any]) -> bool:
    # If-Match on an object that is gone is answered 404.
    return response["Error"].get("Code", "") in _LOST_RACE | {"NoSuchKey"}


def _content_type(key: str) -> str:
    """Return the content type: a browser shows a page, and saves everything else."""
    return "text/html; charset=utf-8" if key.endswith(".html") else "binary/octet-stream"


def _base64(digest: bytes) -> str:
    return b64encode(digest).decode()


def _checksum(file: disk.InParts) -> str:
    # What S3 keeps with an object: the digest, or for several parts the digest of their digests ("composite").
    if len(file.parts) == 1:
        return _base64(file.parts[0])
    return f"{_base64(hashlib.sha256(b''.join(file.parts)).digest())}-{len(file.parts)}"
