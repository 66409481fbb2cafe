"""The servers of a team's stack on one machine: what each is started with, when it is ready, and how it is asked to end."""

from __future__ import annotations

import json
import secrets
import signal
import sys
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from flows.local_server import KEEPS_LEASES, PORT, WORK_POOL, create_work_pool, healthy
from flows.processes import ProcessRecord, ask, stop, with_environment

BUCKET = "prooftune"
REGION = "us-east-1"
"""What the S3 server answers to; any name would do."""
HEARTBEAT_S = "30"
"""A flow run that stays silent for four of these is taken for lost by the flow watch-runs."""


@dataclass(frozen=True)
class Secrets:
    """What the servers ask of their clients, made up once."""

    database_password: str = field(repr=False, default_factory=lambda: secrets.token_hex(24))
    access_key: str = field(repr=False, default_factory=lambda: secrets.token_hex(10))
    secret_key: str = field(repr=False, default_factory=lambda: secrets.token_hex(20))
    signing_key: str = field(repr=False, default_factory=lambda: secrets.token_hex(20))
    """With which the S3 server's own parts know each other."""

    @classmethod
    def kept_in(cls, file: Path) -> Secrets:
        """Return what the file holds; make it first, for its owner's eyes alone, if need be."""
        if not file.exists():
            write_private(file, json.dumps(asdict(cls())))
        return cls(**json.loads(file.read_text()))


@dataclass(frozen=True)
class Team:
    """What all parts share."""

    folder: Path
    secrets: Secrets
    ports: Mapping[str, int]
    """On 127.0.0.1, by part."""

    def url(self, part: str) -> str:
        """Return the address of a part that speaks HTTP."""
        return f"http://127.0.0.1:{self.ports[part]}"

    @property
    def addresses(self) -> dict[str, str]:
        """Environment that leads Prooftune, Prefect and MLflow to the servers. Of the AWS services, S3 alone is taken here."""
        return {
            "PREFECT_API_URL": f"{self.url('prefect')}/api",
            "AWS_ENDPOINT_URL_S3": self.url("s3"),
            "AWS_REGION": REGION,
            "MLFLOW_TRACKING_URI": self.url("mlflow"),
        }

    @property
    def keys(self) -> dict[str, str]:
        """Environment that the S3 server asks for. Secret."""
        return {"AWS_ACCESS_KEY_ID": self.secrets.access_key, "AWS_SECRET_ACCESS_KEY": self.secrets.secret_key}


class Part(ABC):
    """One server."""

    name: ClassVar[str]
    what: ClassVar[str]
    port: ClassVar[int] = 0
    """Preferred one; 0 = it listens on none."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Parts that must answer before it starts."""
    how_to_stop: ClassVar[signal.Signals] = signal.SIGTERM
    grace_s: ClassVar[float] = 20.0

    def __init__(self, team: Team) -> None:
        self.team = team

    @cached_property
    def folder(self) -> Path:
        """Where it keeps its data."""
        return self.team.folder / self.name

    @property
    def address(self) -> str | None:
        """What to open, or to connect to."""
        return self.team.url(self.name) if self.port else None

    @property
    def account(self) -> str | None:
        """Whom it runs as; None = whoever starts it."""
        return None

    def lacks(self) -> str | None:
        """Say what has to be installed first."""
        return None

    def prepare(self) -> None:
        """Make what it needs to start."""
        self.folder.mkdir(mode=0o700, exist_ok=True)

    @abstractmethod
    def command(self) -> list[str]:
        """Return the program and its arguments: no secrets, everyone can list those."""

    def environment(self) -> dict[str, str]:
        """Return what it gets besides the inherited environment."""
        return {}

    @classmethod
    def stop(cls, record: ProcessRecord, folder: Path) -> bool:
        """Ask it to end, and return whether there was anything to stop; ``folder`` is the team's."""
        return stop(record, cls.how_to_stop, cls.grace_s)

    @abstractmethod
    def answers(self, record: ProcessRecord) -> bool:
        """Return whether it is ready, and not another that was started before it."""


class MLflow(Part):
    """Runs, parameters, metrics and artifacts of whoever sets ``tracking.mlflow``."""

    name, what, port = "mlflow", "MLflow", 5000

    def lacks(self) -> str | None:
        """MLflow comes with an extra."""
        return None if find_spec("mlflow") else "MLflow: pip install 'prooftune[team]'"

    def command(self) -> list[str]:
        """One worker process: every further one takes 300 MB, and SQLite has one writer."""
        return [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.team.ports[self.name]), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}", "--artifacts-destination", str(self.folder / "artifacts")),
        ]

    def environment(self) -> dict[str, str]:
        """No telemetry, and none of the job runners that judge traces: nothing here uses them."""
        return {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}

    def answers(self, record: ProcessRecord) -> bool:
        """Ask for its health."""
        return _get(f"{self.team.url(self.name)}/health") is not None


class PrefectServer(Part):
    """API, pages, scheduler and event triggers."""

    name, what, port = "prefect", "Prefect server", PORT
    needs = ("postgres",)

    def command(self) -> list[str]:
        """As the local server is started."""
        port = str(self.team.ports[self.name])
        return [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port]

    def environment(self) -> dict[str, str]:
        """PostgreSQL lets several flows and workers write at the same time."""
        user = f"prooftune:{self.team.secrets.database_password}"
        return {
            "PREFECT_HOME": str(self.folder),
            "PREFECT_API_URL": f"{self.team.url(self.name)}/api",
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{user}@127.0.0.1:{self.team.ports['postgres']}/prefect",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            **KEEPS_LEASES,
            "DO_NOT_TRACK": "1",
        }

    def answers(self, record: ProcessRecord) -> bool:
        """Ask for its health."""
        return healthy(f"{self.team.url(self.name)}/api")


class Worker(Part):
    """Starts the flow runs of the pool ``cpu`` as processes of this machine."""

    name, what = "worker", "Worker"
    needs = ("prefect", "s3", "mlflow")

    def prepare(self) -> None:
        """Its pool must be there before it is."""
        super().prepare()
        create_work_pool(f"{self.team.url('prefect')}/api")

    def command(self) -> list[str]:
        """One name for good, so that a new worker takes the place of a dead one in the UI."""
        return [sys.executable, "-m", "prefect", "worker", "start", "--pool", WORK_POOL, "--type", "process", "--name", WORKER]

    def environment(self) -> dict[str, str]:
        """Flow runs inherit it: the servers, their keys, and the heartbeat by which a dead run is known."""
        return {
            **self.team.addresses,
            **self.team.keys,
            "PREFECT_HOME": str(self.folder),
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": HEARTBEAT_S,
            "PREFECT_LOGGING_EXTRA_LOGGERS": "prooftune",
            "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
            "PREFECT_WORKER_QUERY_SECONDS": "3",
            "DO_NOT_TRACK": "1",
        }

    @classmethod
    def stop(cls, record: ProcessRecord, folder: Path) -> bool:
        """Its flow runs first, which then tell the server that they end: a run that its worker takes along stays Running there.

        A run of a worker that was killed before is none of this one's processes, and has the same environment.
        """
        runs = [member for member in with_environment("PREFECT_HOME", str(folder / cls.name)) if member.pid != record.pid]
        ask(runs, signal.SIGTERM, runs, cls.grace_s)
        ask(runs, signal.SIGKILL, runs, cls.grace_s)
        return super().stop(record, folder) or bool(runs)

    def answers(self, record: ProcessRecord) -> bool:
        """Ask the server whether it has heard of this worker since it was started."""
        found = _get(f"{self.team.url('prefect')}/api/work_pools/{WORK_POOL}/workers/filter", {})
        return any(
            worker["name"] == WORKER
            and worker["status"] == "ONLINE"
            and datetime.fromisoformat(worker["last_heartbeat_time"]).timestamp() > record.started
            for worker in found or []
        )


WORKER = "team"


def write_private(file: Path, text: str) -> None:
    """Write a file that its owner alone can read, whole or not at all."""
    new = file.with_suffix(".new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(text)
    new.replace(file)


def _get(url: str, body: Any = None) -> Any:
    """Return the JSON that a server of ours answers, or its text; None while it does not."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})  # noqa: S310 - our own loopback address
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - the same
            text = answer.read().decode()
    except (OSError, HTTPException, urllib.error.HTTPError):
        return None
    return json.loads(text) if text[:1] in ("[", "{") else text
