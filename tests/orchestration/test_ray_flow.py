"""Runs on a real Ray cluster, from the command line: a run may let go of its job, which is listed, cancelled and gone on with as any."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests_support import prooftune, toy_rows, write_jsonl

from prooftune.providers import ray_orders
from prooftune.providers.waiting import read_waiting
from prooftune.storage.local import LocalStore

if TYPE_CHECKING:
    from fixtures_ray import RayCluster

pytest_plugins = ["fixtures_ray"]
pytestmark = pytest.mark.slow  # whole runs, and a cluster that starts
METHOD = {"kind": "full", "epochs": 6, "learning_rate": 5.0e-3, "batch_size": 8, "early_stopping": None, "checks_per_epoch": 2}


@dataclass
class Desk:
    """A spec for the cluster, and somebody who types commands."""

    folder: Path
    cluster: RayCluster
    env: dict[str, str]

    @property
    def store(self) -> LocalStore:
        """The store."""
        return LocalStore(self.folder / "store")

    def type(self, *words: str, code: int = 0) -> dict[str, Any]:
        """Type a command with ``--json``; the store's flag stands in the place of STORE."""
        store = ["--store", str(self.folder / "store")]
        done = prooftune(*(part for word in words for part in (store if word == "STORE" else [word])), "--json", env=self.env)
        assert done.returncode == code, done.stdout + done.stderr
        return dict(json.loads(done.stdout))

    def run(self, *more: str, code: int = 0) -> dict[str, Any]:
        """Run the spec."""
        return self.type("run", str(self.folder / "spec.yaml"), *more, code=code)

    def until_ended(self) -> None:
        """Wait, without a process of ours, until the one job has ended."""
        [order] = ray_orders.orders(self.store, {})
        deadline = time.monotonic() + 300
        while (found := ray_orders.look(order)) is None or not found.ended:
            assert time.monotonic() < deadline, found
            time.sleep(1)


@pytest.fixture
def desk(tmp_path: Path, tiny_model: Path, ray_cluster: RayCluster, home: dict[str, str], server: dict[str, Any]) -> Desk:
    """A store of its own."""
    spec = {
        "name": "on-ray",
        "data": {"source": str(write_jsonl(tmp_path / "toy.jsonl", toy_rows(240))), "split": {"holdout": 60, "validation": 20}},
        "baseline": {"ladder": ["zero_shot"]},
        "backend": {"provider": "ray", "model": str(tiny_model), "method": METHOD},
        "provider": {"base_url": ray_cluster.address, "hold_minutes": 0},
        "gate": {"max_forgetting": None},
        "general": {"suite": "none"},
        "learning_curve": {"shares": []},
        "store": {"uri": str(tmp_path / "store")},
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    return Desk(tmp_path, ray_cluster, home)


def test_a_run_need_not_wait_for_its_job(desk: Desk) -> None:
    """With hold_minutes 0 it ends as waiting, exit code 4; `jobs` lists the job; `jobs resume` finishes the run with that one job."""
    told = desk.run(code=4)
    key = told["waiting"]["key"]
    assert "prooftune jobs resume" in told["waiting"]["text"]
    [row] = desk.type("jobs", "STORE")["jobs"]
    assert (row["key"], row["provider"], row["state"], row["address"]) == (key, "ray", "submitted", desk.cluster.address)
    desk.until_ended()
    [run] = desk.type("jobs", "resume", "STORE")["runs"]
    assert (run["trouble"], run["result"]["verdict"]) == (None, "promote")
    assert desk.cluster.jobs(key) == [key]
    assert list(read_waiting(desk.store)) == []
    [row] = desk.type("jobs", "STORE")["jobs"]
    assert (row["state"], row["status"]) == ("ended", "SUCCEEDED")
    again = desk.run()
    assert (again["verdict"], again["run_id"]) == ("promote", run["result"]["run_id"])
    assert desk.cluster.jobs(key) == [key]


def test_a_job_is_cancelled_by_its_key_and_told_once(desk: Desk) -> None:
    """The cluster ends it; the run that waited hears of it once and is not begun anew by a schedule; the same command starts it again."""
    key = desk.run("--set", "backend.method.epochs=100", code=4)["waiting"]["key"]
    told = desk.type("jobs", "cancel", key, "STORE")
    assert (told["key"], told["provider"]) == (key, "ray")
    desk.until_ended()
    [row] = desk.type("jobs", "--refresh", "STORE")["jobs"]
    assert (row["state"], row["status"]) == ("ended", "STOPPED")
    [run] = desk.type("jobs", "resume", "STORE")["runs"]
    assert "was stopped" in run["trouble"]
    assert desk.type("jobs", "resume", "STORE")["runs"] == []
    assert desk.cluster.jobs(key) == [key]
    assert desk.run("--set", "backend.method.epochs=100", code=4)["waiting"]["key"] == key
    assert desk.cluster.jobs(key) == [key, f"{key}-2"]
    desk.type("jobs", "cancel", key, "STORE")
