"""A real Prefect server with our deployments, workers that can be killed, and flows that say when they run."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from tests_support import ROOT, prooftune

from flows.local_server import healthy

SLOW_FLOW = '''
import os, time
from pathlib import Path
from prefect import flow, task

@task(tags=["{tag}"])
def hold(folder: str, name: str, seconds: float) -> None:
    (Path(folder) / f"{{name}}.holds").write_text(str(time.time()))
    time.sleep(seconds)
    (Path(folder) / f"{{name}}.held").write_text(str(time.time()))

@flow(name="slow", flow_run_name="{{name}}")
def slow(folder: str, name: str, first_seconds: float, seconds: float = 0.0) -> None:
    """Holds long the first time, and shortly when it is started again."""
    again = (Path(folder) / f"{{name}}.pid").exists()
    (Path(folder) / f"{{name}}.pid").write_text(str(os.getpid()))
    hold(folder, name, seconds if again else first_seconds)
'''
"""A flow of a user: what is tested is what the server does with its runs."""


@pytest.fixture(scope="module")
def client(server: dict[str, Any]) -> Iterator[SyncPrefectClient]:
    """A client of the test server, patient while SQLite is locked."""
    with temporary_settings({PREFECT_API_URL: server["api"], PREFECT_CLIENT_MAX_RETRIES: 15}), get_client(sync_client=True) as found:
        yield found


@pytest.fixture(scope="module")
def deployed(server: dict[str, Any], home: dict[str, str]) -> dict[str, Any]:
    """What ``prooftune deploy`` says of the repository's own files."""
    return answer_of("deploy", str(ROOT), env=home)


def answer_of(*arguments: str, env: dict[str, str]) -> dict[str, Any]:
    """Return what a command of ours answers."""
    done = prooftune(*arguments, "--json", env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def deploy_slow(folder: Path, env: dict[str, str], tag: str = "none", limit: int = 10) -> str:
    """Deploy the slow flow from a folder, like one of ours that is kept alive, and return its full name."""
    name = f"slow-{folder.name}"
    (folder / "slow.py").write_text(SLOW_FLOW.format(tag=tag))
    (folder / "prefect.yaml").write_text(
        f"""
pull: [{{prefect.deployments.steps.set_working_directory: {{directory: "{folder}"}}}}]
deployments:
  - name: {name}
    entrypoint: slow.py:slow
    tags: [prooftune, restart-when-crashed]
    work_pool: {{name: cpu}}
    concurrency_limit: {{limit: {limit}, collision_strategy: ENQUEUE}}
"""
    )
    done = subprocess.run(["prefect", "--no-prompt", "deploy", "--all"], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return f"slow/{name}"


@contextmanager
def worker(env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process worker on the pool ``cpu``, killed with its flow runs at the end unless it was before."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["prefect", "worker", "start", "--pool", "cpu", "--type", "process"],
            env=env | {"PREFECT_WORKER_QUERY_SECONDS": "1"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            kill(process)


def restart_server(server: psutil.Process, away_s: float, log: Path) -> subprocess.Popen[bytes]:
    """Stop a Prefect server, and start it as it was after a while; returns the new one, which the caller has to stop."""
    command, env, folder = server.cmdline(), server.environ(), server.cwd()
    server.terminate()
    server.wait(timeout=60)
    time.sleep(away_s)
    with log.open("ab") as output:
        new = subprocess.Popen(command, env=env, cwd=folder, stdout=output, stderr=output, start_new_session=True)
    await_true("the server is back", lambda: healthy(env["PREFECT_API_URL"]), 120)
    return new


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a worker and the processes of its flow runs at once; one that is asked to stop would wait for them."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    for member in [process, *family]:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=30)  # zombies count as ended
    process.wait(timeout=30)


def await_true(what: str, ask: Callable[[], Any], seconds: float, every: float = 1.0) -> Any:
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        time.sleep(every)
    raise TimeoutError(f"{what}: not within {seconds} s")


def await_state(client: SyncPrefectClient, run: UUID, name: str, seconds: float) -> FlowRun:
    """Wait until a flow run is, or was, in a state."""

    def was() -> bool:
        return any(state.name == name for state in client.read_flow_run_states(run))

    await_true(f"{run} {name}", was, seconds)
    return client.read_flow_run(run)


@contextmanager
def inbox() -> Iterator[tuple[str, list[bytes]]]:
    """An HTTP server on loopback that keeps what is posted to it; gives its address and the bodies."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", bodies
        server.shutdown()
