"""Files in parts at OpenAI's stand-in: an upload is begun, its parts come, and it becomes a file when it is completed."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prooftune.sandbox.http import Refused, Reply, Request
from prooftune.sandbox.openai_files import PURPOSES, FileStore, new_id

LARGEST_UPLOAD = 8 * 2**30
LARGEST_PART = 64 * 2**20
LIVES_S = 3600


@dataclass
class _Upload:
    """A file that is on its way."""

    id: str
    filename: str
    purpose: str
    size: int
    created: int = field(default_factory=lambda: int(time.time()))
    status: str = "pending"
    file: dict[str, Any] | None = None
    parts: dict[str, Path] = field(default_factory=dict)


class Uploads:
    """The uploads of a stand-in."""

    def __init__(self, files: FileStore, folder: Path) -> None:
        self.uploads: dict[str, _Upload] = {}
        self._files = files
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def create(self, request: Request) -> Reply:
        """Begin an upload."""
        body = request.json
        for name, kind in (("bytes", int), ("filename", str), ("mime_type", str), ("purpose", str)):
            if not isinstance(body.get(name), kind):
                raise Refused(400, f"Missing required parameter: '{name}'.", "missing_required_parameter", name)
        if body["purpose"] not in PURPOSES:
            raise Refused(400, f"'{body['purpose']}' is not one of {list(PURPOSES)} - 'purpose'", "invalid_value", "purpose")
        if not 0 < body["bytes"] <= LARGEST_UPLOAD:
            raise Refused(400, f"Invalid 'bytes': expected an integer between 1 and {LARGEST_UPLOAD}.", "invalid_value", "bytes")
        upload = _Upload(new_id("upload_"), body["filename"], body["purpose"], body["bytes"])
        self.uploads[upload.id] = upload
        return Reply(_shown(upload))

    def add_part(self, request: Request) -> Reply:
        """Take a part of a file."""
        upload = self._pending(request)
        part = request.form[1].get("data")
        if part is None:
            raise Refused(400, "'data' is a required property", "missing_required_parameter", "data")
        if len(part.content) > LARGEST_PART:
            raise Refused(413, f"A part may have {LARGEST_PART} bytes.", "file_too_large", "data")
        name = new_id("part_")
        upload.parts[name] = self._folder / name
        upload.parts[name].write_bytes(part.content)
        return Reply({"id": name, "object": "upload.part", "created_at": int(time.time()), "upload_id": upload.id})

    def complete(self, request: Request) -> Reply:
        """Make a file of the parts that are named, in their order."""
        upload, chosen = self._pending(request), request.json.get("part_ids")
        if not isinstance(chosen, list) or not chosen or set(chosen) - upload.parts.keys():
            raise Refused(400, "Invalid 'part_ids': expected the parts of this upload.", "invalid_value", "part_ids")
        whole, digest = self._folder / upload.id, hashlib.md5(usedforsecurity=False)
        with whole.open("wb") as file:
            for name in chosen:
                content = upload.parts[name].read_bytes()
                digest.update(content)
                file.write(content)
        if whole.stat().st_size != upload.size:
            raise Refused(
                400, f"The parts have {whole.stat().st_size} bytes, and {upload.size} were announced.", "invalid_value", "part_ids"
            )
        if request.json.get("md5", digest.hexdigest()) != digest.hexdigest():
            raise Refused(400, "The checksum of the parts is another one.", "invalid_value", "md5")
        if upload.purpose in ("fine-tune", "batch"):
            with whole.open("rb") as lines:
                self._files.check_lines(lines)
        stored = self._files.take(upload.filename, upload.purpose, whole)
        upload.status, upload.file = "completed", self._files.shown(stored, new=True)
        self._drop(upload)
        return Reply(_shown(upload))

    def cancel(self, request: Request) -> Reply:
        """End an upload without a file."""
        upload = self._pending(request)
        upload.status = "cancelled"
        self._drop(upload)
        return Reply(_shown(upload))

    def _pending(self, request: Request) -> _Upload:
        upload = self.uploads.get(request.found["id"])
        if upload is None:
            raise Refused(404, f"No such Upload object: {request.found['id']}", "not_found", "upload_id")
        if upload.status == "pending" and time.time() > upload.created + LIVES_S:
            upload.status = "expired"
            self._drop(upload)
        if upload.status != "pending":
            raise Refused(400, f"Upload {upload.id} is {upload.status}.", "invalid_value", "upload_id")
        return upload

    def _drop(self, upload: _Upload) -> None:
        for path in upload.parts.values():
            path.unlink()
        upload.parts.clear()


def _shown(upload: _Upload) -> dict[str, Any]:
    return {
        "id": upload.id,
        "object": "upload",
        "bytes": upload.size,
        "created_at": upload.created,
        "expires_at": upload.created + LIVES_S,
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": upload.status,
        **({"file": upload.file} if upload.file else {}),
    }
