"""What the parts of Fireworks' stand-in share: refusals, lists, names, and datasets with the signed links to files."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from prooftune.sandbox.http import Refused, Reply, Request, Route

ACCOUNT = r"/v1/accounts/(?P<account>[^/]+)"
ID = r"(?P<id>[^/:]+)"
STORAGE = "/_storage"
"""Paths below it stand for the object store behind the API, which knows no API keys."""
DIRECT_BYTES = 150 * 10**6
_ID = re.compile(r"[a-z0-9-]{1,63}")
_PAGE, _LARGEST_PAGE = 50, 200


def moment(seconds: float) -> str:
    """Return a point in time as the API writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def now() -> str:
    """Return the current time as the API writes it."""
    return moment(datetime.now(UTC).timestamp())


def page_of(request: Request, key: str, items: Sequence[Mapping[str, Any]]) -> Reply:
    """Return one page of a list."""
    size = min(int(request.first("pageSize") or _PAGE), _LARGEST_PAGE)
    start = int(request.first("pageToken") or 0)
    more = {"nextPageToken": str(start + size)} if len(items) > start + size else {}
    return Reply({key: list(items[start : start + size]), **more})


def require_id(value: str, what: str) -> str:
    """Return a resource's id that a client chose, or one of ours where it chose none."""
    if not value:
        return secrets.token_hex(4)
    if not _ID.fullmatch(value):
        raise Refused(400, f"invalid {what} id {value!r}: it must be 1 to 63 characters of a-z, 0-9 and hyphen")
    return value


def require_fields(body: Mapping[str, Any], known: frozenset[str]) -> None:
    """Refuse a body with fields that the API does not know."""
    if unknown := sorted(set(body) - known):
        raise Refused(400, f'unknown field "{unknown[0]}"')


@dataclass
class _Stored:
    """A file in the object store behind the API."""

    read: Callable[[], bytes] | None = None
    """For a link to download."""
    target: dict[str, bytes] | None = None
    """For a link to upload: where the file goes."""
    size: int = 0


@dataclass
class Dataset:
    """A dataset; its files by name."""

    fields: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)
    """Bytes of the files that links were given for."""

    @property
    def rows(self) -> list[bytes]:
        """The lines of all its files."""
        return [line for name in sorted(self.files) for line in self.files[name].split(b"\n") if line.strip()]


class Store:
    """Datasets, and the object store behind them."""

    def __init__(self) -> None:
        self.datasets: dict[str, Dataset] = {}
        self.refuse_next = ""
        """Why the next dataset that is uploaded does not get ready; empty = it does."""
        self._links: dict[str, _Stored] = {}

    def routes(self) -> list[Route]:
        """Return the paths of datasets and signed links."""
        one = f"{ACCOUNT}/datasets/{ID}"
        return [
            Route("POST", f"{ACCOUNT}/datasets", "create_dataset", self._create),
            Route("GET", f"{ACCOUNT}/datasets", "list_files", self._list),
            Route("GET", one, "get_file", lambda request: Reply(self.dataset(request).fields)),
            Route("DELETE", one, "delete_file", self._delete),
            Route("POST", f"{one}:upload", "upload_file", self._upload),
            Route("POST", f"{one}:getUploadEndpoint", "upload_link", self._upload_links),
            Route("POST", f"{one}:validateUpload", "validate_upload", self._validate),
            Route("GET", f"{one}:getDownloadEndpoint", "download_link", self._download_links),
            Route("PUT", rf"{STORAGE}/(?P<token>\w+)/.+", "upload_file", self._put),
            Route("GET", rf"{STORAGE}/(?P<token>\w+)/.+", "result_file", self._get),
        ]

    def dataset(self, request: Request) -> Dataset:
        """Return the dataset that a request names."""
        name = f"accounts/{request.found['account']}/datasets/{request.found['id']}"
        if name not in self.datasets:
            raise Refused(404, f"dataset {name} not found")
        return self.datasets[name]

    def ready(self, name: str, account: str) -> Dataset:
        """Return the dataset that a job is to read."""
        full = name if "/" in name else f"accounts/{account}/datasets/{name}"
        if full not in self.datasets:
            raise Refused(404, f"dataset {full} not found")
        if self.datasets[full].fields["state"] != "READY":
            raise Refused(400, f"dataset {full} is not ready")
        return self.datasets[full]

    def link(self, request: Request, name: str, read: Callable[[], bytes]) -> str:
        """Return a signed link to a file."""
        return self._sign(request, name, _Stored(read=read))

    def add(self, name: str, rows: int, files: Mapping[str, bytes]) -> Dataset:
        """Enter a dataset that a job has written."""
        self.datasets[name] = Dataset(_new(name, {"exampleCount": str(rows)}) | {"state": "READY"}, dict(files))
        return self.datasets[name]

    def _sign(self, request: Request, name: str, stored: _Stored) -> str:
        token = secrets.token_hex(16)
        self._links[token] = stored
        return f"http://{request.headers['host']}{STORAGE}/{token}/{name}"

    def _create(self, request: Request) -> Reply:
        body = request.json
        require_fields(body, frozenset({"dataset", "datasetId", "sourceDatasetId"}))
        wanted = body.get("dataset") or {}
        require_fields(wanted, frozenset({"displayName", "exampleCount", "userUploaded", "format", "externalUrl"}))
        name = f"accounts/{request.found['account']}/datasets/{require_id(str(body.get('datasetId') or ''), 'dataset')}"
        if name in self.datasets:
            raise Refused(409, f"dataset {name} already exists")
        if "exampleCount" not in wanted:
            raise Refused(400, "example_count is required for uploaded datasets")
        self.datasets[name] = Dataset(_new(name, wanted))
        return Reply(self.datasets[name].fields)

    def _list(self, request: Request) -> Reply:
        prefix = f"accounts/{request.found['account']}/"
        return page_of(request, "datasets", [one.fields for name, one in sorted(self.datasets.items()) if name.startswith(prefix)])

    def _delete(self, request: Request) -> Reply:
        del self.datasets[str(self.dataset(request).fields["name"])]
        return Reply()

    def _upload(self, request: Request) -> Reply:
        dataset = self.dataset(request)
        self._require_open(dataset)
        part = request.form[1].get("file")
        if part is None or not part.content:
            raise Refused(400, "the request holds no file")
        if len(part.content) > DIRECT_BYTES:
            raise Refused(400, "files larger than 150MB are uploaded through getUploadEndpoint")
        dataset.files = {part.filename: part.content}
        self._done(dataset)
        return Reply({"filename": part.filename, "bytes": len(part.content)})

    def _upload_links(self, request: Request) -> Reply:
        dataset = self.dataset(request)
        self._require_open(dataset)
        dataset.files = {}
        dataset.expected = {name: int(size) for name, size in (request.json.get("filenameToSize") or {}).items()}
        signed = {name: self._sign(request, name, _Stored(target=dataset.files, size=size)) for name, size in dataset.expected.items()}
        return Reply({"filenameToSignedUrls": signed})

    def _validate(self, request: Request) -> Reply:
        dataset = self.dataset(request)
        found = {name: len(content) for name, content in dataset.files.items()}
        if not found or (dataset.expected and found != dataset.expected):
            raise Refused(400, "the dataset's files are not uploaded")
        self._done(dataset)
        return Reply()

    def _download_links(self, request: Request) -> Reply:
        dataset = self.dataset(request)
        folder = f"dataset/{request.found['id']}"
        links = {f"{folder}/{name}": self.link(request, name, partial(bytes, content)) for name, content in dataset.files.items()}
        return Reply({"filenameToSignedUrls": links})

    def _put(self, request: Request) -> Reply:
        stored = self._stored(request)
        if stored.target is None or request.headers.get("x-goog-content-length-range") != f"{stored.size},{stored.size}":
            return Reply(b"<Error><Code>SignatureDoesNotMatch</Code></Error>", 403)
        if len(request.body) != stored.size:
            return Reply(b"<Error><Code>EntityTooSmall</Code></Error>", 400)
        stored.target[request.path.rpartition("/")[2]] = request.body
        return Reply(b"")

    def _get(self, request: Request) -> Reply:
        stored = self._stored(request)
        if stored.read is None:
            return Reply(b"<Error><Code>SignatureDoesNotMatch</Code></Error>", 403)
        return Reply(stored.read())

    def _stored(self, request: Request) -> _Stored:
        if "authorization" in request.headers:
            raise Refused(400, "a signed link takes no Authorization header")
        if request.found["token"] not in self._links:
            raise Refused(403, "the link has expired")
        return self._links[request.found["token"]]

    def _require_open(self, dataset: Dataset) -> None:
        if dataset.fields["state"] == "READY":
            raise Refused(400, f"dataset {dataset.fields['name']} is already uploaded")

    def _done(self, dataset: Dataset) -> None:
        if self.refuse_next:
            dataset.fields["status"] = {"code": "INVALID_ARGUMENT", "message": self.refuse_next}
            self.refuse_next = ""
            return
        dataset.fields |= {"state": "READY", "updateTime": now(), "status": {"code": "OK", "message": ""}}


def _new(name: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    at = now()
    shared = {"name": name, "state": "UPLOADING", "status": {"code": "OK", "message": ""}, "createTime": at, "updateTime": at}
    return {"format": "FORMAT_UNSPECIFIED", "userUploaded": {}, **wanted, **shared}


def text_of(row: bytes) -> dict[str, Any] | None:
    """Return a row, or None where it is no JSON object."""
    try:
        found = json.loads(row)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
