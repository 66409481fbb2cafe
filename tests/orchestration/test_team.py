"""The team's stack on one machine: every service answers, a killed one alone comes back, and nothing is left when it goes down."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.processes import lives, recorded

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("postgres") is None and not list(Path("/usr/lib/postgresql").glob("*/bin")), reason="no PostgreSQL"),
]

FLOW = """
import os
import time
from prefect import flow
from prefect.states import Completed

TOLD = ("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "AWS_ENDPOINT_URL_S3")

@flow
def pulse(seconds: float):
    time.sleep(seconds)
    return Completed(message=" ".join(os.environ.get(name, "none") for name in TOLD))
"""


@dataclass(frozen=True)
class Stack:
    """A team's stack that runs, and the environment of the user who started it."""

    home: dict[str, str]
    answer: dict[str, Any]
    printed: str

    def up(self) -> dict[str, Any]:
        """Bring it up once more."""
        return up(self.home)[0]

    @property
    def folder(self) -> Path:
        """Where it keeps all it has."""
        return Path(self.answer["folder"])

    @property
    def secrets(self) -> dict[str, str]:
        """What its servers ask for."""
        found: dict[str, str] = json.loads((self.folder / "secrets.json").read_text())
        return found

    def s3(self) -> Any:
        """A client with exactly what the environment file says."""
        import boto3

        lines = (line.removeprefix("export ").partition("=") for line in Path(self.answer["env_file"]).read_text().splitlines())
        env = {name: value for name, _, value in lines}
        return boto3.session.Session().client(
            "s3",
            endpoint_url=env["AWS_ENDPOINT_URL_S3"],
            region_name=env["AWS_REGION"],
            aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        )

    def prefect(self, path: str, body: Any = None) -> Any:
        """Ask the Prefect API."""
        return json.loads(fetch(f"{self.answer['env']['PREFECT_API_URL']}{path}", body))


def fetch(url: str, body: Any = None) -> str:
    """Return what a server answers; a body is posted."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - loopback
        text: str = answer.read().decode()
        return text


def up(home: dict[str, str]) -> tuple[dict[str, Any], str]:
    """Run the command; return its answer and all that it printed."""
    done = subprocess.run(["prooftune", "up", "--team", "--json"], env=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout), done.stdout + done.stderr


@pytest.fixture(scope="module")
def stack(home: dict[str, str]) -> Iterator[Stack]:
    """The stack, with all its data in a folder that the database's account can enter too, where root runs this."""
    folder = Path(tempfile.mkdtemp(prefix="prooftune-team-"))
    folder.chmod(0o755)
    own = home | {"XDG_STATE_HOME": str(folder), "PREFECT_WORKER_QUERY_SECONDS": "1"}
    try:
        yield Stack(own, *up(own))
    finally:
        subprocess.run(["prooftune", "down"], env=own, capture_output=True, check=True)
        shutil.rmtree(folder)


def wait_for(found: Callable[[], Any], seconds: float = 60) -> Any:
    """Ask until there is an answer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := found():
            return answer
        time.sleep(0.5)
    raise TimeoutError(f"not within {seconds} s")


def start_run(stack: Stack, folder: Path, seconds: float) -> str:
    """Deploy the flow above to the worker's pool and order a run; return the run's id."""
    (folder / "pulse.py").write_text(FLOW)
    flow = stack.prefect("/flows/", {"name": "pulse"})
    where = {"entrypoint": "pulse.py:pulse", "path": str(folder), "work_pool_name": "cpu"}
    made = stack.prefect("/deployments/", {"name": "pulse", "flow_id": flow["id"], **where})
    run: str = stack.prefect(f"/deployments/{made['id']}/create_flow_run", {"parameters": {"seconds": seconds}})["id"]
    return run


def ended(stack: Stack, run: str) -> dict[str, Any] | None:
    """Return a run that has ended."""
    found: dict[str, Any] = stack.prefect(f"/flow_runs/{run}")
    return found if found["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None


def pid_of(stack: Stack, name: str) -> int:
    """Return the pid that a part has now."""
    pid: int = json.loads((stack.folder / f"{name}.json").read_text())["pid"]
    return pid


def processes(pid: int) -> list[psutil.Process]:
    """Return a process and all below it."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def test_every_service_answers(stack: Stack) -> None:
    """Prefect's API and pages, an S3 server that keeps what it is given and knows its keys, and MLflow's REST API."""
    import boto3

    assert stack.prefect("/health") is True
    assert "<title>Prefect" in fetch(stack.answer["ui"])
    client = stack.s3()
    client.put_object(Bucket="prooftune", Key="a/b", Body=b"kept")
    assert client.get_object(Bucket="prooftune", Key="a/b")["Body"].read() == b"kept"
    stranger = boto3.session.Session().client(
        "s3",
        endpoint_url=stack.answer["env"]["AWS_ENDPOINT_URL_S3"],
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="y",
    )
    with pytest.raises(stranger.exceptions.ClientError):
        stranger.get_object(Bucket="prooftune", Key="a/b")
    mlflow = stack.answer["env"]["MLFLOW_TRACKING_URI"]
    made = json.loads(fetch(f"{mlflow}/api/2.0/mlflow/experiments/create", {"name": f"tickets-{time.time()}"}))
    found = json.loads(fetch(f"{mlflow}/api/2.0/mlflow/experiments/get?experiment_id={made['experiment_id']}"))
    assert found["experiment"]["artifact_location"].startswith("mlflow-artifacts:")


def test_prefect_keeps_its_records_in_postgresql(stack: Stack) -> None:
    """The pool that its API tells of is a row of the database, which asks for the password."""
    import asyncpg

    [postgres] = [part for part in stack.answer["parts"] if part["name"] == "postgres"]

    async def pools(password: str) -> list[str]:
        connection = await asyncpg.connect(postgres["address"], password=password)
        rows = await connection.fetch("SELECT name FROM work_pool")
        await connection.close()
        return [row["name"] for row in rows]

    assert asyncio.run(pools(stack.secrets["database_password"])) == [pool["name"] for pool in stack.prefect("/work_pools/filter", {})]
    with pytest.raises(asyncpg.InvalidPasswordError):
        asyncio.run(pools("a guess"))


def test_the_worker_gives_its_runs_what_they_need(stack: Stack, tmp_path: Path) -> None:
    """A flow run of the pool finds the heartbeat by which a dead one is known, and the S3 server, in its environment."""
    [worker] = stack.prefect("/work_pools/cpu/workers/filter", {})
    assert worker["status"] == "ONLINE"
    run = start_run(stack, tmp_path, seconds=0)
    done = wait_for(lambda: ended(stack, run))
    assert done["state"]["message"] == f"30 {stack.answer['env']['AWS_ENDPOINT_URL_S3']}"


def test_up_twice_changes_nothing(stack: Stack) -> None:
    """The second time, every part is found as it is."""
    again = stack.up()
    assert [part["started_now"] for part in again["parts"]] == [False] * 5
    assert [part["pid"] for part in again["parts"]] == [part["pid"] for part in stack.up()["parts"]]
    assert again["env"] == stack.answer["env"]


def test_everything_listens_on_loopback_alone(stack: Stack) -> None:
    """No port of any part's processes is open to another machine."""
    listening = set()
    for part in stack.up()["parts"]:
        for member in processes(part["pid"]):
            listening |= {one.laddr.ip for one in member.net_connections("inet") if one.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


def test_no_secret_is_seen(stack: Stack) -> None:
    """Not on the terminal, not in a log, not among a process's arguments, and in no file that others may read."""
    places = {"terminal": stack.printed} | {path.name: path.read_text(errors="replace") for path in stack.folder.glob("*.log")}
    for part in stack.up()["parts"]:
        for member in processes(part["pid"]):
            places[f"arguments of {part['name']} {member.pid}"] = " ".join(member.cmdline())
    assert len(places) >= 11
    assert [(name, key) for name, text in places.items() for key, secret in stack.secrets.items() if secret in text] == []
    holding = (stack.folder / "env", stack.folder / "secrets.json", stack.folder / "s3" / "identities.json")
    assert {path.stat().st_mode & 0o777 for path in holding} == {0o600}


def test_a_stranger_on_this_machine_cannot_read_behind_the_s3_server(stack: Stack) -> None:
    """The filer, a part of SeaweedFS with a port of its own, refuses whoever has no key of the S3 server's."""
    stack.s3().put_object(Bucket="prooftune", Key="hidden", Body=b"hidden")
    arguments = psutil.Process(pid_of(stack, "s3")).cmdline()
    [port] = [argument.partition("=")[2] for argument in arguments if argument.startswith("-filer.port=")]
    with pytest.raises(urllib.error.HTTPError) as refused:
        fetch(f"http://127.0.0.1:{port}/buckets/prooftune/hidden")
    assert refused.value.code == 401


@pytest.mark.parametrize("name", ["s3", "mlflow", "prefect", "postgres", "worker"])
def test_a_killed_part_alone_comes_back(stack: Stack, name: str) -> None:
    """After a SIGKILL of one part, ``up`` starts that one, at its old address, and touches no other; what was kept is still there."""
    before = {part["name"]: part for part in stack.up()["parts"]}
    stack.s3().put_object(Bucket="prooftune", Key=f"before-{name}", Body=name.encode())
    os.kill(before[name]["pid"], signal.SIGKILL)
    killed = recorded(stack.folder / f"{name}.json")
    wait_for(lambda: killed and killed.process() is None)
    after = {part["name"]: part for part in stack.up()["parts"]}
    assert [part for part in after if after[part]["started_now"]] == [name]
    assert {part for part in after if after[part]["pid"] != before[part]["pid"]} == {name}
    assert after[name]["address"] == before[name]["address"]
    assert stack.s3().get_object(Bucket="prooftune", Key=f"before-{name}")["Body"].read() == name.encode()
    assert [pool["name"] for pool in stack.prefect("/work_pools/filter", {})] == ["cpu"]


def test_a_killed_workers_run_goes_on(stack: Stack, tmp_path: Path) -> None:
    """A flow run outlives its worker and the start of the next one, and completes."""
    stack.up()
    run = start_run(stack, tmp_path, seconds=12)
    wait_for(lambda: stack.prefect(f"/flow_runs/{run}")["state_type"] == "RUNNING")
    os.kill(pid_of(stack, "worker"), signal.SIGKILL)
    assert [part["name"] for part in stack.up()["parts"] if part["started_now"]] == ["worker"]
    assert wait_for(lambda: ended(stack, run))["state_type"] == "COMPLETED"


def test_down_leaves_no_process(stack: Stack, tmp_path: Path) -> None:
    """Everything that the parts ever started is gone, even a killed worker's run; a second ``down`` finds nothing, ``up`` the old data."""
    run = start_run(stack, tmp_path, seconds=300)
    wait_for(lambda: stack.prefect(f"/flow_runs/{run}")["state_type"] == "RUNNING")
    orphans = processes(pid_of(stack, "worker"))[1:]
    os.kill(pid_of(stack, "worker"), signal.SIGKILL)
    stack.s3().put_object(Bucket="prooftune", Key="stays", Body=b"stays")
    started = stack.up()["parts"]
    assert [orphan for orphan in orphans if lives(orphan)]
    family = orphans + [member for part in started for member in processes(part["pid"])]
    done = subprocess.run(["prooftune", "down", "--json"], env=stack.home, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["team"] == ["Worker", "Prefect server", "MLflow", "S3 server", "PostgreSQL"]
    assert [member for member in family if lives(member)] == []
    for part in started:
        if part["port"]:
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", part["port"])) != 0
    again = subprocess.run(["prooftune", "down", "--json"], env=stack.home, capture_output=True, text=True, check=True)
    assert json.loads(again.stdout)["team"] == []
    back = Stack(stack.home, *up(stack.home))
    assert back.s3().get_object(Bucket="prooftune", Key="stays")["Body"].read() == b"stays"
    assert wait_for(lambda: ended(back, run))["state_type"] == "CRASHED"
