"""Servers that outlive the command that started them: written down, found again, waited for, stopped, and never mistaken for another's."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from prooftune.errors import EnvironmentLacks

START_S = 120.0
"""A busy machine takes long to import a server."""
SAME_START_S = 2.0
"""Creation times are reckoned from the boot time, and differ by fractions of a second from one reading to the next."""
LOG_LINES = 15


@dataclass(frozen=True)
class ProcessRecord:
    """A process that a command started and left running, in a session of its own."""

    pid: int
    started: float
    """Creation time of the process in seconds since the epoch: with the pid it names one process for good."""
    port: int
    """On 127.0.0.1; 0 = it listens on none."""
    folder: str = ""
    """Where it was started. What it has left behind works there, and by that is known: pids and sessions come round again."""

    def process(self) -> psutil.Process | None:
        """Return the process while it runs; a pid that is another's by now is none."""
        try:
            found = psutil.Process(self.pid)
            return found if self._is(found) and lives(found) else None
        except psutil.NoSuchProcess:
            return None

    def await_release(self, seconds: float = 5.0) -> None:
        """Wait, so long at most, until the pid of a process that has ended is free: PostgreSQL takes it for a predecessor still at work."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(psutil.NoSuchProcess):
                if self._is(psutil.Process(self.pid)):
                    time.sleep(0.05)
                    continue
            return

    def family(self) -> list[psutil.Process]:
        """Return the process, its descendants and, where it died before them, those that are left in its session."""
        with contextlib.suppress(psutil.NoSuchProcess):
            leader = psutil.Process(self.pid)
            if not self._is(leader):
                return []  # pid and session are another's by now
            found = [leader, *leader.children(recursive=True)]
            known = {member.pid for member in found}
            return found + [other for other in psutil.process_iter() if other.pid not in known and _session(other.pid) == self.pid]
        # Its session may be another's, too: that of a daemon, whose leader ends once it has started it.
        return [other for other in psutil.process_iter() if _session(other.pid) == self.pid and self._works_here(other)]

    def save(self, file: Path) -> None:
        """Write the record, whole or not at all."""
        new = file.with_suffix(".new")
        new.write_text(json.dumps(asdict(self)))
        new.replace(file)

    def _works_here(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            return bool(self.folder) and Path(process.cwd()).is_relative_to(self.folder)
        return False

    def _is(self, process: psutil.Process) -> bool:
        return abs(process.create_time() - self.started) < SAME_START_S


def recorded(file: Path) -> ProcessRecord | None:
    """Return the record in a file, of a process that may have ended since; None where there is none."""
    try:
        return ProcessRecord(**json.loads(file.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def launch(
    command: Sequence[str], file: Path, log: Path, *, port: int, cwd: Path, env: Mapping[str, str], account: str | None = None
) -> ProcessRecord:
    """Start a process that stays, in a session of its own, and write its record at once; ``account`` is whom it runs as."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env=env,
            start_new_session=True,
            **as_account(account),
        )
    record = ProcessRecord(process.pid, psutil.Process(process.pid).create_time(), port, str(cwd.resolve()))
    record.save(file)
    return record


def as_account(account: str | None) -> dict[str, Any]:
    """Return the options of ``subprocess`` that give root's rights up for an account's; None = stay who one is."""
    if account is None:
        return {}
    return {"user": account, "group": pwd.getpwnam(account).pw_gid, "extra_groups": []}


def await_answer(record: ProcessRecord, answers: Callable[[], bool], log: Path, what: str, *, started_now: bool = True) -> None:
    """Wait until a server answers.

    Raises:
        EnvironmentLacks: it ends, or does not answer in time; the message ends with what its log says. It is stopped then, unless it ran
            before: others may be at work with it, and it may only be slow.
    """
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if answers():
            return
        if record.process() is None:
            break
        time.sleep(0.25)
    if started_now:
        stop(record)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
    raise EnvironmentLacks(f"{what} did not answer within {START_S:.0f} s. Its log, {log}, ends:\n{tail}")


def stop(record: ProcessRecord, how: signal.Signals = signal.SIGTERM, grace_s: float = 10.0) -> bool:
    """Ask a process to end, end what is left of its family when the time is up, and return whether there was anything to stop."""
    leader, family = record.process(), [member for member in record.family() if lives(member)]
    ask([leader] if leader else family, how, family, grace_s)
    left = {member for member in {*family, *record.family()} if lives(member)}  # it may have started another meanwhile
    ask(left, signal.SIGKILL, left, grace_s)
    return bool(family)


def ask(processes: Iterable[psutil.Process], how: signal.Signals, awaited: Collection[psutil.Process], seconds: float) -> None:
    """Send processes a signal, and wait so long at most until those that are awaited have ended."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(how)
    deadline = time.monotonic() + seconds
    while any(lives(one) for one in awaited) and time.monotonic() < deadline:
        time.sleep(0.05)


def with_environment(name: str, value: str) -> list[psutil.Process]:
    """Return the processes that were started with this in their environment, as far as we may see."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(name) == value and lives(process):
                found.append(process)
    return found


def lives(process: psutil.Process) -> bool:
    """Return whether a process runs: one that has ended may stay a zombie for good, where process 1 does not look after orphans."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def free_ports(*preferred: int) -> list[int]:
    """Return for each port that one itself, or another free one of 127.0.0.1 where it is taken; 0 = any.

    Raises:
        EnvironmentLacks: no port is free.
    """
    with contextlib.ExitStack() as probes:  # all are held until the last is found, or two would be the same
        return [_free_port(port, probes) for port in preferred]


def _free_port(preferred: int, probes: contextlib.ExitStack) -> int:
    for port in (preferred, 0):
        probe = probes.enter_context(socket.socket())
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return int(probe.getsockname()[1])
    raise EnvironmentLacks("no port is free on 127.0.0.1; end what holds them, or use servers that run elsewhere (PREFECT_API_URL)")


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None
