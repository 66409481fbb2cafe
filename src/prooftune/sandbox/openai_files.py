"""Files and lists of OpenAI's stand-in."""

from __future__ import annotations

import codecs
import io
import json
import re
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prooftune.sandbox.http import Refused, Reply, Request

LARGEST_FILE = 512 * 2**20
LARGEST_BATCH = 200 * 2**20
PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")


def new_id(prefix: str) -> str:
    """Return an id as OpenAI makes them."""
    return f"{prefix}{uuid.uuid4().hex[:24]}"


def page_of(objects: Sequence[dict[str, Any]], request: Request, default: int, most: int = 100) -> dict[str, Any]:
    """Return the part of a list, given with the newest first, that a request asks for by ``limit`` and ``after``."""
    limit = request.first("limit", str(default))
    if not limit.isdigit() or not 1 <= int(limit) <= most:
        raise Refused(400, f"Invalid 'limit': expected an integer between 1 and {most}.", "invalid_value", "limit")
    start = 0
    if after := request.first("after"):
        ids = [found["id"] for found in objects]
        if after not in ids:
            raise Refused(404, f"No such object: {after}", "not_found", "after")
        start = ids.index(after) + 1
    data = list(objects[start : start + int(limit)])
    ends = {"first_id": data[0]["id"] if data else "", "last_id": data[-1]["id"] if data else ""}
    return {"object": "list", "data": data, "has_more": start + len(data) < len(objects), **ends}


@dataclass
class StoredFile:
    """An uploaded file, or one that the stand-in wrote."""

    id: str
    filename: str
    purpose: str
    path: Path
    size: int
    created: float = field(default_factory=time.time)
    ready: float = 0.0
    """When it is processed, in seconds since the epoch."""

    def content(self) -> bytes:
        """Return its bytes."""
        return self.path.read_bytes()


class FileStore:
    """The files of a stand-in, on disk. A file is processed ``pace_s`` seconds after its upload."""

    early = "uploaded"
    """Status of a file that is not processed yet."""

    def __init__(self, folder: Path, pace_s: float) -> None:
        self.files: dict[str, StoredFile] = {}
        self._folder = folder
        self._pace_s = pace_s
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, filename: str, purpose: str, content: bytes) -> StoredFile:
        """Keep a file."""
        whole = self._folder / f"{new_id('new-')}"
        whole.write_bytes(content)
        return self.take(filename, purpose, whole)

    def take(self, filename: str, purpose: str, whole: Path) -> StoredFile:
        """Keep a file that lies on this disk, and move it."""
        name = new_id("file-")
        path = whole.replace(self._folder / name)
        self.files[name] = StoredFile(name, filename, purpose, path, path.stat().st_size, ready=time.time() + self._pace_s)
        return self.files[name]

    def get(self, name: str, param: str | None = "id") -> StoredFile:
        """Return a file. Raises Refused(404)."""
        if name not in self.files:
            raise Refused(404, f"No such File object: {name}", "not_found", param)
        return self.files[name]

    def shown(self, file: StoredFile, *, new: bool = False) -> dict[str, Any]:
        """Return a file as the API shows it; one that was uploaded just now is not processed."""
        return {
            "object": "file",
            "id": file.id,
            "purpose": file.purpose,
            "filename": file.filename,
            "bytes": file.size,
            "created_at": int(file.created),
            "status": self.early if new or time.time() < file.ready else "processed",
        }

    def upload(self, request: Request) -> Reply:
        """Take a file."""
        fields, files = request.form
        purpose, part = fields.get("purpose", ""), files.get("file")
        if part is None:
            raise Refused(400, "'file' is a required property", "missing_required_parameter", "file")
        if purpose not in PURPOSES:
            raise Refused(400, f"'{purpose}' is not one of {list(PURPOSES)} - 'purpose'", "invalid_value", "purpose")
        if len(part.content) > (LARGEST_BATCH if purpose == "batch" else LARGEST_FILE):
            raise Refused(413, "File is too large for this purpose.", "file_too_large", "file")
        if purpose in ("fine-tune", "batch"):
            self.check_lines(io.BytesIO(part.content))
        return Reply(self.shown(self.add(part.filename, purpose, part.content), new=True))

    def check_lines(self, lines: Iterable[bytes]) -> None:
        """Refuse what is no JSONL."""
        number = 0
        for number, line in enumerate(lines, start=1):
            try:
                value = json.loads(line.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").decode(errors="replace"))
            except ValueError:
                value = None
            if not isinstance(value, dict):
                told = (
                    f"Expected file to have JSONL format, where every line is a valid JSON dictionary. Line {number} is not a dictionary."
                )
                raise Refused(400, told, "invalid_jsonl", "file")
        if not number:
            raise Refused(400, "File is empty.", "empty_file", "file")

    def list(self, request: Request) -> Reply:
        """Show the files, the newest first."""
        purpose = request.first("purpose")
        found = [self.shown(file) for file in self.files.values() if purpose in ("", file.purpose)]
        return Reply(page_of(found if request.first("order") == "asc" else found[::-1], request, 10_000, 10_000))

    def retrieve(self, request: Request) -> Reply:
        """Show a file."""
        return Reply(self.shown(self.get(request.found["id"])))

    def read(self, request: Request) -> Reply:
        """Give a file's content."""
        return Reply(self.get(request.found["id"]).content())

    def delete(self, request: Request) -> Reply:
        """Delete a file."""
        file = self.get(request.found["id"])
        file.path.unlink()
        del self.files[file.id]
        return Reply({"id": file.id, "object": "file", "deleted": True})


def is_name(text: object, longest: int) -> bool:
    """Whether a text may stand in the name of a model."""
    return isinstance(text, str) and len(text) <= longest and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text) is not None
