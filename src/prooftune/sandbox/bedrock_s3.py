"""S3 for Bedrock's stand-in: objects by path-style addresses, conditional creation and lists.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import escape

from prooftune.sandbox.http import Refused, Reply, Request

PAGE_MAX = 1000
_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
_NAMED = re.compile(r".*-(?P<region>[a-z]{2}-[a-z]+-\d)")
_META = "x-amz-meta-"


@dataclass(frozen=True)
class _Object:
    path: Path
    size: int
    etag: str
    sha256: str
    meta: Mapping[str, str]
    at: float

    @property
    def headers(self) -> dict[str, str]:
        return {
            "etag": self.etag,
            "last-modified": formatdate(self.at, usegmt=True),
            "x-amz-checksum-sha256": self.sha256,
            "content-type": "binary/octet-stream",
            **self.meta,
        }


class Storage:
    """Objects in buckets. Every bucket exists but those that ``missing`` names.

    A bucket lies in the region that its name ends with, as in ``rows-eu-central-1``; any other in the region of the request.
    """

    def __init__(self, folder: Path) -> None:
        self.objects: dict[tuple[str, str], _Object] = {}
        self.missing: set[str] = set()
        self.private: set[str] = set()
        """Buckets that may not be asked about."""
        self.uploads = 0
        """Objects that a client put there; those that Bedrock wrote are not counted."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def read(self, uri: str) -> bytes | None:
        """Return the bytes at an ``s3://`` URI; None = there is no such object."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        found = self.objects.get((bucket, key))
        return found.path.read_bytes() if found else None

    def write(self, uri: str, data: bytes) -> None:
        """Put an object there, as Bedrock does with its role."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        self._add(bucket, key, data, {})

    def head(self, request: Request, region: str) -> Reply:
        """Say that a bucket is there, and in which region; ``region`` is the request's."""
        bucket, _ = self._place(request)
        if bucket in self.private:
            raise Refused(403, "Access Denied", "AccessDenied")
        named = _NAMED.fullmatch(bucket)
        return Reply(b"", 200, {"x-amz-bucket-region": named["region"] if named else region, "content-type": "application/xml"})

    def put(self, request: Request) -> Reply:
        """Take an object; with ``If-None-Match: *`` only where there is none."""
        bucket, key = self._place(request)
        if request.query or "x-amz-copy-source" in request.headers:
            raise Refused(501, "A header or query you provided implies functionality that is not implemented.", "NotImplemented")
        if request.headers.get("if-none-match") == "*" and (bucket, key) in self.objects:
            raise Refused(412, "At least one of the pre-conditions you specified did not hold", "PreconditionFailed")
        told = request.headers.get("x-amz-checksum-sha256")
        if told is not None and told != _sha256(request.body):
            raise Refused(400, "The SHA256 you specified did not match the calculated checksum.", "BadDigest")
        self.uploads += (bucket, key) not in self.objects
        meta = {name: value for name, value in request.headers.items() if name.startswith(_META)}
        made = self._add(bucket, key, request.body, meta)
        return Reply(b"", 200, {"etag": made.etag, "x-amz-checksum-sha256": made.sha256})

    def get(self, request: Request) -> Reply:
        """Give an object, or for HEAD what is known of it."""
        bucket, key = self._place(request)
        found = self.objects.get((bucket, key))
        if found is None:
            raise Refused(404, "The specified key does not exist.", "NoSuchKey")
        return Reply(found.path.read_bytes(), 200, found.headers)

    def list(self, request: Request) -> Reply:
        """List keys below a prefix, in order, a page at a time."""
        bucket, _ = self._place(request)
        prefix, after = request.first("prefix"), request.first("continuation-token")
        keys = sorted(key for held, key in self.objects if held == bucket and key.startswith(prefix) and key > after)
        size = min(int(request.first("max-keys", str(PAGE_MAX))), PAGE_MAX)
        page, more = keys[:size], len(keys) > size
        entries = "".join(self._entry(bucket, key) for key in page)
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        text = (
            f'{_XML}<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>{bucket}</Name>'
            f"<Prefix>{quote(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount><MaxKeys>{size}</MaxKeys>"
            f"<EncodingType>url</EncodingType><IsTruncated>{str(more).lower()}</IsTruncated>{token}{entries}</ListBucketResult>"
        )
        return Reply(text.encode(), 200, {"content-type": "application/xml"})

    def _entry(self, bucket: str, key: str) -> str:
        found = self.objects[bucket, key]
        at = datetime.fromtimestamp(found.at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        return (
            f"<Contents><Key>{quote(key)}</Key><LastModified>{at}</LastModified><ETag>{escape(found.etag)}</ETag>"
            f"<Size>{found.size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )

    def _place(self, request: Request) -> tuple[str, str]:
        bucket = request.found["bucket"]
        if bucket in self.missing:
            raise Refused(404, "The specified bucket does not exist", "NoSuchBucket")
        return bucket, request.found.get("key", "")

    def _add(self, bucket: str, key: str, data: bytes, meta: Mapping[str, str]) -> _Object:
        path = self._folder / uuid.uuid4().hex
        path.write_bytes(data)
        etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        self.objects[bucket, key] = _Object(path, len(data), etag, _sha256(data), meta, time.time())
        return self.objects[bucket, key]


def error(refused: Refused) -> Reply:
    """Return a refusal in S3's form."""
    text = f"{_XML}<Error><Code>{escape(refused.code)}</Code><Message>{escape(refused.message)}</Message></Error>"
    return Reply(text.encode(), refused.status, {"content-type": "application/xml", **refused.headers})


def _sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
