"""Files at Together's stand-in: a form, a signed address for the bytes, a check of what came; and what training rows must be."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prooftune.sandbox.http import Refused, Reply, Request, Route
from prooftune.types import Example, Message

STORAGE = "/_storage/"
"""Paths below it are the object store's behind the API, which asks for a signature and for no key."""
PURPOSES = ("fine-tune", "calibration", "eval", "batch-api")
TYPES = ("csv", "jsonl", "parquet")
MOST_REQUESTS = 50_000
FORMATS: Mapping[frozenset[str], str] = {
    frozenset({"messages"}): "CONVERSATION",
    frozenset({"prompt", "completion"}): "INSTRUCTION",
    frozenset({"text"}): "GENERAL",
    frozenset({"input", "preferred_output", "non_preferred_output"}): "PREFERENCE_OPENAI",
}
"""Form of a dataset, by the fields that its rows must have."""


class Unfit(Exception):
    """Why a file is refused, in Together's way of saying it."""


@dataclass
class StoredFile:
    """A file, as far as it is uploaded."""

    id: str
    filename: str
    purpose: str
    type: str
    checksum: str
    path: Path
    signature: str = field(default_factory=lambda: secrets.token_hex(16))
    created: float = field(default_factory=time.time)
    checked: float | None = None
    """When its check ends, in seconds since the epoch; None = the upload is not finished."""
    dataset: str = ""
    """Form of its rows."""
    lines: int = 0
    error: str = ""

    @property
    def size(self) -> int:
        """Bytes that have come."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def content(self) -> bytes:
        """Its bytes."""
        return self.path.read_bytes()

    @property
    def status(self) -> str:
        """How far its check is."""
        if self.checked is None or time.time() < self.checked:
            return "PENDING" if self.checked is None else "RUNNING"
        return "INVALID_FORMAT" if self.error else "COMPLETED"


class FileStore:
    """The files of a stand-in, on disk. The same bytes for the same purpose are one file."""

    def __init__(self, folder: Path, pace_s: float) -> None:
        self.files: dict[str, StoredFile] = {}
        self._folder = folder
        self._pace_s = pace_s
        folder.mkdir(parents=True, exist_ok=True)

    def routes(self) -> list[Route]:
        """Return the paths of files."""
        one = "/v1/files/(?P<id>[^/]+)"
        return [
            Route("POST", "/v1/files", "upload_file", self._announce),
            Route("PUT", f"{STORAGE}(?P<id>[^/]+)", "put_file", self._put),
            Route("POST", f"{one}/preprocess", "check_file", self._check),
            Route("GET", "/v1/files", "list_files", self._list),
            Route("GET", one, "get_file", lambda request: Reply(self._shown(self.get(request.found["id"])))),
            Route("GET", f"{one}/content", "result_file", lambda request: Reply(self.get(request.found["id"]).content)),
            Route("DELETE", one, "delete_file", self._delete),
        ]

    def get(self, name: str) -> StoredFile:
        """Return a file. Raises Refused(404)."""
        if name not in self.files:
            raise Refused(404, f"File {name} not found", "not_found")
        return self.files[name]

    def ready(self, name: str, purpose: str) -> StoredFile:
        """Return a file that was checked and is fit for a purpose. Raises Refused."""
        file = self.get(name)
        if file.purpose != purpose or file.status != "COMPLETED":
            raise Refused(400, f"File {name} has the purpose {file.purpose} and the status {file.status}", "invalid_file")
        return file

    def add(self, filename: str, purpose: str, content: bytes) -> StoredFile:
        """Keep a file that the stand-in wrote."""
        file = self._new(filename, purpose, "jsonl", hashlib.sha256(content).hexdigest())
        file.path.write_bytes(content)
        file.checked = 0.0
        return file

    def _new(self, filename: str, purpose: str, kind: str, checksum: str) -> StoredFile:
        name = f"file-{uuid.uuid4()}"
        self.files[name] = StoredFile(name, filename, purpose, kind, checksum, self._folder / name)
        return self.files[name]

    def _announce(self, request: Request) -> Reply:
        """Take a file's particulars and say where its bytes go; bytes that are there already are a conflict that names their file."""
        form, _ = request.form
        for name, allowed in (("purpose", PURPOSES), ("file_type", TYPES)):
            if form.get(name) not in allowed:
                raise Refused(400, f"{name} must be one of {', '.join(allowed)}", "invalid_request", name)
        if not form.get("file_name") or len(form.get("checksum", "")) != 64:
            raise Refused(400, "file_name and checksum are required", "invalid_request")
        same = [file for file in self.files.values() if (file.checksum, file.purpose) == (form["checksum"], form["purpose"])]
        if same and same[0].checked is not None:
            return Reply({"message": "File already exists", "file_id": same[0].id}, 409)
        file = same[0] if same else self._new(form["file_name"], form["purpose"], form["file_type"], form["checksum"])
        address = f"http://{request.headers['host']}{STORAGE}{file.id}?X-Amz-Signature={file.signature}"
        return Reply(b"", 302, {"Location": address, "X-Together-File-Id": file.id})

    def _put(self, request: Request) -> Reply:
        file = self.get(request.found["id"])
        if request.first("X-Amz-Signature") != file.signature:
            raise Refused(403, "SignatureDoesNotMatch", "forbidden")
        if hashlib.sha256(request.body).hexdigest() != file.checksum:
            raise Refused(400, "BadDigest", "bad_digest")
        file.path.write_bytes(request.body)
        return Reply(b"")

    def _check(self, request: Request) -> Reply:
        file = self.get(request.found["id"])
        if not file.path.exists():
            raise Refused(400, f"File {file.id} was not uploaded", "invalid_file")
        shown = self._shown(file)
        if file.checked is None:
            file.checked = time.time() + self._pace_s
            try:
                file.lines, file.dataset = _form_of(file)
            except Unfit as unfit:
                file.error = str(unfit)
        return Reply(shown)

    def _list(self, request: Request) -> Reply:
        return Reply({"data": [self._shown(file) for file in reversed(self.files.values())]})

    def _delete(self, request: Request) -> Reply:
        file = self.get(request.found["id"])
        file.path.unlink(missing_ok=True)
        del self.files[file.id]
        return Reply({"id": file.id, "deleted": True})

    def _shown(self, file: StoredFile) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "id": file.id,
            "bytes": file.size,
            "created_at": int(file.created),
            "filename": file.filename,
            "FileType": file.type,
            "object": "file",
            "purpose": file.purpose,
            "processing_status": file.status,
        }
        if file.status in ("COMPLETED", "INVALID_FORMAT") and file.purpose == "fine-tune":
            failed = {"error": file.error, "error_type": "INVALID_FORMAT"} if file.error else {}
            fit = {} if file.error else {"dataset_format": file.dataset, "nlines": file.lines}
            shown["validation_report"] = {"valid": not file.error, "file_id": file.id, **fit, **failed}
        return shown


def _form_of(file: StoredFile) -> tuple[int, str]:
    """Return the number of rows and their form. Raises Unfit."""
    rows = rows_of(file.content)
    if file.purpose == "batch-api":
        _require_requests(rows)
        return len(rows), "BATCH"
    forms = {_form(number, row) for number, row in enumerate(rows, start=1)}
    if len(forms) > 1:
        raise Unfit(f"The file mixes the formats {', '.join(sorted(forms))}.")
    form = forms.pop()
    if form in ("CONVERSATION", "PREFERENCE_OPENAI"):
        examples_of(file.content, form)
    return len(rows), form


def rows_of(content: bytes) -> list[dict[str, Any]]:
    """Return the objects of a file. Raises Unfit."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise Unfit(f"Error parsing file. Invalid format on line {number} of the input file. Each line must be a JSON object.")
        rows.append(row)
    if not rows:
        raise Unfit("File is empty")
    return rows


def _form(number: int, row: dict[str, Any]) -> str:
    found = [name for fields, name in FORMATS.items() if fields <= row.keys()]
    if len(found) != 1:
        raise Unfit(f"Line {number} matches {len(found)} of the dataset formats; it must match one.")
    return found[0]


def _require_requests(rows: list[dict[str, Any]]) -> None:
    ids = [row.get("custom_id") for row in rows]
    if len(rows) > MOST_REQUESTS or len(set(map(str, ids))) < len(ids) or not all(isinstance(one, str) and len(one) <= 64 for one in ids):
        raise Unfit(f"Each of at most {MOST_REQUESTS} requests must have a custom_id of its own of at most 64 characters.")
    if not all(isinstance(row.get("body"), dict) for row in rows):
        raise Unfit("Each request must have a body.")


def examples_of(content: bytes, form: str) -> list[Example]:
    """Return the examples of a file of conversations or pairs. Raises Unfit."""
    return [_example(number, row, form) for number, row in enumerate(rows_of(content), start=1)]


def _example(number: int, row: dict[str, Any], form: str) -> Example:
    where = f"line {number}"
    if form == "CONVERSATION":
        said = messages_of(row["messages"], where)
        turns = [message.role for message in (said[1:] if said[0].role == "system" else said)]
        if not turns or turns != ["user", "assistant"] * (len(turns) // 2):
            raise Unfit(f"Invalid roles in conversation on {where}: user and assistant must alternate, from user to assistant.")
        return Example(id=f"{number:016x}", source=where, messages=tuple(said))
    prompt = messages_of(row["input"].get("messages") if isinstance(row["input"], dict) else None, where)
    chosen, rejected = (messages_of(row[name], where) for name in ("preferred_output", "non_preferred_output"))
    if [message.role for message in (*chosen, *rejected)] != ["assistant", "assistant"]:
        raise Unfit(f"Each output on {where} must be exactly one message from the assistant.")
    return Example(id=f"{number:016x}", source=where, messages=(*prompt, *chosen), rejected=rejected[0].content)


def messages_of(found: object, where: str) -> list[Message]:
    """Return messages of a row or a request. Raises Unfit."""
    if not isinstance(found, list) or not found:
        raise Unfit(f"The messages on {where} must be a non-empty list.")
    try:
        return [Message(role=message["role"], content=message["content"]) for message in found]
    except (KeyError, TypeError, ValueError):
        raise Unfit(f"A message on {where} has no content, or a role that is none.") from None
