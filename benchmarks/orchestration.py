"""What orchestration costs: milliseconds a task, with SQLite (`prooftune up`) and with PostgreSQL (`prooftune up --team`).

    python benchmarks/orchestration.py [--rounds 3] [--json]

No-op tasks one after another, mapped, as stages of ours, and from several clients at once. Both servers run all the time and are measured
in turn, so that what else the machine does meets both. Only PostgreSQL and the Prefect server are started of the team's stack.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from banking77 import circumstances, write_result

from flows.processes import free_ports
from flows.team import Running, start
from flows.team_parts import PrefectServer, Secrets, Team
from flows.team_postgres import Postgres

TASKS, STAGES, CLIENTS = 200, 40, 4
CLIENT = Path(__file__).with_name("orchestration_client.py")
KINDS = {"sequential": TASKS, "stages": STAGES, "mapped": TASKS}
TIMES = (*KINDS, "at_once", "at_once_recorded")


@dataclass(frozen=True)
class Server:
    """A Prefect server that runs."""

    api: str
    log: Path
    clients: list[subprocess.Popen[str]]

    def ask(self, flows: dict[str, int], clients: int = CLIENTS) -> list[dict[str, Any]]:
        """Let so many clients run these flows at once; return what each measured."""
        asked = self.clients[:clients]
        for client in asked:
            client.stdin.write(f"{json.dumps(flows)}\n")  # type: ignore[union-attr]
            client.stdin.flush()  # type: ignore[union-attr]
        return [json.loads(client.stdout.readline()) for client in asked]  # type: ignore[union-attr]

    def recorded_at(self, runs: list[str]) -> float:
        """Return when the server had written down the last of the task runs of the clients' flow runs, in seconds since the epoch."""
        self.settle(runs, CLIENTS * TASKS, patience_s=60)
        last = 0.0
        for offset in range(0, CLIENTS * TASKS, 200):
            page = self._task_runs("filter", runs, {"offset": offset, "limit": 200})
            last = max([last, *(datetime.fromisoformat(one["updated"]).timestamp() for one in page)])
        return last

    def settle(self, runs: list[str], tasks: int, patience_s: float = 10) -> None:
        """Wait until the server has written everything down, so that it does not do so while the next kind is measured."""
        ended = {"task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
        deadline = time.monotonic() + patience_s
        while self._task_runs("count", runs, ended) < tasks and time.monotonic() < deadline:
            time.sleep(0.5)

    def _task_runs(self, what: str, runs: list[str], further: dict[str, Any]) -> Any:
        body = json.dumps({"flow_runs": {"name": {"any_": runs}}} | further).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.api}/task_runs/{what}", data=body, headers=headers)  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
            return json.loads(answer.read())


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="medians are of so many")
    parser.add_argument("--json", action="store_true", help="also write the figures to benchmarks/results/")
    arguments = parser.parse_args()
    figures = run(arguments.rounds)
    print(table(figures))
    if arguments.json:
        write_result("orchestration", figures)


def run(rounds: int) -> dict[str, Any]:
    """Return the medians by database, their ratios, and every round's figures."""
    began = time.monotonic()
    with servers() as both:
        for server in both.values():
            server.ask({"sequential": 5, "mapped": 5, "stages": 2})  # the first runs of a client and of a server take longer
        rows = [measure(name, server, number) for number in range(rounds) for name, server in both.items()]
        for row in rows:
            runs, began_at = row.pop("runs"), row.pop("began")
            row["at_once_recorded"] = round(1000 * (both[row["database"]].recorded_at(runs) - began_at) / (CLIENTS * TASKS), 2)
        locked = {name: server.log.read_text(errors="replace").count("database is locked") for name, server in both.items()}
    medians = {name: median_of([row for row in rows if row["database"] == name]) for name in both}
    return {
        **circumstances(),
        "database_versions": {"sqlite": sqlite3.sqlite_version, "postgresql": postgresql_version()},
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "seconds": round(time.monotonic() - began, 1),
        "rounds": rounds,
        "tasks": KINDS,
        "clients": CLIENTS,
        "medians": medians,
        "ratios": {name: round(medians["sqlite"][name] / medians["postgresql"][name], 2) for name in TIMES},
        "locked_in_the_log": locked,
        "rows": rows,
    }


def measure(database: str, server: Server, number: int) -> dict[str, Any]:
    """Measure each kind with one client, then the sequential one with all clients at once."""
    row: dict[str, Any] = {"database": database, "round": number}
    for name, tasks in KINDS.items():
        [alone] = server.ask({name: tasks}, clients=1)
        row[name] = round(1000 * alone[name]["seconds"] / tasks, 2)
        server.settle([alone[name]["run"]], tasks)
    row["began"] = time.time()
    many = server.ask({"sequential": TASKS})
    row["at_once"] = round(1000 * (max(one["sequential"]["ended"] for one in many) - row["began"]) / (CLIENTS * TASKS), 2)
    row["runs"] = [one["sequential"]["run"] for one in many]
    print(row, file=sys.stderr)
    return row


def median_of(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the median of each figure over the rounds."""
    return {name: round(statistics.median(row[name] for row in rows), 2) for name in TIMES}


def client_of(api: str) -> subprocess.Popen[str]:
    """Start a client of a server; it waits for what to run."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    env |= {"PREFECT_API_URL": api, "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL", "DO_NOT_TRACK": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, str(CLIENT)], env=env, text=True, **pipes)  # type: ignore[call-overload,no-any-return]


@contextmanager
def servers() -> Iterator[dict[str, Server]]:
    """Start a Prefect server on SQLite, as `prooftune up` does, and one on PostgreSQL, as `prooftune up --team` does; stop both."""
    folder = Path(tempfile.mkdtemp(prefix="prooftune-orchestration-"))
    folder.chmod(0o755)  # root's PostgreSQL runs as another account
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | {"XDG_STATE_HOME": str(folder)}
    team = Team(folder, Secrets(), dict(zip(("postgres", "prefect"), free_ports(0, 0), strict=True)))
    running: list[Running] = []
    both: dict[str, Server] = {}
    try:
        up = subprocess.run(["prooftune", "up", "--json"], env=env, check=True, capture_output=True, text=True)
        for part in (Postgres(team), PrefectServer(team)):
            running.append(start(part))
            running[-1].wait()
        found = {
            "sqlite": (json.loads(up.stdout)["api"], folder / "prooftune" / "server.log"),
            "postgresql": (f"{team.url('prefect')}/api", folder / "prefect.log"),
        }
        for name, (api, log) in found.items():
            both[name] = Server(api, log, [client_of(api) for _ in range(CLIENTS)])
        yield both
    finally:
        for client in [client for server in both.values() for client in server.clients]:
            client.kill()
            client.wait()
        for one in reversed(running):
            one.part.stop(one.record, folder)
        subprocess.run(["prooftune", "down"], env=env, check=True, capture_output=True)
        shutil.rmtree(folder)


def postgresql_version() -> str:
    """Return the version of the programs that `prooftune up --team` takes."""
    programs = Postgres(Team(Path(), Secrets(), {})).programs
    done = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=True)  # type: ignore[operator]
    return done.stdout.split()[2]


def table(figures: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    sqlite, postgresql, ratios = figures["medians"]["sqlite"], figures["medians"]["postgresql"], figures["ratios"]
    what = {
        "sequential": f"{TASKS} tasks one after another",
        "mapped": f"{TASKS} tasks mapped",
        "stages": f"{STAGES} stages one after another",
        "at_once": f"{CLIENTS} clients with {TASKS} tasks each, at once",
        "at_once_recorded": "the same, until the server has recorded them",
    }
    lines = [
        f"{figures['date']}, {figures['machine']}, Prefect {figures['versions']['prefect']}, "
        f"SQLite {figures['database_versions']['sqlite']}, PostgreSQL {figures['database_versions']['postgresql']}; "
        f"medians of {figures['rounds']} rounds in {figures['seconds']:.0f} s, load average {figures['load_average'][0]}",
        "",
        "| ms a task | SQLite | PostgreSQL | ratio |",
        "|---|---|---|---|",
        *(f"| {text} | {sqlite[name]:.1f} | {postgresql[name]:.1f} | {ratios[name]:.2f} |" for name, text in what.items()),
        "",
        "The last row ends when the server has written down what the clients sent it; Prefect does that behind their backs. "
        f"`database is locked` in the server's log with SQLite: {figures['locked_in_the_log']['sqlite']} times.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
