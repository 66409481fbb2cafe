"""A team's stack on one machine, without Docker: PostgreSQL, S3, MLflow, the Prefect server and a worker, brought up and taken down.

Each part is one process with a record (pid and creation time), so that ``up`` starts what does not run and nothing else, and ``down``
stops what ``up`` started and nothing else. All data stays in the team's folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from flows.local_server import state_folder
from flows.processes import ProcessRecord, await_answer, free_ports, launch, recorded, stop
from flows.team_parts import MLflow, Part, PrefectServer, Secrets, Team, Worker, write_private
from flows.team_postgres import Postgres
from flows.team_s3 import ObjectServer
from prooftune.errors import EnvironmentLacks

PARTS: tuple[type[Part], ...] = (Postgres, ObjectServer, MLflow, PrefectServer, Worker)
"""In the order in which they start; they stop in the opposite one."""
INHERITED_NOT = ("PREFECT_", "MLFLOW_", "AWS_ENDPOINT_URL", "WEED_")
"""Settings of other servers that the caller may use besides."""


@dataclass(frozen=True)
class Running:
    """A part and its process."""

    part: Part
    record: ProcessRecord
    started_now: bool

    def wait(self) -> None:
        """Wait until it answers."""
        team, part = self.part.team, self.part
        where = f" at {part.address}" if part.address else ""
        log, what = _log(team, part.name), f"the team's {part.what}{where}"
        await_answer(self.record, lambda: part.answers(self.record), log, what, started_now=self.started_now)

    def described(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "name": self.part.name,
            "what": self.part.what,
            "address": self.part.address,
            "pid": self.record.pid,
            "started_now": self.started_now,
            "port_wanted": self.part.port or None,
            "port": self.record.port or None,
            "data": str(self.part.folder),
            "log": str(_log(self.part.team, self.part.name)),
        }


def bring_up(waiting: Callable[[str], None] = lambda what: None) -> dict[str, Any]:
    """Start every part that does not run, wait until all answer, and return addresses, processes and the environment to set.

    Raises:
        EnvironmentLacks: a program is missing, or a part does not come up; what runs already keeps running.
    """
    folder = team_folder()
    with FileLock(folder / "lock", fallback_to_soft=False):
        team = Team(folder, Secrets.kept_in(folder / "secrets.json"), _ports(folder))
        parts = [kind(team) for kind in PARTS]
        if lacking := [lack for part in parts if (lack := part.lacks())]:
            raise EnvironmentLacks(
                f"the team's stack lacks what has to be installed first: {'; '.join(lacking)}; `make up` does what pip can"
            )
        running: dict[str, Running] = {}
        for part in parts:
            for needed in part.needs:
                running[needed].wait()
            running[part.name] = start(part, waiting)
        for one in running.values():
            one.wait()
        env_file = folder / "env"
        write_private(env_file, "".join(f"export {name}={value}\n" for name, value in (team.addresses | team.keys).items()))
        return {
            "running": True,
            "ui": team.url("prefect"),
            "parts": [one.described() for one in running.values()],
            "env": team.addresses,
            "env_file": str(env_file),
            "folder": str(folder),
        }


def take_down() -> list[str]:
    """Stop what ``bring_up`` started, the last first, and return the names of what was stopped. The data stays."""
    folder = state_folder() / "team"
    if not folder.exists():
        return []
    stopped = []
    with FileLock(folder / "lock", fallback_to_soft=False):
        for kind in reversed(PARTS):
            file = _record(folder, kind.name)
            if (record := recorded(file)) and kind.stop(record, folder):
                stopped.append(kind.what)
            file.unlink(missing_ok=True)
    return stopped


def team_folder() -> Path:
    """Return the folder of the stack's data, logs and process records, made if need be."""
    folder = state_folder() / "team"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o711)  # root's PostgreSQL runs as another account, which has to get to its own folder; the rest is closed
    return folder


def _ports(folder: Path) -> dict[str, int]:
    """Return a port for each part: where any part runs, those of the records, because the parts know one another by them."""
    records = {kind.name: recorded(_record(folder, kind.name)) for kind in PARTS}
    kept = {name: record.port for name, record in records.items() if record}
    if not any(record and record.process() for record in records.values()):
        kept = {}
    chosen = [kind for kind in PARTS if kind.port and kind.name not in kept]
    return kept | dict(zip((kind.name for kind in chosen), free_ports(*(kind.port for kind in chosen)), strict=True))


def start(part: Part, waiting: Callable[[str], None] = lambda what: None) -> Running:
    """Return the part's process; start it where there is none."""
    folder, port = part.team.folder, part.team.ports.get(part.name, 0)
    file = _record(folder, part.name)
    before = recorded(file)
    if before and before.process():
        return Running(part, before, started_now=False)
    if before and part.port:
        stop(before)  # what a killed server left behind would hold its port; a killed worker's flow runs go on
    if before:
        before.await_release()
    if port and free_ports(port) != [port]:
        raise EnvironmentLacks(
            f"the team's {part.what} has to come back on port {port}, by which the other parts know it, and another program has taken "
            "that port; run `prooftune down`, then `prooftune up --team`"
        )
    waiting(part.what)
    part.prepare()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(INHERITED_NOT)}
    record = launch(
        part.command(),
        file,
        _log(part.team, part.name),
        port=port,
        cwd=part.folder,
        env=inherited | part.environment(),
        account=part.account,
    )
    return Running(part, record, started_now=True)


def _record(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _log(team: Team, name: str) -> Path:
    return team.folder / f"{name}.log"
