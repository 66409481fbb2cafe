"""The team's PostgreSQL: Prefect's database, on loopback with a password, run by an account that is not root."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pwd
import shutil
import signal
import subprocess
from functools import cached_property
from pathlib import Path
from typing import Any

import platformdirs

from flows.processes import ProcessRecord, as_account
from flows.team_parts import Part, write_private
from prooftune.errors import EnvironmentLacks

ACCOUNTS = ("postgres", "nobody")
DEBIAN_PROGRAMS = Path("/usr/lib/postgresql")
"""Debian keeps each version's programs in a folder of its own, which is not on PATH."""
USER, DATABASE = "prooftune", "prefect"


class Postgres(Part):
    """One writer at a time is what SQLite has; a team has several."""

    name, what, port = "postgres", "PostgreSQL", 5432
    how_to_stop = signal.SIGINT
    """Its fast shutdown: SIGTERM would wait until the last client has gone."""

    @cached_property
    def programs(self) -> Path | None:
        """The folder of ``postgres`` and ``initdb``: the one on PATH, or Debian's newest."""
        if on_path := shutil.which("postgres"):
            return Path(on_path).resolve().parent
        versions = [folder for folder in DEBIAN_PROGRAMS.glob("*/bin") if (folder / "initdb").exists()]
        return max(versions, key=lambda folder: float(folder.parent.name), default=None)

    @cached_property
    def account(self) -> str | None:
        """PostgreSQL refuses to run as root: it then runs as the account that its package makes, or as nobody."""
        known = {entry.pw_name for entry in pwd.getpwall()}
        return next((name for name in ACCOUNTS if name in known), None) if os.geteuid() == 0 else None

    def lacks(self) -> str | None:
        """It comes with the operating system."""
        if self.programs is None:
            return "PostgreSQL, `postgres` on PATH: apt-get install postgresql, brew install postgresql"
        if os.geteuid() == 0 and self.account is None:
            return f"an account {' or '.join(ACCOUNTS)}, since PostgreSQL does not run as root: run as another user"
        return None

    @cached_property
    def folder(self) -> Path:
        """Where root's home is closed to that account, the data is kept where machines keep that of services."""
        usual = self.team.folder / self.name
        if self.account is None or _can_enter(usual.parent, self.account):
            return usual
        whose = hashlib.sha256(bytes(self.team.folder)).hexdigest()[:12]
        return Path(platformdirs.site_state_dir("prooftune")) / whose / self.name

    @property
    def address(self) -> str:
        """Without the password."""
        return f"postgresql://{USER}@127.0.0.1:{self.team.ports[self.name]}/{DATABASE}"

    def prepare(self) -> None:
        """Make the database, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.account:
            shutil.chown(self.folder, self.account)
        self.folder.chmod(0o700)
        if self._data.exists():
            return
        new, password = self.folder / "new", self.folder / "password"
        shutil.rmtree(new, ignore_errors=True)
        write_private(password, self.team.secrets.database_password)
        if self.account:
            shutil.chown(password, self.account)
        access = ("--auth=scram-sha-256", f"--username={USER}", f"--pwfile={password}")
        try:
            self._run("initdb", f"--pgdata={new}", "--no-locale", "--encoding=UTF8", *access)
            self._run("postgres", "--single", "-D", str(new), "postgres", told=f"CREATE DATABASE {DATABASE};\n")
        finally:
            password.unlink()
        new.rename(self._data)

    def command(self) -> list[str]:
        """It listens on loopback only, and on no socket file."""
        settings = {"listen_addresses": "127.0.0.1", "port": self.team.ports[self.name], "unix_socket_directories": ""}
        given = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [self._program("postgres"), "-D", str(self._data), *given]

    def answers(self, record: ProcessRecord) -> bool:
        """Connect with the password: the port opens before the database does, and another server may have it."""
        return asyncio.run(_connects(self.team.ports[self.name], self.team.secrets.database_password))

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _program(self, name: str) -> str:
        return str((self.programs or Path()) / name)

    def _run(self, program: str, *arguments: str, told: str | None = None) -> None:
        command = [self._program(program), *arguments]
        done = subprocess.run(command, cwd=self.folder, input=told, capture_output=True, text=True, check=False, **as_account(self.account))
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())[-600:]
            raise EnvironmentLacks(f"the team's database cannot be made in {self.folder}: {program} ended with {done.returncode}: {said}")


async def _connects(port: int, password: str) -> bool:
    import asyncpg

    known: dict[str, Any] = {"host": "127.0.0.1", "port": port, "user": USER, "password": password, "database": DATABASE}
    try:
        connection = await asyncpg.connect(**known, ssl=False, timeout=5)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    await connection.close()
    return True


def _can_enter(folder: Path, account: str) -> bool:
    return subprocess.run(["test", "-x", folder], check=False, **as_account(account)).returncode == 0
