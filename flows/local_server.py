"""The Prefect server of a single machine: real, on loopback, with SQLite; started when no API URL is configured.

Prefect's ephemeral mode would lose task-run records at exit, so a run without a configured server gets this one, and
``prooftune down`` stops it. Its database is its own: a Prefect that the user has besides is left alone.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path

import platformdirs
import psutil
from filelock import FileLock

from prooftune.errors import EnvironmentLacks

PORT = 4200
WORK_POOL = "cpu"
"""The process pool of prefect.yaml's deployments."""
START_S = 120.0
"""A busy machine takes long to import a server."""


@dataclass(frozen=True)
class LocalServer:
    """A server process that this user started through Prooftune."""

    pid: int
    started: float
    """Creation time of the process in seconds since the epoch: with the pid it names one process for good."""
    port: int

    @property
    def ui_url(self) -> str:
        """Address of the pages."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def api_url(self) -> str:
        """Address of the API."""
        return f"{self.ui_url}/api"


def configured_api_url() -> str | None:
    """Return the API URL that the environment or the active Prefect profile names."""
    if url := os.environ.get("PREFECT_API_URL"):
        return url
    from prefect.settings import get_current_settings

    return get_current_settings().api.url


def state_folder() -> Path:
    """Return the folder of the local server's database, log and process record, made if need be."""
    folder = Path(platformdirs.user_state_dir("prooftune"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentLacks(
            f"the folder {folder} for the local Prefect server cannot be made ({error.strerror}); set XDG_STATE_HOME"
        ) from None
    return folder


def running_server() -> LocalServer | None:
    """Return the server that runs, or None."""
    try:
        server = LocalServer(**json.loads((state_folder() / "server.json").read_text()))
        alive = abs(psutil.Process(server.pid).create_time() - server.started) < 2
    except (FileNotFoundError, ValueError, TypeError, psutil.NoSuchProcess):
        return None
    return server if alive else None


def start_server(waiting: Callable[[], None] = lambda: None) -> LocalServer:
    """Return the running server, or start one and wait until it answers.

    Raises:
        EnvironmentLacks: it does not come up; the message ends with what its log says.
    """
    folder = state_folder()
    with FileLock(folder / "server.lock", fallback_to_soft=False):
        if server := running_server():
            _wait(server, psutil.Process(server.pid), folder / "server.log")  # a busy machine may make it slow to answer
            return server
        waiting()
        port = _free_port()
        log = (folder / "server.log").open("ab")
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env=_environment(folder, port), start_new_session=True
        )
        server = LocalServer(process.pid, psutil.Process(process.pid).create_time(), port)
        (folder / "server.json").write_text(json.dumps(asdict(server)))
        _wait(server, psutil.Process(process.pid), folder / "server.log")
        _create_work_pool(server)
        return server


def stop_server() -> LocalServer | None:
    """Stop the server and return what was stopped, or None where none ran."""
    folder = state_folder()
    with FileLock(folder / "server.lock", fallback_to_soft=False):
        server = running_server()
        if server:
            process = psutil.Process(server.pid)
            family = [process, *process.children(recursive=True)]
            process.terminate()
            _, alive = psutil.wait_procs(family, timeout=10)
            for left in alive:
                left.kill()
        (folder / "server.json").unlink(missing_ok=True)
        return server


def _environment(folder: Path, port: int) -> dict[str, str]:
    own = {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder / 'prefect.db'}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",  # SQLite has one writer at a time; on a busy machine its turn can take longer than 10 s
        "DO_NOT_TRACK": "1",
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return inherited | own


def _free_port() -> int:
    for port in (PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise EnvironmentLacks("no port is free on 127.0.0.1 for the local Prefect server; set PREFECT_API_URL to a server that runs")


def healthy(api_url: str) -> bool:
    """Return whether a Prefect server answers there; one that asks for a key does."""
    try:
        with urllib.request.urlopen(f"{api_url}/health", timeout=5) as answer:  # noqa: S310 - configured by the user, or our own
            return bool(answer.status == 200)
    except urllib.error.HTTPError as refusal:
        return refusal.code in (401, 403)
    except (OSError, HTTPException, ValueError):
        return False


def _create_work_pool(server: LocalServer) -> None:
    """Make the pool that prefect.yaml deploys to: Prefect refuses to deploy to one that is not there."""
    body = json.dumps({"name": WORK_POOL, "type": "process"}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.api_url}/work_pools/", data=body, headers=headers)  # noqa: S310 - our own loopback address
    try:
        urllib.request.urlopen(request, timeout=30).close()  # noqa: S310 - the same
    except urllib.error.HTTPError as error:
        already_there = 409
        if error.code != already_there:
            raise EnvironmentLacks(f"the local Prefect server refused to make the work pool {WORK_POOL!r}: {error}") from None


def _wait(server: LocalServer, process: psutil.Process, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if healthy(server.api_url):
            return
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.25)
    if process.is_running():
        process.terminate()
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise EnvironmentLacks(
        f"the local Prefect server did not answer at {server.api_url} within {START_S:.0f} s. Its log, {log}, ends:\n{tail}"
    )
