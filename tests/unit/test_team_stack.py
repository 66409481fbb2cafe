"""The team's stack before anything runs: what it lacks, which ports it takes, and what people read."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows import team, team_postgres, team_screens
from flows.processes import ProcessRecord
from prooftune.errors import EnvironmentLacks


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stack of a user without one would be."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "prooftune" / "team"


def answer(**changed: Any) -> dict[str, Any]:
    """What ``bring_up`` returns of one part."""
    part = {"name": "mlflow", "what": "MLflow", "address": "http://127.0.0.1:5000", "pid": 17, "port": 5000, "port_wanted": 5000}
    return {"parts": [part | {"started_now": True} | changed], "env_file": "/home/me/my state/env", "folder": "/home/me/my state"}


def test_all_that_is_missing_is_said_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PostgreSQL and SeaweedFS one sentence names both and how to get them, and nothing was started."""
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(team_postgres, "DEBIAN_PROGRAMS", folder)
    monkeypatch.setattr("sys.executable", str(folder / "python"))
    with pytest.raises(EnvironmentLacks, match=r"PostgreSQL.*apt-get install postgresql.*SeaweedFS.*prooftune\[team\].*make up"):
        team.bring_up()
    assert list(folder.glob("*.log")) == []


def test_debians_newest_postgresql_is_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not on PATH, the versions' folders are looked through; 9.6 is older than 17."""
    for version in ("9.6", "15", "17"):
        (folder / version / "bin").mkdir(parents=True)
        (folder / version / "bin" / "initdb").touch()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(team_postgres, "DEBIAN_PROGRAMS", folder)
    part = team_postgres.Postgres(team.Team(folder, team.Secrets(), {}))
    assert part.programs == folder / "17" / "bin"


def test_a_part_that_comes_back_keeps_its_port(folder: Path) -> None:
    """While any part runs the others are reached where they know one another; when none does, a taken port is given up."""
    folder.mkdir(parents=True)
    me = psutil.Process()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ProcessRecord(2**22 + 1, 1.0, port).save(folder / "s3.json")
        ProcessRecord(me.pid, me.create_time(), 0).save(folder / "worker.json")
        assert team._ports(folder)["s3"] == port
        (folder / "worker.json").unlink()
        assert team._ports(folder)["s3"] != port


def test_the_screen_says_what_to_do_next(capsys: pytest.CaptureFixture[str]) -> None:
    """A line to copy, quoted where the path has spaces, and the ports that are not the usual ones."""
    team_screens.up(answer(port=41234))
    shown = capsys.readouterr().out
    assert "1 of 1 started just now" in shown
    assert "port 5000 was taken" in shown
    assert ". '/home/me/my state/env'" in shown
    team_screens.up(answer(started_now=False))
    assert "nothing had to be started" in capsys.readouterr().out


def test_the_screen_says_what_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    """The team's parts, this machine's own server, both or neither."""
    team_screens.down({"running": False, "stopped": False, "ui": None, "team": ["Worker", "PostgreSQL"]})
    shown = " ".join(capsys.readouterr().out.split())
    assert "Stopped: Worker, PostgreSQL; their data stays" in shown
    assert "No local" not in shown
    team_screens.down({"running": False, "stopped": False, "ui": None, "team": []})
    assert "No local Prefect server was running" in capsys.readouterr().out


def test_records_are_small_and_readable(folder: Path) -> None:
    """A record is the pid, when the process was created, the port, and where it was started."""
    folder.mkdir(parents=True)
    ProcessRecord(1, 2.5, 3).save(folder / "one.json")
    assert json.loads((folder / "one.json").read_text()) == {"pid": 1, "started": 2.5, "port": 3, "folder": ""}
