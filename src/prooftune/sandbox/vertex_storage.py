"""Cloud Storage for Vertex AI's stand-in: what ``google-cloud-storage`` asks of the JSON API for objects.

Source: https://cloud.google.com/storage/docs/json_api/v1.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from prooftune.sandbox.http import Refused, Reply, Request

HOST = "https://storage.googleapis.com"
PAGE_MAX = 1000
_NAMED = re.compile(r".*-(?P<location>us|eu|asia|[a-z]+-[a-z]+\d+)")


@dataclass
class _Object:
    bucket: str
    name: str
    path: Path
    md5: str
    crc32c: str
    size: int
    content_type: str
    generation: int
    at: float


@dataclass
class _Session:
    """A resumable upload that has begun."""

    bucket: str
    name: str
    content_type: str
    match: str
    data: bytes = b""


class Storage:
    """Objects in buckets. Every bucket exists but those that ``missing`` names.

    A bucket lies where its name ends, as in ``rows-eu`` or ``rows-europe-west4``; any other in the United States.
    """

    def __init__(self, folder: Path) -> None:
        self.objects: dict[tuple[str, str], _Object] = {}
        self.missing: set[str] = set()
        self.private: set[str] = set()
        """Buckets that may not be asked about."""
        self.uploads = 0
        """Objects that a client put there; those of the services are not counted."""
        self._folder = folder
        self._sessions: dict[str, _Session] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def read(self, uri: str) -> bytes | None:
        """Return the bytes at a ``gs://`` URI; None = there is no such object."""
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        found = self.objects.get((bucket, name))
        return found.path.read_bytes() if found else None

    def write(self, uri: str, data: bytes, content_type: str = "application/jsonl") -> None:
        """Put an object there, as a service of Google's would."""
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        self._add(bucket, name, data, content_type)

    def upload(self, request: Request) -> Reply:
        """Take an object in one request, or begin an upload in several."""
        bucket, kind = self._bucket(request), request.first("uploadType")
        if kind == "multipart":
            told, data = _parts(request)
            return self._store(bucket, str(told["name"]), data, str(told.get("contentType")), request.first("ifGenerationMatch"), told)
        if kind != "resumable":
            raise Refused(400, f"Unknown upload type: {kind}", "invalid")
        told = request.json
        session = uuid.uuid4().hex
        content_type = request.headers.get("x-upload-content-type", "application/octet-stream")
        name = str(told.get("name") or request.first("name"))
        self._check(bucket, name, request.first("ifGenerationMatch"))
        self._sessions[session] = _Session(bucket, name, content_type, request.first("ifGenerationMatch"))
        host = request.headers.get("host", "")
        where = f"http://{host}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={session}"
        return Reply({}, 200, {"location": where, "x-guploader-uploadid": session})

    def resume(self, request: Request) -> Reply:
        """Take a chunk of an upload in several requests; the last one makes the object."""
        session = self._sessions.get(request.first("upload_id"))
        if session is None:
            raise Refused(404, "Upload session not found.", "notFound")
        session.data += request.body
        total = request.headers.get("content-range", "*/*").rpartition("/")[2]
        if total == "*" or len(session.data) < int(total):
            return Reply(b"", 308, {"range": f"bytes=0-{len(session.data) - 1}"})
        del self._sessions[request.first("upload_id")]
        return self._store(session.bucket, session.name, session.data, session.content_type, session.match, {})

    def _store(self, bucket: str, name: str, data: bytes, content_type: str, match: str, told: Mapping[str, Any]) -> Reply:
        self._check(bucket, name, match)
        for field, found in (("crc32c", _crc32c(data)), ("md5Hash", _md5(data))):
            if field in told and told[field] != found:
                raise Refused(400, f'Provided {field} "{told[field]}" doesn\'t match calculated {field} "{found}".', "invalid")
        self.uploads += (bucket, name) not in self.objects
        return Reply(_shown(self._add(bucket, name, data, content_type)))

    def _check(self, bucket: str, name: str, match: str) -> None:
        if match == "0" and (bucket, name) in self.objects:
            raise Refused(412, "At least one of the pre-conditions you specified did not hold.", "conditionNotMet")

    def _add(self, bucket: str, name: str, data: bytes, content_type: str) -> _Object:
        path = self._folder / uuid.uuid4().hex
        path.write_bytes(data)
        now = time.time()
        found = _Object(bucket, name, path, _md5(data), _crc32c(data), len(data), content_type, int(now * 1_000_000), now)
        self.objects[bucket, name] = found
        return found

    def _bucket(self, request: Request) -> str:
        bucket = request.found["bucket"]
        if bucket in self.missing:
            raise Refused(404, "The specified bucket does not exist.", "notFound")
        return bucket

    def _find(self, request: Request) -> _Object:
        bucket, name = self._bucket(request), request.found["name"]
        if (bucket, name) not in self.objects:
            raise Refused(404, f"No such object: {bucket}/{name}", "notFound")
        return self.objects[bucket, name]

    def show_bucket(self, request: Request) -> Reply:
        """Show what is known of a bucket."""
        bucket = self._bucket(request)
        if bucket in self.private:
            raise Refused(403, f"The caller does not have storage.buckets.get access to {bucket}.", "forbidden")
        named = _NAMED.fullmatch(bucket)
        location = named["location"].upper() if named else "US"
        kind = "multi-region" if location in ("US", "EU", "ASIA") else "region"
        return Reply({"kind": "storage#bucket", "id": bucket, "name": bucket, "location": location, "locationType": kind})

    def get(self, request: Request) -> Reply:
        """Show what is known of an object, or, with ``alt=media``, send its bytes."""
        return self.media(request) if request.first("alt") == "media" else Reply(_shown(self._find(request)))

    def media(self, request: Request) -> Reply:
        """Send an object's bytes."""
        found = self._find(request)
        headers = {"content-type": found.content_type, "x-goog-hash": f"crc32c={found.crc32c},md5={found.md5}"}
        return Reply(found.path.read_bytes(), 200, headers | {"x-goog-generation": str(found.generation)})

    def list(self, request: Request) -> Reply:
        """Show a bucket's objects below a prefix, by name."""
        bucket, prefix = self._bucket(request), request.first("prefix")
        found = sorted((one.name, one) for one in self.objects.values() if one.bucket == bucket and one.name.startswith(prefix))
        start, size = int(request.first("pageToken", "0")), min(int(request.first("maxResults", "1000")), PAGE_MAX)
        body: dict[str, Any] = {"kind": "storage#objects", "items": [_shown(one) for _, one in found[start : start + size]]}
        return Reply(body | ({"nextPageToken": str(start + size)} if len(found) > start + size else {}))


def _parts(request: Request) -> tuple[dict[str, Any], bytes]:
    """Return metadata and bytes of a multipart upload."""
    boundary = b"--" + request.headers.get("content-type", "").partition("boundary=")[2].strip('"').encode()
    parts = request.body.split(boundary)
    if len(parts) != 4:
        raise Refused(400, "Malformed multipart body.", "badContent")
    told, data = (part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts[1:3])
    return json.loads(told), data


def _shown(found: _Object) -> dict[str, Any]:
    path = f"b/{found.bucket}/o/{quote(found.name, safe='')}"
    at = datetime.fromtimestamp(found.at, UTC).isoformat().replace("+00:00", "Z")
    return {
        "kind": "storage#object",
        "id": f"{found.bucket}/{found.name}/{found.generation}",
        "selfLink": f"{HOST}/storage/v1/{path}",
        "mediaLink": f"{HOST}/download/storage/v1/{path}?generation={found.generation}&alt=media",
        "name": found.name,
        "bucket": found.bucket,
        "generation": str(found.generation),
        "metageneration": "1",
        "contentType": found.content_type,
        "storageClass": "STANDARD",
        "size": str(found.size),
        "md5Hash": found.md5,
        "crc32c": found.crc32c,
        "etag": base64.b64encode(str(found.generation).encode()).decode(),
        "timeCreated": at,
        "updated": at,
    }


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _crc32c(data: bytes) -> str:
    import google_crc32c  # comes with google-cloud-storage

    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()
