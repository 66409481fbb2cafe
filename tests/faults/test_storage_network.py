"""S3 over a bad network and with bad credentials: a proxy between boto3 and the real server misbehaves on order, and counts how often."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from prooftune.errors import IntegrityError, ProoftuneError, StoreUnavailable, TransientError
from prooftune.spec import Store
from prooftune.storage.objects import AlreadyThere, ObjectStore, VersionChanged, open_store
from prooftune.storage.registry import read_registry, register
from prooftune.storage.s3 import S3Store
from prooftune.types import ArtifactRef, Decision

MIB = 1 << 20
ATTEMPTS = 4
"""Tries of one request by the SDK, as the store sets it."""


@dataclass
class Fault:
    """What to do to the next requests of a kind."""

    kind: str
    """``503``, ``reset``, ``stall``, ``corrupt``, ``lose answer``, ``cut answer``, ``ignore condition``, ``set answer header``."""
    times: int
    method: str
    containing: str
    header: tuple[str, str] = ("", "")


@dataclass
class Proxy:
    """Forwards to the server, byte for byte, but for the faults that were ordered."""

    upstream: int
    port: int = 0
    faults: list[Fault] = field(default_factory=list)
    fired: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def order(self, kind: str, times: int = 10**6, method: str = "PUT", containing: str = "", header: tuple[str, str] = ("", "")) -> None:
        """Order a fault for the next ``times`` requests with this method whose path contains the text."""
        self.faults.append(Fault(kind, times, method, containing, header))

    def due(self, method: str, path: str) -> Fault | None:
        """The fault for this request, if one is due; it counts as fired."""
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method == method and fault.containing in path:
                    fault.times -= 1
                    self.fired[fault.kind] += 1
                    return fault
        return None


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_request(self) -> None:
            fault = proxy.due(self.command, self.path)
            kind = fault.kind if fault else ""
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.close_connection = bool(fault)
            if kind == "stall":
                time.sleep(2.5)
            elif kind == "reset":
                self._reset()
            elif kind == "503":
                self.send_response(503, "Slow Down")
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self._answer(kind, fault, *self._forward(bytes([body[0] ^ 1]) + body[1:] if kind == "corrupt" else body))

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_request  # noqa: N815 - the names that http.server looks for

        def _forward(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", proxy.upstream, timeout=30)
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "expect":
                    connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            data = response.read()
            connection.close()
            return response, data

        def _answer(self, kind: str, fault: Fault | None, response: http.client.HTTPResponse, data: bytes) -> None:
            if kind == "lose answer":
                self._reset()
                return
            headers = dict(response.getheaders())
            if fault and kind == "set answer header":
                headers = {name: value for name, value in headers.items() if name.lower() != fault.header[0]}
                headers |= {fault.header[0]: fault.header[1]} if fault.header[1] else {}
            if fault and kind == "ignore condition" and fault.header[0] in self.headers and response.status == 412:
                response.status, headers, data = 200, {"ETag": '"any"'}, b""
            self.send_response_only(response.status)
            for name, value in headers.items():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            length = response.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if kind == "cut answer" else data)

        def _reset(self) -> None:
            # Closing with nothing to linger for sends RST, which is what a crashed load balancer looks like.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.rfile, self.wfile = open("/dev/null", "rb"), open("/dev/null", "wb")  # noqa: PTH123, SIM115 - closed by http.server

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@pytest.fixture
def proxy(s3_server: Any) -> Iterator[Proxy]:
    """A proxy in front of the server that does nothing wrong yet."""
    proxy = Proxy(s3_server.port)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(proxy))
    server.daemon_threads = True
    proxy.port = server.server_port
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield proxy
    server.shutdown()
    server.server_close()


@pytest.fixture
def store(proxy: Proxy, s3_uri: str) -> S3Store:
    """A new store behind the proxy, with small parts and little patience."""
    bucket, prefix = s3_uri.removeprefix("s3://").split("/", 1)
    return S3Store(bucket, prefix, f"http://127.0.0.1:{proxy.port}", part_size=5 * MIB, timeout=1.0)


@pytest.fixture
def direct(s3_server: Any, s3_uri: str) -> ObjectStore:
    """The same store, past the proxy."""
    return open_store(Store(uri=s3_uri, endpoint_url=s3_server.endpoint))


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A file of three parts."""
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(bytes(range(256)) * (11 * MIB // 256))
    return path


def _unfinished(s3_server: Any, s3_uri: str) -> list[Any]:
    bucket, prefix = s3_uri.removeprefix("s3://").split("/", 1)
    return s3_server.client().list_multipart_uploads(Bucket=bucket, Prefix=prefix).get("Uploads", [])


@pytest.mark.parametrize("fault", ["503", "reset", "stall"])
def test_a_passing_fault_is_ridden_out(store: S3Store, proxy: Proxy, big: Path, fault: str) -> None:
    """Two failures of part uploads are retried, and the file arrives whole."""
    proxy.order(fault, 2, containing="partNumber")
    ref = store.upload(big, "big")
    assert proxy.fired == {fault: 2}
    assert store.measure("big") == ref


@pytest.mark.parametrize("fault", ["503", "reset"])
def test_a_lasting_fault_is_transient_and_leaves_no_parts(
    store: S3Store, direct: ObjectStore, proxy: Proxy, big: Path, s3_server: Any, s3_uri: str, fault: str
) -> None:
    """Tries are bounded; then the error is one to retry later, nothing is visible and no part is left. Later it goes through."""
    proxy.order(fault, containing="partNumber")
    with pytest.raises(TransientError, match="try again"):
        store.upload(big, "big")
    assert ATTEMPTS <= proxy.fired[fault] <= 3 * ATTEMPTS
    assert not direct.exists("big")
    assert _unfinished(s3_server, s3_uri) == []
    proxy.faults.clear()
    assert store.upload(big, "big") == direct.measure("big")


def test_a_server_that_never_answers_is_given_up(store: S3Store, proxy: Proxy) -> None:
    """A stalled request ends in a transient error after the bounded tries, each with its own time-out."""
    proxy.order("stall", method="GET")
    start = time.monotonic()
    with pytest.raises(TransientError, match="ReadTimeoutError"):
        store.get("k")
    assert proxy.fired == {"stall": ATTEMPTS}
    assert time.monotonic() - start < 20


def test_an_answer_cut_short_is_not_taken_for_whole(store: S3Store, direct: ObjectStore, proxy: Proxy, big: Path) -> None:
    """A download that ends early is a transient error and leaves nothing in the cache; the next try has every byte."""
    ref = direct.upload(big, "big")
    proxy.order("cut answer", 1, method="GET")
    with pytest.raises(TransientError):
        store.fetch(ref)
    assert proxy.fired == {"cut answer": 1}
    assert not any(path.is_file() for path in store.work_dir().parent.rglob("*"))
    assert store.fetch(ref).read_bytes() == big.read_bytes()


def test_bytes_damaged_on_the_way_are_not_stored(store: S3Store, direct: ObjectStore, proxy: Proxy, big: Path) -> None:
    """The server refuses a part whose checksum does not fit; nothing is visible, and the next try goes through."""
    proxy.order("corrupt", containing="partNumber=2")
    with pytest.raises(TransientError):
        store.upload(big, "big")
    assert proxy.fired["corrupt"] >= 1
    assert not direct.exists("big")
    proxy.faults.clear()
    assert store.upload(big, "big") == direct.measure("big")


def test_a_won_race_whose_answer_got_lost_is_won(store: S3Store, direct: ObjectStore, proxy: Proxy) -> None:
    """The SDK's retry meets the object of its own first try: that is a success, while a real loss stays a loss."""
    store.check()
    proxy.order("lose answer", 1, containing="/lease")
    version = store.put("lease", b"mine", if_absent=True)
    assert proxy.fired == {"lose answer": 1}
    proxy.order("lose answer", 1, containing="/lease")
    assert store.put("lease", b"mine again", if_match=version) == direct.version("lease")
    assert proxy.fired == {"lose answer": 2}
    direct.put("lease", b"theirs")
    with pytest.raises(AlreadyThere):
        store.put("lease", b"mine", if_absent=True)
    with pytest.raises(VersionChanged):
        store.put("lease", b"mine", if_match=version)
    assert direct.get("lease") == b"theirs"


def test_a_registration_whose_answers_got_lost_counts_once(store: S3Store, direct: ObjectStore, proxy: Proxy) -> None:
    """When every answer is lost the outcome is unknown and the error says to try again; that finds the run registered."""
    manifest, decision = ArtifactRef(key="m", sha256="0" * 64, size=1), Decision(verdict="promote", reasons=("because",))
    store.check()
    proxy.order("lose answer", ATTEMPTS, containing="/registry/")
    with pytest.raises(TransientError):
        register(store, "triage", "run-1", manifest, decision)
    assert proxy.fired == {"lose answer": ATTEMPTS}
    register(store, "triage", "run-1", manifest, decision)
    assert [entry["run_id"] for entry in read_registry(direct, "triage")["history"]] == ["run-1"]


def test_a_completed_upload_whose_answer_got_lost_is_found(store: S3Store, direct: ObjectStore, proxy: Proxy, big: Path) -> None:
    """The last request of a multipart upload takes effect and its answer is lost: at the latest the next try finds the object whole."""
    proxy.order("lose answer", 1, method="POST", containing="uploadId=")
    try:
        ref = store.upload(big, "big")
    except TransientError:
        ref = store.upload(big, "big")
    assert proxy.fired == {"lose answer": 1}
    assert direct.measure("big") == ref


@pytest.mark.parametrize("condition", ["If-None-Match", "If-Match"])
def test_a_server_that_ignores_conditions_is_refused(store: S3Store, direct: ObjectStore, proxy: Proxy, condition: str) -> None:
    """Before the first conditional write the server is probed: one that would let two runs overwrite each other is not used."""
    direct.put("lease", b"first")
    proxy.order("ignore condition", header=(condition, ""))
    for write in (store.check, lambda: store.put("lease", b"second", if_absent=True), lambda: store.put("lease", b"2", if_match='"x"')):
        with pytest.raises(StoreUnavailable, match="ignores them"):
            write()
    assert proxy.fired["ignore condition"] >= 3
    assert direct.get("lease") == b"first"


def test_a_server_without_checksums_is_read_back(store: S3Store, proxy: Proxy, big: Path) -> None:
    """Where the server keeps no checksum, what it stored is verified by reading all of it."""
    proxy.order("set answer header", method="HEAD", header=("x-amz-checksum-sha256", ""))
    proxy.order("cut answer", 1, method="GET", containing="/big")
    with pytest.raises(TransientError):
        store.upload(big, "big")
    assert proxy.fired["cut answer"] == 1


def test_a_server_that_stored_other_bytes_is_caught(store: S3Store, direct: ObjectStore, proxy: Proxy, big: Path) -> None:
    """A checksum other than the file's, after an upload, is an integrity error, and the object does not stay."""
    proxy.order("set answer header", method="HEAD", header=("x-amz-checksum-sha256", "AAAA-3"))
    with pytest.raises(IntegrityError, match="other bytes than were sent"):
        store.upload(big, "big")
    assert proxy.fired["set answer header"] >= 1
    assert not direct.exists("big")


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "canary-secret"}, "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "canary-secret"}, "AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "AWS_ACCESS_KEY_ID"),
        ({"AWS_PROFILE": "nobody"}, "AWS_PROFILE"),
    ],
    ids=["wrong secret", "unknown key", "no credentials", "unknown profile"],
)
def test_wrong_credentials_say_what_to_set(
    s3_uri: str, s3_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], advice: str
) -> None:
    """Reading, writing and uploading with wrong credentials name the variables to set, and show no key in message or traceback."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
        if not value:
            monkeypatch.delenv(name)
    store = open_store(Store(uri=s3_uri, endpoint_url=s3_server.endpoint))
    (tmp_path / "file").write_bytes(b"1")
    for call in (lambda: store.get("k"), lambda: store.put("k", b"1"), store.check, lambda: list(store.list())):
        with pytest.raises(StoreUnavailable, match=advice) as caught:
            call()
        assert "canary" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(StoreUnavailable, match=r"credentials|AWS_"):
        store.upload(tmp_path / "file", "k")


@pytest.mark.usefixtures("s3_environment")
def test_an_unknown_bucket_is_not_a_missing_object(s3_server: Any, tmp_path: Path) -> None:
    """Every method says that the bucket is not there, also those for which a missing object is no error."""
    store = open_store(Store(uri="s3://no-such-bucket/x", endpoint_url=s3_server.endpoint))
    (tmp_path / "file").write_bytes(b"1")
    calls = [
        lambda: store.get("k"),
        lambda: store.put("k", b"1"),
        lambda: store.version("k"),
        lambda: store.exists("k"),
        lambda: list(store.list()),
        lambda: store.upload(tmp_path / "file", "k"),
        store.check,
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match="no such bucket; create it"):
            call()


@pytest.mark.usefixtures("s3_environment")
def test_an_unreachable_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """No one listening is a transient error with the address, which AWS_ENDPOINT_URL may have set; exit code 3."""
    with socket.socket() as taken:  # bound and not listening: a connection is refused
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(TransientError, match=endpoint) as caught:
            open_store(Store(uri="s3://bucket/x")).get("k")
    assert isinstance(caught.value, ProoftuneError)
    assert caught.value.exit_code == 3
