"""A real Ray cluster for tests: one node, one CPU, on free loopback ports, ended by the ids of its own processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

STARTUP_SECONDS = 120
WAITING_SECONDS = 20
"""That a job may wait for resources; Ray's own limit is 15 min."""
STOP_SECONDS = 40
"""Ray drains a node for up to 30 s."""


@dataclass(frozen=True)
class RayCluster:
    """A running cluster."""

    address: str
    process: psutil.Process

    def client(self) -> Any:
        """A client of Ray's own, to look behind our back."""
        from ray.job_submission import JobSubmissionClient

        return JobSubmissionClient(self.address)

    def jobs(self, id_: str) -> list[str]:
        """The ids of all jobs of a training, oldest first."""
        found = [job for job in self.client().list_jobs() if (job.submission_id or "").startswith(id_)]
        return [job.submission_id for job in sorted(found, key=lambda job: job.start_time)]

    def trainings(self, id_: str) -> list[psutil.Process]:
        """The cluster's processes that do a training."""
        return [child for child in self.process.children(recursive=True) if _does(child, id_)]


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """The cluster, one a session."""
    # Ray's sockets lie in it, and a socket's path may have 107 bytes: pytest's own folders have too long names.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    programs = Path(sys.executable).parent
    gcs, dashboard, agent, client, metrics = _free_ports(5)
    command = [
        *(str(programs / "ray"), "start", "--head", "--block", f"--temp-dir={folder / 'ray'}", "--node-ip-address=127.0.0.1"),
        *("--num-cpus=1", "--num-gpus=0", f"--object-store-memory={80 << 20}", "--disable-usage-stats", "--log-color=false"),
        *(f"--port={gcs}", "--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
        *(f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}"),
    ]
    left_out = ("RAY_", "AWS_", "OMP_NUM_THREADS")
    env = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    env |= {"RAY_JOB_START_TIMEOUT_SECONDS": str(WAITING_SECONDS)}
    env |= {"PATH": f"{programs}{os.pathsep}{env['PATH']}", "XDG_CACHE_HOME": str(folder / "cache"), "RAY_USAGE_STATS_ENABLED": "0"}
    with (folder / "ray.log").open("wb") as log:
        started = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=folder)
    cluster = RayCluster(f"http://127.0.0.1:{dashboard}", psutil.Process(started.pid))
    try:
        _wait_until_ready(started, cluster, folder / "ray.log")
        yield cluster
    finally:
        family = cluster.process.children(recursive=True)
        started.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(STOP_SECONDS)
        for process in [*family, cluster.process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        started.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _does(process: psutil.Process, id_: str) -> bool:
    try:
        command = process.cmdline()
    except psutil.NoSuchProcess:
        return False
    return "prooftune.training.job" in command and id_ in command[-1]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait_until_ready(process: subprocess.Popen[bytes], cluster: RayCluster, log: Path) -> None:
    """Wait for a first job to end: the dashboard answers before jobs can run."""
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(requests.RequestException):
            requests.get(f"{cluster.address}/api/version", timeout=5).raise_for_status()
            break
        time.sleep(0.2)
    client = cluster.client() if process.poll() is None else None
    job = client.submit_job(entrypoint="true") if client else None
    while client and time.monotonic() < deadline:
        if client.get_job_status(job).is_terminal():
            return
        time.sleep(0.2)
    pytest.fail(f"the Ray cluster did not start in {STARTUP_SECONDS} s:\n{log.read_text(errors='replace')[-3000:]}")
