"""Servers that stay: known by pid and creation time, stopped with all they started, and never mistaken for another's process."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows.processes import ProcessRecord, await_answer, free_ports, launch, lives, recorded, stop
from flows.team import PARTS, take_down
from flows.team_parts import Secrets, Team
from flows.team_postgres import Postgres
from prooftune.errors import EnvironmentLacks

PARENT = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); time.sleep(60)"


@pytest.fixture
def foreign() -> Iterator[subprocess.Popen[bytes]]:
    """A process that none of our commands started, in a session of its own."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def started(folder: Path, code: str) -> ProcessRecord:
    """A process of ours, with a record in ``folder``."""
    command = [sys.executable, "-c", code]
    return launch(command, folder / "one.json", folder / "one.log", port=0, cwd=folder, env=dict(os.environ))


def with_a_child(folder: Path) -> tuple[ProcessRecord, psutil.Process]:
    """A process of ours that has started another."""
    record = started(folder, PARENT)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        process = record.process()
        if process and (children := process.children()):
            return record, children[0]
        time.sleep(0.02)
    raise TimeoutError("the process started no child")


def test_a_process_is_found_again_by_its_record(tmp_path: Path) -> None:
    """The record that was written names the process that runs, and no longer once it is stopped."""
    record = started(tmp_path, "import time; time.sleep(60)")
    assert recorded(tmp_path / "one.json") == record
    assert record.process()
    assert stop(record)
    assert record.process() is None
    assert not stop(record)


def test_what_it_started_ends_with_it(tmp_path: Path) -> None:
    """Stopping a server takes its child processes down as well."""
    record, child = with_a_child(tmp_path)
    assert stop(record, grace_s=1)
    assert not lives(child)


def test_what_a_killed_server_left_behind_is_found_and_ended(tmp_path: Path) -> None:
    """A child that outlives its killed parent, and may hold its port, belongs to the record still."""
    record, child = with_a_child(tmp_path)
    os.kill(record.pid, signal.SIGKILL)
    os.waitpid(record.pid, 0)
    assert lives(child)
    assert record.process() is None
    assert stop(record)
    assert not lives(child)


def test_a_foreign_process_with_a_reused_pid_is_spared(foreign: subprocess.Popen[bytes]) -> None:
    """A pid whose process was created at another time is another's, and so is its session."""
    record = ProcessRecord(foreign.pid, psutil.Process(foreign.pid).create_time() - 3600, port=0)
    assert record.process() is None
    assert record.family() == []
    assert not stop(record)
    assert foreign.poll() is None


def test_a_daemon_in_a_session_that_had_the_pid_is_spared(tmp_path: Path) -> None:
    """A daemon's session is named after a leader that has ended: where that had the pid of a record of before, the daemon is another's."""
    daemonise = "import os, sys, time; os.fork() and sys.exit(); print(os.getpid(), flush=True); os.close(1); time.sleep(60)"
    leader = subprocess.Popen([sys.executable, "-c", daemonise], start_new_session=True, stdout=subprocess.PIPE)
    told, _ = leader.communicate(timeout=20)
    daemon = psutil.Process(int(told))
    try:
        assert os.getsid(daemon.pid) == leader.pid
        ours = started(tmp_path, "")
        os.waitpid(ours.pid, 0)
        before = dataclasses.replace(ours, pid=leader.pid)
        assert not stop(before)
        assert lives(daemon)
    finally:
        daemon.kill()


def test_down_spares_foreign_processes(foreign: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every record of the team's stack names a reused pid, nothing is stopped, and the records are gone."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = tmp_path / "prooftune" / "team"
    folder.mkdir(parents=True)
    for kind in PARTS:
        ProcessRecord(foreign.pid, psutil.Process(foreign.pid).create_time() - 3600, kind.port).save(folder / f"{kind.name}.json")
    assert take_down() == []
    assert foreign.poll() is None
    assert list(folder.glob("*.json")) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_an_unreadable_record_is_none(tmp_path: Path, text: str) -> None:
    """A record that was cut short names no process."""
    (tmp_path / "one.json").write_text(text)
    assert recorded(tmp_path / "one.json") is None


def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    """The message of a start that failed ends with the server's own last words, at once."""
    record = started(tmp_path, "print('no such database', flush=True)")
    before = time.monotonic()
    with pytest.raises(EnvironmentLacks, match=r"(?s)the server X.*no such database"):
        await_answer(record, lambda: False, tmp_path / "one.log", "the server X")
    assert time.monotonic() - before < 10


@pytest.mark.parametrize("started_now", [True, False], ids=["one of now", "one that ran before"])
def test_a_server_that_is_only_slow_is_stopped_by_none_but_who_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started_now: bool
) -> None:
    """What ran before, and runs others may be using, goes on running where it does not answer in time."""
    monkeypatch.setattr("flows.processes.START_S", 0.1)
    record = started(tmp_path, "import time; time.sleep(60)")
    with pytest.raises(EnvironmentLacks, match="did not answer"):
        await_answer(record, lambda: False, tmp_path / "one.log", "the server X", started_now=started_now)
    assert stop(record) is not started_now


def test_a_taken_port_is_replaced() -> None:
    """The preferred port is given where it is free, another where it is taken, and never one twice."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_ports(port) != [port]
        assert len(set(free_ports(port, port, 0, 0, 0))) == 5
    assert free_ports(port) == [port]


def test_secrets_are_made_once_and_show_nowhere(tmp_path: Path) -> None:
    """They are the same at the second reading, for their owner's eyes alone, and not in what Python prints of them."""
    file = tmp_path / "secrets.json"
    made = Secrets.kept_in(file)
    assert Secrets.kept_in(file) == made
    assert file.stat().st_mode & 0o777 == 0o600
    assert made.secret_key not in repr(Team(tmp_path, made, {}))
    assert Secrets() != made


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to give its rights up")
def test_roots_database_is_where_its_account_can_reach_it(tmp_path: Path) -> None:
    """PostgreSQL does not run as root; its data stays in root's folder where that account can enter it, and is kept apart otherwise."""
    team = Team(tmp_path / "team", Secrets(), {})
    (tmp_path / "team").mkdir()
    tmp_path.chmod(0o700)
    elsewhere = Postgres(team).folder
    assert Postgres(team).account
    assert tmp_path not in elsewhere.parents
    assert Postgres(Team(tmp_path / "other", Secrets(), {})).folder != elsewhere
