"""prefect.yaml on a real server: deployed without a question, its form made from the spec, run by a worker, fired by a schedule."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests_support import ROOT


def patiently(ask: Callable[[], Any]) -> Any:
    """Ask again while SQLite is locked by the worker's writes (the server then says 503), as Prefect's own client does."""
    for _ in range(30):
        try:
            return ask()
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            time.sleep(1)
    return ask()


def call(api: str, path: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
    """Ask the Prefect API."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{api}{path}", data=data, method=method, headers={"Content-Type": "application/json"})  # noqa: S310 - loopback

    def ask() -> Any:
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310 - loopback
            content = answer.read()
            return json.loads(content) if content else None

    return patiently(ask)


@pytest.fixture(scope="module")
def deployed(server: dict[str, Any], home: dict[str, str]) -> dict[str, Any]:
    """The finetune deployment, made by ``prefect --no-prompt deploy --all``."""
    env = home | {"PREFECT_API_URL": server["api"], "PREFECT_CLIENT_MAX_RETRIES": "15"}
    done = subprocess.run(
        ["prefect", "--no-prompt", "deploy", "--all"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    found: dict[str, Any] = call(server["api"], "/deployments/name/finetune/finetune")
    return found


@pytest.fixture(scope="module")
def parameters(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the UI's form sends: a nested mapping. With so little data the run ends before training; in its store no stage is done yet."""
    spec = yaml.safe_load((toy_folder / "spec.yaml").read_text())
    spec["data"] |= {"source": str(toy_folder / "toy.jsonl"), "min_examples": 1000}
    spec["store"] = {"uri": str(tmp_path_factory.mktemp("form") / "store")}
    return {"spec": spec}


@pytest.fixture(scope="module")
def worker(server: dict[str, Any], home: dict[str, str], deployed: dict[str, Any]) -> Iterator[None]:
    """A process worker on the pool ``cpu``, as docs/ tells to start it."""
    env = home | {"PREFECT_API_URL": server["api"], "PREFECT_WORKER_QUERY_SECONDS": "1"}
    process = subprocess.Popen(
        ["prefect", "worker", "start", "--pool", "cpu", "--type", "process"],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    yield
    os.killpg(process.pid, signal.SIGKILL)  # a worker that is asked to stop waits for its runs; nobody needs them any more
    process.wait(timeout=30)


def wait_for(api: str, run_id: str, seconds: float) -> dict[str, Any]:
    """Wait until a flow run has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        run: dict[str, Any] = call(api, f"/flow_runs/{run_id}")
        if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return run
        time.sleep(1)
    raise TimeoutError(f"flow run {run_id} did not end within {seconds} s")


def test_the_form_is_made_from_the_spec(deployed: dict[str, Any]) -> None:
    """The deployment's parameter schema has the spec's fields with their texts, so that the UI can ask for them."""
    schema = deployed["parameter_openapi_schema"]
    text = json.dumps(schema)
    assert "spec" in schema["properties"]
    assert "Sealed for evaluation" in text
    assert deployed["enforce_parameter_schema"]


def test_a_run_from_the_form_ends_in_a_verdict(
    worker: None, deployed: dict[str, Any], server: dict[str, Any], parameters: dict[str, Any]
) -> None:
    """What the UI's form sends is run by a worker to its end, and every stage leaves an artifact to read."""
    run = call(server["api"], f"/deployments/{deployed['id']}/create_flow_run", {"parameters": parameters})
    ended = wait_for(server["api"], run["id"], 240)
    assert ended["state_type"] == "COMPLETED", ended["state"]["message"]
    artifacts = call(server["api"], "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
    keys = {artifact["key"] for artifact in artifacts}
    assert {"ingest", "validate", "split", "format", "tokens", "preflight", "baselines", "advise", "report", "manifest"} <= keys


@pytest.mark.slow
def test_a_schedule_really_fires(worker: None, deployed: dict[str, Any], server: dict[str, Any], parameters: dict[str, Any]) -> None:
    """An interval schedule makes runs that the worker starts (with the wrong SQLAlchemy it would never)."""
    schedule = [{"schedule": {"interval": 30}, "active": True, "parameters": parameters}]
    [made] = call(server["api"], f"/deployments/{deployed['id']}/schedules", schedule, "POST")
    try:
        wanted = {"deployments": {"id": {"any_": [deployed["id"]]}}, "flow_runs": {"state": {"type": {"not_any_": ["SCHEDULED"]}}}}
        fired: list[dict[str, Any]] = []
        deadline = time.monotonic() + 180
        while not fired and time.monotonic() < deadline:
            fired = [run for run in call(server["api"], "/flow_runs/filter", wanted) if run["auto_scheduled"]]
            time.sleep(1)
        assert fired, "no scheduled run was started within 180 s"
    finally:
        call(server["api"], f"/deployments/{deployed['id']}/schedules/{made['id']}", method="DELETE")
