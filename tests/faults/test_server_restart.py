"""A flow run lives through a restart of the Prefect server."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest
from fixtures_deployed import answer_of, await_state, await_true, deploy_slow, restart_server, worker
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from tests_support import ROOT

AWAY_S = 75.0
"""Longer than the silence after which a run is looked at."""
RENEWAL_S = 225.0
"""After so long Prefect renews a run's concurrency slot, and ends the run where the server knows the slot no more."""


@pytest.mark.slow
def test_a_run_lives_through_a_restart_of_the_server(home: dict[str, str], tmp_path: Path) -> None:
    """The server is away for more than a minute: the run is neither marked Crashed nor ended over its concurrency slot, and completes."""
    env = home | {"HOME": str(tmp_path)}
    up = answer_of("up", env=env)
    server, env = psutil.Process(up["pid"]), env | {"PREFECT_API_URL": up["api"]}
    settings = {PREFECT_API_URL: up["api"], PREFECT_CLIENT_MAX_RETRIES: 15}
    try:
        answer_of("deploy", str(ROOT), env=env)
        with temporary_settings(settings), get_client(sync_client=True) as client, worker(env, tmp_path / "worker.log"):
            deployment = client.read_deployment_by_name(deploy_slow(tmp_path, env, limit=1))
            parameters = {"folder": str(tmp_path), "name": "patient", "first_seconds": RENEWAL_S + 30}
            run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
            await_true("the flow's task", (tmp_path / "patient.holds").exists, 180)
            time.sleep(5)  # its first heartbeat is on its way
            first, server = server, psutil.Process(restart_server(server, AWAY_S, tmp_path / "server.log").pid)
            assert not first.is_running()
            await_state(client, run.id, "Completed", RENEWAL_S + 120)
            assert "Crashed" not in [state.name for state in client.read_flow_run_states(run.id)]
    finally:
        server.terminate()
        psutil.wait_procs([server], timeout=30)
