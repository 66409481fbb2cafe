"""The webhook: who may ask, what is taken, and that asking again changes nothing."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from prooftune.errors import EnvironmentLacks, IntegrityError, SpecError, StoreUnavailable
from prooftune.retraining.admission import admit
from prooftune.retraining.claims import fail, finish
from prooftune.spec import parse_spec
from prooftune.storage.local import LocalStore
from prooftune.watching.looks import Look, Quiet
from prooftune.watching.requests import look_at_requests
from prooftune.watching.signals import Signal
from prooftune.watching.webhook import MAX_AGE_S, MAX_BODY, SIGNATURE, TIMESTAMP, Receiver, listening, signature_of

SECRET = "a-shared-secret-of-these-tests"


class Told(list[Signal]):
    """The signals that were handed on, and whether the Prefect server is there."""

    reachable = True

    def __call__(self, signal: Signal) -> bool:
        self.append(signal)
        return self.reachable


@pytest.fixture
def told() -> Told:
    """Who is told."""
    return Told()


@pytest.fixture
def address(tmp_path: Path, told: Told) -> Iterator[str]:
    """A receiver on loopback."""
    with listening(Receiver(LocalStore(tmp_path / "store"), SECRET, told), "127.0.0.1", 0) as found:
        yield found


def post(address: str, body: bytes | dict[str, Any], path: str = "/events/toy", *, age_s: float = 0, **headers: str) -> tuple[int, Any]:
    """Post as a sender does; ``headers`` replace the right ones."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    timestamp = str(int(datetime.now(UTC).timestamp() - age_s))
    right = {TIMESTAMP: timestamp, SIGNATURE: signature_of(SECRET, timestamp, path, content)}
    client = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
    client.request("POST", path, content, right | headers)
    answer = client.getresponse()
    return answer.status, json.loads(answer.read())


def test_a_signed_request_becomes_a_signal(address: str, told: Told) -> None:
    """The signal names the task of the path and the sender's id, and the answer the event's id."""
    status, answer = post(address, {"id": "crm-export-17", "reason": "the CRM has a new export"})
    [signal] = told
    assert (status, answer) == (202, {"event": str(signal.id), "repeated": False})
    assert (signal.kind, signal.task, signal.digest, signal.reason) == ("request", "toy", "crm-export-17", "the CRM has a new export")
    assert signal.event == "prooftune.retrain.requested"


def test_a_replay_is_the_same_event(address: str, told: Told) -> None:
    """The same request again is handed on as it was the first time; a new id is another event."""
    for name in ("a", "a", "b"):
        assert post(address, {"id": name, "reason": "again"})[0] == 202
    assert told[0] == told[1]
    assert told[0].id != told[2].id
    assert post(address, {"id": "a", "reason": "again"})[1]["repeated"]


def test_an_id_used_for_something_else_is_a_conflict(address: str, told: Told) -> None:
    """One id cannot be two requests: the second is refused and not handed on."""
    post(address, {"id": "a", "reason": "first"})
    status, answer = post(address, {"id": "a", "reason": "second"})
    assert status == 409
    assert answer["event"] == str(told[0].id)
    assert len(told) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {SIGNATURE: ""},
        {SIGNATURE: "sha256=" + "0" * 64},
        {SIGNATURE: "sha256=\xff"},
        {TIMESTAMP: ""},
        {TIMESTAMP: "1"},
        {TIMESTAMP: "9" * 400},
        {TIMESTAMP: "now"},
    ],
)
def test_what_is_not_signed_is_refused(address: str, told: Told, headers: dict[str, str]) -> None:
    """A wrong signature, or a timestamp that was not signed, gives 401 and no signal."""
    assert post(address, {"id": "a", "reason": "b"}, **headers)[0] == 401
    assert not told


@pytest.mark.parametrize(("age_s", "status"), [(MAX_AGE_S - 5, 202), (MAX_AGE_S + 5, 401), (-MAX_AGE_S - 5, 401)])
def test_a_signature_is_good_for_minutes(address: str, age_s: float, status: int) -> None:
    """What was overheard cannot be sent again later, though it is rightly signed."""
    assert post(address, {"id": "a", "reason": "b"}, age_s=age_s)[0] == status


def test_a_signature_is_good_for_its_task_alone(address: str, told: Told) -> None:
    """A delivery that was overheard cannot be turned to another task."""
    body, timestamp = b'{"id": "a", "reason": "b"}', str(int(datetime.now(UTC).timestamp()))
    signature = signature_of(SECRET, timestamp, "/events/other", body)
    assert post(address, body, **{TIMESTAMP: timestamp, SIGNATURE: signature})[0] == 401
    assert not told


@pytest.mark.parametrize(
    ("body", "path", "status"),
    [
        (b"{", "/events/toy", 400),
        (b"[]", "/events/toy", 400),
        ({"id": "a"}, "/events/toy", 400),
        ({"id": "../a b", "reason": "b"}, "/events/toy", 400),
        ({"id": "a", "reason": ""}, "/events/toy", 400),
        ({"id": "a", "reason": "b", "more": "canary-81f2"}, "/events/toy", 400),
        ({"id": "a", "reason": "b"}, "/events/../toy", 404),
        ({"id": "a", "reason": "b"}, "/events/Toy", 404),
        ({"id": "a", "reason": "b"}, "/", 404),
    ],
)
def test_what_is_no_request_is_refused(address: str, told: Told, body: bytes | dict[str, Any], path: str, status: int) -> None:
    """Signed or not, a body or path that is none starts nothing, and the answer repeats nothing of it."""
    found, answer = post(address, body, path)
    assert found == status
    assert "canary" not in json.dumps(answer)
    assert not told


def test_a_large_body_is_not_even_read(address: str, told: Told) -> None:
    """A body over the limit is refused by its announced length, and one without a length as well."""
    assert post(address, b"{}", **{"Content-Length": str(MAX_BODY + 1)})[0] == 413
    assert post(address, b"{}", **{"Content-Length": "9" * 5000})[0] == 413
    assert post(address, b"{}", **{"Content-Length": "-1"})[0] == 411
    assert not told


def test_a_client_that_says_nothing_holds_up_nobody(address: str) -> None:
    """While one client sends half a request, another is answered."""
    host, port = urlsplit(address).hostname, urlsplit(address).port
    assert host
    with socket.create_connection((host, port or 0)) as silent:
        silent.sendall(b"POST /events/toy HTTP/1.1\r\n")
        assert post(address, {"id": "a", "reason": "b"})[0] == 202


def test_a_request_that_could_not_be_handed_on_may_be_sent_again(address: str, told: Told) -> None:
    """While the Prefect server is away the sender gets 503; later the same request is taken."""
    told.reachable = False
    assert post(address, {"id": "a", "reason": "b"})[0] == 503
    told.reachable = True
    assert post(address, {"id": "a", "reason": "b"})[0] == 202
    assert told[0] == told[1]


def test_a_store_that_refuses_is_no_crash(tmp_path: Path, told: Told) -> None:
    """Where the request cannot be kept nobody is told of it, and the sender may send it again."""

    class Full(LocalStore):
        def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
            raise StoreUnavailable("the disk is full")

    with listening(Receiver(Full(tmp_path), SECRET, told), "127.0.0.1", 0) as address:
        assert post(address, {"id": "a", "reason": "b"})[0] == 503
    assert not told


def test_health_and_anything_else(address: str) -> None:
    """A probe is answered without a secret, and learns nothing."""
    client = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
    client.request("GET", "/health")
    assert json.loads(client.getresponse().read()) == {"ok": True}
    client = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
    client.request("DELETE", "/events/toy")
    assert client.getresponse().status == 501


def test_a_secret_that_is_none(tmp_path: Path, told: Told) -> None:
    """A short secret, and a port that is taken, are refused before anything is served."""
    with pytest.raises(SpecError, match="16"):
        Receiver(LocalStore(tmp_path), "short", told)
    receiver = Receiver(LocalStore(tmp_path), SECRET, told)
    with listening(receiver, "127.0.0.1", 0) as address:
        taken = urlsplit(address).port or 0
        with pytest.raises(EnvironmentLacks, match="cannot be used"), listening(receiver, "127.0.0.1", taken):
            pass


# What was taken and has not been done

SPEC = parse_spec({"name": "toy", "data": {"source": "toy.jsonl"}, "retrain": {"cool_down_hours": 24}})
NOW = datetime.now(UTC)


def look(store: LocalStore, hours: float = 0) -> Look:
    """Look for requests."""
    return look_at_requests(store, SPEC, NOW + timedelta(hours=hours))


def test_a_request_is_told_again_until_its_retraining_has_ended(tmp_path: Path, address: str, told: Told) -> None:
    """One that was refused at first, by the cool-down or for want of money, or whose event was lost, is told later as the same one."""
    store = LocalStore(tmp_path / "store")
    assert look(store) == Quiet(kind="request", reason="no request waits")
    first = admit(store, SPEC, Signal(kind="data", task="toy", digest="d1", reason="new", at=""), "a", NOW)
    assert finish(store, "toy", first.token or 0, "promote")
    assert post(address, {"id": "export-1", "reason": "a new export"})[0] == 202
    assert admit(store, SPEC, told[0], "b", NOW + timedelta(hours=1)).decision == "cooling_down"
    again = look(store, hours=25)
    assert again == told[0]
    started = admit(store, SPEC, told[0], "c", NOW + timedelta(hours=25))
    assert finish(store, "toy", started.token or 0, "keep_baseline")
    assert isinstance(look(store, hours=26), Quiet)


def test_a_request_that_fails_keeps_no_other_waiting(tmp_path: Path, address: str, told: Told) -> None:
    """The ones that were never started come before those that failed, in the order in which they came."""
    store = LocalStore(tmp_path / "store")
    for number in (1, 2):
        assert post(address, {"id": f"export-{number}", "reason": "a new export"})[0] == 202
    assert look(store) == told[0]
    started = admit(store, SPEC, told[0], "a", NOW)
    assert fail(store, "toy", started.token or 0, "DataError: the file is empty")
    assert look(store, hours=25) == told[1]
    started = admit(store, SPEC, told[1], "a", NOW + timedelta(hours=25))
    assert finish(store, "toy", started.token or 0, "promote")
    assert look(store, hours=50) == told[0]


def test_a_damaged_request_is_no_silence(tmp_path: Path, address: str) -> None:
    """The look fails and names the document."""
    store = LocalStore(tmp_path / "store")
    assert post(address, {"id": "export-1", "reason": "a new export"})[0] == 202
    [key] = store.list("watch/toy/requests/")
    store.put(key, b"{}")
    with pytest.raises(IntegrityError, match=key):
        look(store)
