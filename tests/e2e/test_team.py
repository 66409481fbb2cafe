"""The team's whole story on one machine: stack, deployments, new data, an event, a retraining, an approval, a promotion; kills besides."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pytest
import yaml
from prefect.client.schemas.objects import State
from tests_support import ROOT, prooftune, toy_rows, write_jsonl

from flows.lost_runs import fell
from prooftune.watching.signals import Signal

pytestmark = pytest.mark.slow

TASK = "toy"
DATA = "s3://prooftune/data/"
STORE = "s3://prooftune/store"
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
Found = TypeVar("Found")


def until(found: Callable[[], Found | None], seconds: float, what: str) -> Found:
    """Return what is found within so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if something := found():
            return something
        time.sleep(1)
    raise TimeoutError(f"{what}: not within {seconds:g} s")


def report(figure: str) -> None:
    """Print a figure that the issue asks for; `pytest -s` shows it."""
    print(figure)  # noqa: T201 - a figure is for people


@dataclass(frozen=True)
class TeamAtWork:
    """A stack that runs, a project that is deployed to it, and a person at the terminal."""

    folder: Path
    env: dict[str, str]
    keys: dict[str, str]

    def type(self, *words: str, code: int = 0) -> dict[str, Any]:
        """Type a command in the project's folder and return its JSON."""
        done = prooftune(*words, "--json", env=self.env | self.keys, cwd=self.folder)
        assert done.returncode == code, f"{words}: {done.stdout}\n{done.stderr}"
        return dict(json.loads(done.stdout))

    def ask(self, path: str, body: Any = None) -> Any:
        """Ask the Prefect API."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.keys['PREFECT_API_URL']}{path}", data=data, headers=headers)  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
            content = answer.read()
            return json.loads(content) if content else None

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        """Return the flow runs of a deployment that have begun, the oldest first."""
        begun = {"state": {"type": {"not_any_": ["SCHEDULED"]}}}
        wanted = {"deployments": {"name": {"any_": [deployment]}}, "flow_runs": begun, "sort": "EXPECTED_START_TIME_ASC"}
        return list(self.ask("/flow_runs/filter", wanted))

    def drop(self, name: str, rows: list[dict[str, str]]) -> None:
        """Put a file of examples where the sensor looks."""
        import boto3

        path = self.folder / name
        write_jsonl(path, rows)
        keys = {"aws_access_key_id": self.keys["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": self.keys["AWS_SECRET_ACCESS_KEY"]}
        client = boto3.client("s3", endpoint_url=self.keys["AWS_ENDPOINT_URL_S3"], region_name="us-east-1", **keys)
        client.upload_file(str(path), "prooftune", f"data/{name}")

    def up(self) -> dict[str, Any]:
        """Bring up what does not run."""
        return self.type("up", "--team")

    def kill(self, part: str) -> None:
        """SIGKILL a part of the stack and all its children, as a machine that loses power."""
        import psutil

        pid = next(one["pid"] for one in self.up()["parts"] if one["name"] == part)
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in family:
            process.send_signal(signal.SIGKILL)
        psutil.wait_procs(family, timeout=20)


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[TeamAtWork]:
    """From nothing: a checkout, `make up`, `prooftune deploy`."""
    home = tmp_path_factory.mktemp("team-home")
    folder = tmp_path_factory.mktemp("project") / "prooftune"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "prooftune-store", "tests", "docs"))
    (folder / "prefect.yaml").write_text(yaml.safe_dump(project(tiny_model), sort_keys=False))
    dropped = ("PREFECT_", "XDG_", "AWS_", "HF_", "MLFLOW_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    env = kept | {"HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    bare = TeamAtWork(folder, env, {})
    try:
        told = bare.up()
        lines = Path(told["env_file"]).read_text().splitlines()
        keys = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        at_work = TeamAtWork(folder, env, keys)
        at_work.type("deploy")
        yield at_work
    finally:
        subprocess.run(["prooftune", "down"], env=env, check=True, capture_output=True)


def project(tiny_model: Path) -> dict[str, Any]:
    """Return the project's prefect.yaml with a task that is trained within seconds, and sensors that look every ten."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    method = {"kind": "full", "epochs": 6, "learning_rate": 5.0e-3, "batch_size": 8, "early_stopping": None, "checks_per_epoch": 2}
    spec = {
        "name": TASK,
        "data": {"source": DATA, "on_invalid": "skip", "split": {"holdout": 60, "validation": 20}},
        "baseline": {"ladder": ["zero_shot"], "shots": 3},
        "backend": {"model": str(tiny_model), "method": method},
        "gate": {"max_forgetting": None, "approve_promotion": True},
        "general": {"suite": "none"},
        "learning_curve": {"shares": []},
        "watch": {"quiet_minutes": 0, "min_new_examples": 50},
        "retrain": {"cool_down_hours": 0},
        "store": {"uri": STORE},
    }
    for one in found["deployments"]:
        for name in one.get("parameters", {}):
            one["parameters"][name] = {"spec": spec, "store": spec["store"]}.get(name, one["parameters"][name])
        for schedule in one.get("schedules", []):
            if one["name"] == "watch-data":
                schedule["interval"] = 10
        for trigger in one.get("triggers", []):
            if trigger["match"]["prefect.resource.id"].startswith("prooftune.task."):
                trigger["match"]["prefect.resource.id"] = f"prooftune.task.{TASK}"
    return {"name": found["name"], "prefect-version": found["prefect-version"], "pull": found["pull"], "deployments": found["deployments"]}


def at(text: str) -> datetime:
    """Return a moment of the API."""
    return datetime.fromisoformat(text)


def events(team: TeamAtWork, name: str) -> list[dict[str, Any]]:
    """Return the events of a name."""
    return list(team.ask("/events/filter", {"filter": {"event": {"name": [name]}}, "limit": 50})["events"])


def test_new_data_become_a_champion_once(team: TeamAtWork) -> None:
    """A file is dropped, the event fires, a run trains, passes the gate and waits; approved, it is champion. The same file: nothing."""
    team.drop("first.jsonl", toy_rows(240))
    run = until(lambda: next(iter(team.runs("retrain-on-event")), None), 120, "a run of retrain-on-event")
    event = until(
        lambda: next(iter(events(team, "prooftune.data.changed")), None), 60, "the event"
    )  # it is written down later than acted on
    started = until(lambda: team.ask(f"/flow_runs/{run['id']}")["start_time"], 60, "its start")
    report(f"\nseconds from event to run start: {(at(started) - at(event['occurred'])).total_seconds():.1f}")

    asked = until(lambda: next(iter(team.type("approve", "--store", STORE)["waiting"]), None), 300, "a question")
    assert team.type("history", TASK, "--store", STORE)["champion"] is None, "nobody has approved yet"
    team.type("approve", asked["key"], "--by", "ada", "--reason", "better", "--store", STORE)
    ended = until(lambda: one if (one := team.ask(f"/flow_runs/{run['id']}"))["state_type"] in ENDED else None, 300, "the run's end")
    assert ended["state_type"] == "COMPLETED", ended["state"]["message"]
    history = team.type("history", TASK, "--store", STORE)
    assert history["champion"]
    assert "ada" in json.dumps(history)
    page = Path(team.type("dashboard", "--store", STORE)["page"]).read_text()
    assert "approved by ada" in page

    before = len(team.runs("retrain-on-event"))

    def looks() -> int:
        return len([one for one in team.runs("watch-data") if one["state_type"] == "COMPLETED"])

    enough = looks() + 4  # one may be at work while the file is dropped
    team.drop("first.jsonl", toy_rows(240))
    team.drop("again.jsonl", toy_rows(240))
    until(lambda: looks() >= enough, 240, "more looks")
    assert len(team.runs("retrain-on-event")) == before, "what the champion was made from is no news"


def test_two_hundred_duplicates_start_one_run(team: TeamAtWork) -> None:
    """The same request, 200 times and each time as another event, as a client without manners sends it: one run is started."""
    said = Signal(kind="request", task=TASK, digest="press-1", reason="the release is tomorrow", at=datetime.now(UTC).isoformat())
    before = {run["id"] for run in team.runs("retrain-on-event")}
    body = [
        {
            "id": str(uuid4()),
            "event": said.event,
            "resource": said.resource,
            "occurred": datetime.now(UTC).isoformat(),
            "payload": said.model_dump(mode="json"),
        }
        for _ in range(200)
    ]
    team.ask("/events", body)
    until(lambda: {run["id"] for run in team.runs("retrain-on-event")} - before, 120, "a run of retrain-on-event")
    until(lambda: len(events(team, said.event)) >= 50, 60, "the duplicates in the server's record")

    def started() -> list[dict[str, Any]]:
        return [run for run in team.runs("retrain-on-event") if run["id"] not in before]

    until(lambda: all(run["state_type"] in ENDED for run in started()), 300, "the end of what was started")
    admitted = [run for run in started() if not run["state"]["message"].startswith(("duplicate", "running"))]
    report(f"\nof 200 duplicated events: {len(started())} flow runs, {len(admitted)} admitted")
    assert len(admitted) == 1


def test_a_run_survives_the_worker_and_the_server(team: TeamAtWork) -> None:
    """The worker and its flow are killed, later the server: the run is found lost, started again, and ends in a verdict."""
    deployed = team.ask("/deployments/name/finetune/finetune")
    spec = deployed["parameters"]["spec"]
    spec = spec | {"gate": {"max_forgetting": None}, "data": spec["data"] | {"split": spec["data"]["split"] | {"seed": 11}}}
    run = team.ask(f"/deployments/{deployed['id']}/create_flow_run", {"parameters": {"spec": spec}})

    def state() -> dict[str, Any]:
        return dict(team.ask(f"/flow_runs/{run['id']}"))

    until(lambda: state()["state_type"] == "RUNNING", 120, "the run")
    team.kill("worker")
    killed = time.monotonic()
    team.up()
    until(lambda: state()["state_name"] != "Running", 300, "the run that was lost")
    report(f"\nseconds until the lost run was found: {time.monotonic() - killed:.0f}")
    until(lambda: state()["state_type"] == "RUNNING", 300, "the run that was started again")
    report(f"seconds until it ran again: {time.monotonic() - killed:.0f}")
    team.kill("prefect")
    team.up()
    ended = until(
        lambda: one if (one := state())["state_type"] in ENDED and not fell(State.model_validate(one["state"])) else None,
        600,
        "the run's end",
    )
    report(f"seconds until its verdict, the server killed meanwhile: {time.monotonic() - killed:.0f}")
    assert ended["state_type"] == "COMPLETED", ended["state"]["message"]
