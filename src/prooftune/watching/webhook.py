"""Takes requests for a retraining over HTTP from those who know a secret, and makes signals of them.

``POST /events/TASK`` with ``{"id": …, "reason": …}`` and two headers: ``X-Prooftune-Timestamp``, seconds since 1970, and
``X-Prooftune-Signature``, ``sha256=`` and the hex HMAC-SHA256 (RFC 2104) of timestamp, path and body with a line feed between them. Time
and path are signed as well: what was overheard is good for five minutes and for the same task alone, and there it only repeats itself,
since the same id is the same occurrence.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated, Any, NamedTuple

from pydantic import Field, ValidationError

from prooftune.errors import EnvironmentLacks, SpecError
from prooftune.storage.objects import AlreadyThere, ObjectStore
from prooftune.types import Frozen
from prooftune.watching.looks import stamp
from prooftune.watching.requests import key_of
from prooftune.watching.signals import Signal

TIMESTAMP, SIGNATURE = "X-Prooftune-Timestamp", "X-Prooftune-Signature"
MAX_AGE_S = 300
"""A signature is good for so long before and after its timestamp: clocks differ."""
MAX_BODY = 16 * 2**10
"""Bytes."""
LONGEST_LENGTH = 20
"""Digits of a body's announced length."""
SHORTEST_SECRET = 16
"""Characters."""
TIMEOUT_S = 10.0
"""A client that says nothing for so long is let go."""
_PATH = re.compile(r"/events/([a-z0-9][a-z0-9-]{0,62})")
log = logging.getLogger(__name__)


class Request(Frozen):
    """What is posted."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/@+-]{1,128}$")]
    """The sender's own name for the occurrence: by it a repetition is known."""
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    """A sentence for people."""


class Delivery(NamedTuple):
    """A request as it came."""

    path: str
    timestamp: str
    signature: str
    body: bytes


class Answer(NamedTuple):
    """What the sender is told."""

    status: int
    told: dict[str, Any]


def signature_of(secret: str, timestamp: str, path: str, body: bytes) -> str:
    """Return the value of the signature's header."""
    signed = f"{timestamp}\n{path}\n".encode() + body
    return f"sha256={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"


class Receiver:
    """Decides on deliveries: who may ask, what is asked, and whether it is the same as before.

    Args:
        store: Where each request is kept, ``watch/TASK/requests/``, before anybody is told of it.
        secret: Shared with the senders.
        tell: Hands a signal on; False = it could not be.

    Raises:
        SpecError: the secret is too short to be one.
    """

    def __init__(self, store: ObjectStore, secret: str, tell: Callable[[Signal], bool]) -> None:
        if len(secret) < SHORTEST_SECRET:
            raise SpecError(f"the webhook's secret has {len(secret)} characters; at least {SHORTEST_SECRET} random ones are required")
        self._store, self._secret, self._tell = store, secret, tell

    def answer(self, delivery: Delivery, now: datetime) -> Answer:
        """Return 202 for a request that was handed on, again too, and else why not.

        401: not signed, wrongly, or too long ago. 404: no such path. 400: no such request. 409: the id was used for something else.
        503: it is kept, and could not be handed on; the sender may send it again. What is kept is told again by a sensor.

        Raises:
            StoreUnavailable, TransientError: the store cannot be reached.
        """
        if not self._is_signed(delivery, now):
            return Answer(401, {"error": f"{SIGNATURE} or {TIMESTAMP} is missing, wrong or older than {MAX_AGE_S} seconds"})
        if (named := _PATH.fullmatch(delivery.path)) is None:
            return Answer(404, {"error": "required is POST /events/TASK"})
        try:
            asked = Request.model_validate_json(delivery.body)
        except ValidationError as error:
            return Answer(400, {"error": "the body is no request", "problems": _problems(error)})
        signal = Signal(kind="request", task=named[1], digest=asked.id, reason=asked.reason, at=stamp(now))
        kept = self._kept(signal)
        if kept.reason != signal.reason:
            return Answer(409, {"error": f"the id {asked.id} was used for another request", "event": str(kept.id)})
        if not self._tell(kept):
            return Answer(503, {"error": "the Prefect server cannot be reached; send it again", "event": str(kept.id)})
        return Answer(202, {"event": str(kept.id), "repeated": kept is not signal})

    def _is_signed(self, delivery: Delivery, now: datetime) -> bool:
        wanted = signature_of(self._secret, delivery.timestamp, delivery.path, delivery.body)
        same = hmac.compare_digest(wanted.encode(), delivery.signature.encode("utf-8", "surrogateescape"))
        in_time = delivery.timestamp.isascii() and delivery.timestamp.isdecimal() and len(delivery.timestamp) <= 12
        return same and in_time and abs(now.timestamp() - int(delivery.timestamp)) <= MAX_AGE_S

    def _kept(self, signal: Signal) -> Signal:
        """Keep a request; of one that is kept already, return what it was when it came first."""
        key = key_of(signal.task, signal.digest)
        try:
            self._store.put(key, (signal.model_dump_json(indent=1) + "\n").encode(), if_absent=True)
        except AlreadyThere:
            return Signal.model_validate_json(self._store.get(key))
        return signal


def _problems(error: ValidationError) -> list[str]:
    """Return what is wrong with a body, without what it holds."""
    return [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_url=False, include_input=False)]


@contextmanager
def listening(receiver: Receiver, host: str, port: int) -> Iterator[str]:
    """Serve a receiver while the block runs; gives its address.

    Raises:
        EnvironmentLacks: the port is taken, or the host is none of this machine.
    """
    try:
        server = _Server(receiver, host, port)
    except OSError as error:
        raise EnvironmentLacks(f"port {port} of {host} cannot be used: {error.strerror or error}; name another with --port") from None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="webhook", daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, receiver: Receiver, host: str, port: int) -> None:
        self.receiver = receiver
        super().__init__((host, port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Leave a delivery unanswered whose client went away, or whose record is damaged; the others go on."""
        log.warning("webhook: a delivery was not answered: %s", type(sys.exc_info()[1]).__name__)


class _Handler(BaseHTTPRequestHandler):
    timeout = TIMEOUT_S
    server: _Server
    server_version = "prooftune"
    sys_version = ""

    def do_POST(self) -> None:
        started = time.monotonic()
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()):
            answer = Answer(411, {"error": "Content-Length is required"})
        elif len(length) > LONGEST_LENGTH or int(length) > MAX_BODY:  # Python converts no number of thousands of digits
            answer = Answer(413, {"error": f"at most {MAX_BODY:,} bytes are taken"})
        else:
            answer = self._answer(self.rfile.read(int(length)))
        self._send(answer)
        log.info("webhook: %d in %.3f s", answer.status, time.monotonic() - started)

    def do_GET(self) -> None:
        known = self.path == "/health"
        self._send(Answer(200, {"ok": True}) if known else Answer(404, {"error": "required is POST /events/TASK"}))

    def _answer(self, body: bytes) -> Answer:
        delivery = Delivery(self.path, self.headers.get(TIMESTAMP, ""), self.headers.get(SIGNATURE, ""), body)
        try:
            return self.server.receiver.answer(delivery, datetime.now(UTC))
        except OSError as error:  # ours of the store are OSErrors
            log.warning("webhook: the store refused: %s", error)
            return Answer(503, {"error": "the request could not be kept; send it again"})

    def _send(self, answer: Answer) -> None:
        body = json.dumps(answer.told).encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Leave it to the log above: no address and no path."""
