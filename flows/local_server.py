"""The Prefect server of a single machine: real, on loopback, with SQLite; started when no API URL is configured.

Prefect's ephemeral mode would lose task-run records at exit, so a run without a configured server gets this one, and
``prooftune down`` stops it. Its database is its own: a Prefect that the user has besides is left alone.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path

import platformdirs
from filelock import FileLock

from flows.processes import ProcessRecord, await_answer, free_ports, launch, recorded, stop
from prooftune.errors import EnvironmentLacks

PORT = 4200
WORK_POOL = "cpu"
"""The process pool of prefect.yaml's deployments."""
KEEPS_LEASES = {"PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem"}
"""Setting of a server that may be restarted: it keeps who holds a concurrency slot below PREFECT_HOME. By default it forgets that, refuses
to renew the slot, and Prefect ends a flow run whose slot is not renewed."""


@dataclass(frozen=True)
class LocalServer(ProcessRecord):
    """A server process that this user started through Prooftune."""

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
    found = recorded(state_folder() / "server.json")
    return LocalServer(**asdict(found)) if found and found.process() else None


def start_server(waiting: Callable[[], None] = lambda: None) -> LocalServer:
    """Return the running server, or start one and wait until it answers.

    Raises:
        EnvironmentLacks: it does not come up; the message ends with what its log says.
    """
    folder = state_folder()
    with FileLock(folder / "server.lock", fallback_to_soft=False):
        if server := running_server():
            _wait(server, folder, started_now=False)  # a busy machine may make it slow to answer
            return server
        waiting()
        [port] = free_ports(PORT)
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        started = launch(command, folder / "server.json", folder / "server.log", port=port, cwd=folder, env=_environment(folder, port))
        server = LocalServer(**asdict(started))
        _wait(server, folder)
        create_work_pool(server.api_url)
        return server


def stop_server() -> LocalServer | None:
    """Stop the server and return what was stopped, or None where none ran."""
    folder = state_folder()
    with FileLock(folder / "server.lock", fallback_to_soft=False):
        server = running_server()
        if server:
            stop(server)
        (folder / "server.json").unlink(missing_ok=True)
        return server


def _environment(folder: Path, port: int) -> dict[str, str]:
    own = {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder / 'prefect.db'}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "20",  # on a busy machine SQLite's turn to write takes longer than the 10 s of the default
        "DO_NOT_TRACK": "1",
        **KEEPS_LEASES,
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return inherited | own


def healthy(api_url: str) -> bool:
    """Return whether a Prefect server answers there; one that asks for a key does."""
    try:
        with urllib.request.urlopen(f"{api_url}/health", timeout=5) as answer:  # noqa: S310 - configured by the user, or our own
            return bool(answer.status == 200)
    except urllib.error.HTTPError as refusal:
        return refusal.code in (401, 403)
    except (OSError, HTTPException, ValueError):
        return False


def create_work_pool(api_url: str) -> None:
    """Make the pool that prefect.yaml deploys to: Prefect refuses to deploy to one that is not there.

    Its runs do not print through their worker, as those of the pools in ``deployments/``: one whose worker was killed would die of its next
    line, without a word to the server.
    """
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()  # the server's own copy comes from the internet
    template["variables"]["properties"]["stream_output"]["default"] = False
    body = json.dumps({"name": WORK_POOL, "type": "process", "base_job_template": template}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{api_url}/work_pools/", data=body, headers=headers)  # noqa: S310 - our own loopback address
    try:
        urllib.request.urlopen(request, timeout=30).close()  # noqa: S310 - the same
    except urllib.error.HTTPError as error:
        already_there = 409
        if error.code != already_there:
            raise EnvironmentLacks(f"the Prefect server at {api_url} refused to make the work pool {WORK_POOL!r}: {error}") from None


def _wait(server: LocalServer, folder: Path, *, started_now: bool = True) -> None:
    what = f"the local Prefect server at {server.api_url}"
    await_answer(server, lambda: healthy(server.api_url), folder / "server.log", what, started_now=started_now)
