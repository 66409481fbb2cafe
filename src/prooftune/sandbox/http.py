"""A stand-in's server: a real socket on loopback, requests matched to operations, faults put between work and answer.

A stand-in is an ``Api``: a table of routes, each an operation with a name and a function of the request. It answers with a ``Reply`` or
raises ``Refused``. Its state is its own; requests come from several threads, one at a time per stand-in unless an operation is in
``parallel``.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from prooftune.errors import EnvironmentLacks
from prooftune.sandbox.faults import WORKS, Fault, Faults

HOST = "127.0.0.1"
LARGEST_BODY = 600 * 2**20
"""Bytes; above what OpenAI takes in one request. A larger body is read to its end, thrown away and refused: it has to fit into memory."""
CONTROL = "/_sandbox"
"""Paths below it are the stand-in's own: ``GET /_sandbox/state``, ``GET`` and ``POST /_sandbox/faults``."""


@dataclass(frozen=True)
class Part:
    """A file of a multipart form."""

    filename: str
    content: bytes


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes
    found: Mapping[str, str] = field(default_factory=dict)
    """Named groups of the route's pattern, decoded."""
    oversized: bool = False
    """Whether the body was larger than ``LARGEST_BODY``; nothing of it is there."""

    @property
    def json(self) -> dict[str, Any]:
        """The body as a JSON object. Raises Refused(400)."""
        try:
            value = json.loads(self.body or b"{}")
        except ValueError:
            raise Refused(400, "We could not parse the JSON body of your request.", "invalid_json") from None
        if not isinstance(value, dict):
            raise Refused(400, "The body must be a JSON object.", "invalid_json")
        return value

    def first(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        return next(iter(self.query.get(name, ())), default)

    @property
    def form(self) -> tuple[dict[str, str], dict[str, Part]]:
        """Fields and files of a multipart form."""
        head = f"Content-Type: {self.headers.get('content-type', '')}\r\n\r\n".encode()
        fields: dict[str, str] = {}
        files: dict[str, Part] = {}
        for part in BytesParser(policy=HTTP).parsebytes(head + self.body).iter_parts():
            name = str(part.get_param("name", header="content-disposition"))
            payload = part.get_payload(decode=True)
            content = payload if isinstance(payload, bytes) else b""
            filename = part.get_filename()
            if filename is None:
                fields[name] = content.decode()
            else:
                files[name] = Part(filename, content)
        return fields, files


@dataclass(frozen=True)
class Reply:
    """An answer: a JSON value, or bytes as they are."""

    body: object = field(default_factory=dict)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Refused(Exception):
    """A request that the API refuses; ``Api.error`` gives it the provider's form."""

    def __init__(
        self, status: int, message: str, code: str = "", param: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})


Operation = Callable[[Request], Reply]


@dataclass(frozen=True)
class Route:
    """A path of the API."""

    method: str
    pattern: str
    """Regular expression of the whole path, with named groups."""
    name: str
    """Of the operation, as faults name it."""
    operation: Operation


class Api:
    """What a stand-in for one provider brings."""

    provider = ""
    parallel: frozenset[str] = frozenset()
    """Operations that several requests may be in at once, such as answering."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.lock = threading.RLock()
        self.seen: list[tuple[str, str, str]] = []
        """Operation, method and path of each request, in order of arrival; for tests."""

    def routes(self) -> Sequence[Route]:
        """Return every path."""
        raise NotImplementedError

    def error(self, refused: Refused) -> Reply:
        """Return a refusal in the provider's form."""
        raise NotImplementedError

    def authorise(self, request: Request) -> None:
        """Refuse a request without a fitting key. By default any bearer token will do, but none will not."""
        if not request.headers.get("authorization", "").removeprefix("Bearer ").strip():
            raise Refused(401, "You didn't provide an API key.", "invalid_api_key")

    def state(self) -> dict[str, Any]:
        """Return what the stand-in holds, for ``GET /_sandbox/state``: at least ``jobs`` (a number), and ``bill`` (USD or tokens)."""
        raise NotImplementedError

    def stale(self, reply: Reply) -> Reply:
        """Return a list as it was before its newest object. By default the first entry of ``data`` goes."""
        if isinstance(reply.body, dict) and isinstance(data := reply.body.get("data"), list):
            return Reply(reply.body | {"data": data[1:]}, reply.status, reply.headers)
        return reply

    def without_id(self, reply: Reply) -> Reply:
        """Return an answer that does not name what was made."""
        if isinstance(reply.body, dict):
            return Reply({name: value for name, value in reply.body.items() if name not in ("id", "name")}, reply.status, reply.headers)
        return reply

    def with_status(self, reply: Reply, word: str) -> Reply:
        """Return an object with another status word."""
        if isinstance(reply.body, dict):
            return Reply(reply.body | {"status": word}, reply.status, reply.headers)
        return reply

    def refusal_of(self, fault: Fault) -> Refused:
        """Return the refusal that a fault means, in general words; a provider with codes of its own overrides it."""
        if fault.kind == "rate_limit":
            return Refused(429, "Rate limit reached.", "rate_limit_exceeded", headers={"retry-after": fault.value or "1"})
        if fault.kind == "quota":
            return Refused(429, "You exceeded your current quota, please check your plan and billing details.", "insufficient_quota")
        if fault.kind == "refuse":
            return Refused(400, fault.value or "The request is refused.", "invalid_request")
        if fault.kind == "duplicate":
            return Refused(409, fault.value or "A resource of that name already exists.", "conflict")
        return Refused(500, "The server had an error while processing your request.", "server_error")


def _bytes_of(reply: Reply) -> bytes:
    return reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()


class _Reset(Exception):
    """End the connection as a crash would."""


@dataclass(frozen=True)
class _Answer:
    reply: Reply
    cut: bool = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two packets: the second would wait 40 ms for an acknowledgement of the first
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: the server's owner prints what matters."""

    def _serve(self) -> None:
        try:
            answer = self.server.answer(self._request())
            self._send(answer)
        except _Reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve  # noqa: N815 - names of the base class

    def _request(self) -> Request:
        address = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self._body(headers)
        self.close_connection = self.close_connection or body is None
        query = parse_qs(address.query, keep_blank_values=True)
        return Request(self.command, address.path, query, headers, body or b"", oversized=body is None)

    def _body(self, headers: Mapping[str, str]) -> bytes | None:
        """Return the body, None where it is too large. It is read to its end: what is left would pass for the next request."""
        if headers.get("transfer-encoding", "").lower() != "chunked":
            size = int(headers.get("content-length", 0))
            if size <= LARGEST_BODY:
                return self.rfile.read(size)
            self._skip(size)
            return None
        kept, total = list[bytes](), 0
        while size := int(self.rfile.readline().split(b";")[0], 16):
            total += size
            if total <= LARGEST_BODY:
                kept.append(self.rfile.read(size))
            else:
                kept.clear()
                self._skip(size)
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(kept) if total <= LARGEST_BODY else None

    def _skip(self, size: int) -> None:
        while size and (piece := self.rfile.read(min(size, 2**20))):
            size -= len(piece)

    def _send(self, answer: _Answer) -> None:
        body, data = answer.reply.body, _bytes_of(answer.reply)
        self.send_response(answer.reply.status)
        headers = {"content-type": "application/octet-stream" if isinstance(body, bytes) else "application/json", **answer.reply.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("connection", "close")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(data[: len(data) // 2] if answer.cut else data)
        if answer.cut:
            self.wfile.flush()
            raise _Reset


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, api: Api, port: int) -> None:
        self.api = api
        self.last_request = time.monotonic()
        self.stopping = threading.Event()
        self._routes = [(route, re.compile(route.pattern)) for route in api.routes()]
        super().__init__((HOST, port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that went away."""
        import sys
        import traceback

        if not isinstance(sys.exception(), ConnectionError):
            traceback.print_exc(file=sys.stderr)

    def answer(self, request: Request) -> _Answer:
        self.last_request = time.monotonic()
        if request.path.startswith(CONTROL):
            return _Answer(self._control(request))
        try:
            self.api.authorise(request)
            if request.oversized:
                raise Refused(413, f"The stand-in takes at most {LARGEST_BODY:,} bytes in one request.", "request_too_large")
            route, found = self._route(request)
        except Refused as refused:
            return _Answer(self.api.error(refused))
        self.api.seen.append((route.name, request.method, request.path))
        fault = self.api.faults.due(route.name)
        if fault is not None and fault.kind not in WORKS:
            if fault.kind == "reset_before":
                raise _Reset
            return _Answer(self.api.error(self.api.refusal_of(fault)))
        reply = self._work(route, found)
        return _Answer(reply) if fault is None else self._faulty(reply, fault)

    def _work(self, route: Route, request: Request) -> Reply:
        try:
            with nullcontext() if route.name in self.api.parallel else self.api.lock:
                return route.operation(request)
        except Refused as refused:
            return self.api.error(refused)

    def _faulty(self, reply: Reply, fault: Fault) -> _Answer:
        if fault.kind == "reset_after":
            raise _Reset
        if fault.kind == "timeout_after":
            self.stopping.wait(float(fault.value or 30))
            raise _Reset
        if fault.kind == "error_after":
            return _Answer(self.api.error(self.api.refusal_of(fault)))
        if fault.kind == "cut":
            answer = _Answer(reply, cut=len(_bytes_of(reply)) > 1)
        elif fault.kind == "stale":
            answer = _Answer(self.api.stale(reply))
        elif fault.kind == "lost_id":
            answer = _Answer(self.api.without_id(reply))
        else:
            return _Answer(self.api.with_status(reply, fault.value))
        if answer == _Answer(reply):
            self.api.faults.spare(fault)
        return answer

    def _route(self, request: Request) -> tuple[Route, Request]:
        known = False
        for route, pattern in self._routes:
            if match := pattern.fullmatch(request.path):
                known = True
                if route.method == request.method:
                    found = {name: unquote(value) for name, value in match.groupdict().items() if value is not None}
                    return route, Request(request.method, request.path, request.query, request.headers, request.body, found)
        raise Refused(405 if known else 404, f"Invalid URL ({request.method} {request.path})", "not_found")

    def _control(self, request: Request) -> Reply:
        if request.path == f"{CONTROL}/state":
            with self.api.lock:
                return Reply(self.api.state())
        if request.path == f"{CONTROL}/faults":
            if request.method == "POST":
                self.api.faults.order(**request.json)
            return Reply({"faults": [vars(fault) for fault in self.api.faults.ordered]})
        return Reply({"error": f"no {request.path}; there are {CONTROL}/state and {CONTROL}/faults"}, 404)


@contextmanager
def serving(api: Api, port: int = 0) -> Iterator[str]:
    """Serve a stand-in on loopback while the block runs; gives its address, ``http://127.0.0.1:PORT``.

    Raises:
        EnvironmentLacks: the port is taken.
    """
    try:
        server = _Server(api, port)
    except OSError as error:
        raise EnvironmentLacks(f"port {port} of {HOST} cannot be used: {error.strerror}; name another with --port") from None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name=f"sandbox-{api.provider}", daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}"
    finally:
        server.stopping.set()
        server.shutdown()
        server.server_close()


def serve_until_idle(api: Api, port: int, idle_s: float, started: Callable[[str], None]) -> None:
    """Serve a stand-in until nobody has asked anything for ``idle_s`` seconds; ``started`` gets its address.

    Raises:
        EnvironmentLacks: the port is taken.
    """
    try:
        server = _Server(api, port)
    except OSError as error:
        raise EnvironmentLacks(f"port {port} of {HOST} cannot be used: {error.strerror}; name another with --port") from None
    server.timeout = min(1.0, idle_s)
    started(f"http://{HOST}:{server.server_address[1]}")
    try:
        while time.monotonic() - server.last_request < idle_s:
            server.handle_request()
    finally:
        server.stopping.set()
        server.server_close()
