"""Whatever happens while a Ray job is submitted, on a real cluster: never two jobs of one training, and never a lost one."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from fixtures_crashes import Crash, CrashingStore

from prooftune.errors import TransientError
from prooftune.providers import calls, ray, ray_orders
from prooftune.providers import ray_cluster as cluster_file
from prooftune.providers.ray import id_of, run_on_ray
from prooftune.spec import Method, Store, Task, Tracking
from prooftune.storage.objects import open_store
from prooftune.types import ModelRef, no_report

if TYPE_CHECKING:
    from fixtures_ray import RayCluster

pytest_plugins = ["fixtures_ray"]
pytestmark = pytest.mark.slow  # each fault is a job of a real cluster: some seconds
KEY = "stages/train/3f6c"
KINDS = ("error_before", "error_after", "reset_before", "reset_after", "cut", "rate_limit", "silent")
STEPS = {"version": ("GET", "/api/version"), "get_job": ("GET", "/api/jobs/"), "submit": ("POST", "/api/jobs/")}
"""The requests of a submission."""
LIMIT_S = 5.0
"""That a client waits for an answer here; the cluster itself takes a second or two to take a job."""
MOST_CALLS = 12
FLOOR = 60


@dataclass
class Proxy:
    """What stands between us and the cluster, and misbehaves as it is told."""

    target: str
    address: str = ""
    kind: str = ""
    step: str = ""
    times: int = 0
    fired: int = 0

    def order(self, kind: str = "", step: str = "", times: int = 0) -> None:
        """Misbehave at the next ``times`` requests of a step; without a step, at none."""
        self.kind, self.step, self.times, self.fired = kind, step, times, 0

    def due(self, method: str, path: str) -> str:
        """Return the fault that a request meets, or nothing."""
        wanted = STEPS.get(self.step)
        if wanted is None or self.fired >= self.times or method != wanted[0] or not path.startswith(wanted[1]):
            return ""
        self.fired += 1
        return self.kind


def handler_of(proxy: Proxy, stopping: threading.Event) -> type[BaseHTTPRequestHandler]:
    """Return what passes requests on, or not, or not the answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._pass(None)

        def do_POST(self) -> None:
            self._pass(self.rfile.read(int(self.headers["Content-Length"] or 0)))

        def _pass(self, body: bytes | None) -> None:
            kind = proxy.due(self.command, self.path)
            if kind in ("error_before", "rate_limit"):
                self._answer(500 if kind == "error_before" else 429, b"not now")
                return
            if kind != "reset_before":
                headers = {"Content-Type": "application/json"}
                answer = requests.request(self.command, proxy.target + self.path, data=body, headers=headers, timeout=30)
            if kind == "silent":
                stopping.wait(60)
            if kind in ("silent", "reset_before", "reset_after"):
                self.connection.shutdown(socket.SHUT_RDWR)
            elif kind == "error_after":
                self._answer(500, b"done, and not told")
            else:
                self._answer(answer.status_code, answer.content, cut=kind == "cut")

        def _answer(self, status: int, body: bytes, *, cut: bool = False) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut else body)
            if cut:
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    return Handler


@pytest.fixture
def proxy(ray_cluster: RayCluster) -> Iterator[Proxy]:
    """A proxy before the cluster."""
    found, stopping = Proxy(ray_cluster.address), threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(found, stopping))
    server.daemon_threads = True
    found.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield found
    stopping.set()
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class Training:
    """One training, asked for without waiting for it. Its job only sleeps: what is looked at is the submission."""

    folder: Path
    address: str

    @property
    def store(self) -> Store:
        return Store(uri=str(self.folder / "store"))

    @property
    def id(self) -> str:
        return id_of(open_store(self.store), KEY)

    def call(self) -> None:
        """Run the command once, in a process that knows nothing of earlier ones."""
        rows = self.folder / "rows.jsonl"
        rows.write_text("{}\n")
        inputs = (rows, rows, ModelRef(name="m", revision="", sha256="0" * 64), Task(), Method(), Tracking(), 1)
        run_on_ray(inputs, self.address, self.store, KEY, no_report, cpus=0, gpus=0, hold_s=0)

    def check(self, cluster: RayCluster) -> None:
        """Run it again until it works: there is one job, and the store knows where it is; then end it."""
        for _ in range(MOST_CALLS):
            try:
                self.call()
                break
            except TransientError:
                continue
        else:
            raise AssertionError(f"not done after {MOST_CALLS} calls")
        self.call()
        assert cluster.jobs(self.id) == [self.id]
        order = ray_orders.find(open_store(self.store), self.id)
        assert order is not None
        assert ray_orders.cancel(order) is not None


@pytest.fixture
def new_training(tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Training]:
    """Makes trainings, each with a store of its own, behind the proxy."""
    monkeypatch.setattr(calls, "FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(cluster_file, "TIMEOUT_S", LIMIT_S)
    monkeypatch.setattr(ray, "ENTRYPOINT", "exec sleep 600 #")
    for name in (*cluster_file.OVERRIDES, cluster_file.TOKEN):
        monkeypatch.delenv(name, raising=False)
    numbers = itertools.count()

    def make() -> Training:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        return Training(folder, proxy.address)

    return make


def test_a_fault_of_every_kind_at_every_request(
    new_training: Callable[[], Training], proxy: Proxy, ray_cluster: RayCluster, record_faults: Callable[[str, int], None]
) -> None:
    """The cluster misbehaves once or several times in a row, at each request of a submission."""
    met = 0
    for kind, step, times in itertools.product(KINDS, STEPS, (1, 7)):
        if kind == "silent" and times > 1:
            continue
        training = new_training()
        proxy.order(kind, step, times)
        with contextlib.suppress(TransientError):
            training.call()
        assert proxy.fired, f"{kind}@{step}*{times} did not happen"
        met += proxy.fired
        proxy.order()
        training.check(ray_cluster)
    assert met >= FLOOR
    record_faults("ray", met)


def test_a_crash_at_every_write(
    new_training: Callable[[], Training],
    ray_cluster: RayCluster,
    record_faults: Callable[[str, int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process dies before or after each write to the store."""

    def call_with(store: CrashingStore, training: Training) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(ray, "open_store", lambda _: store)
            training.call()

    training = new_training()
    counted = CrashingStore(open_store(training.store), at=0, after=False)
    call_with(counted, training)
    training.check(ray_cluster)
    assert counted.writes >= 2, "the order and the inputs"
    for at, after in itertools.product(range(1, counted.writes + 1), (False, True)):
        training = new_training()
        store = CrashingStore(open_store(training.store), at, after)
        with pytest.raises(Crash):
            call_with(store, training)
        assert store.crashed
        training.check(ray_cluster)
        record_faults("ray", 1)
