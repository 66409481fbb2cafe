"""What the layout promises: layers, names that hijack nothing, and a command line that starts fast."""

from __future__ import annotations

import importlib.metadata
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from tests_support import ROOT

FLOW_FILES = sorted((ROOT / "flows").glob("*.py"))


@pytest.mark.parametrize("stem", [path.stem for path in FLOW_FILES if path.stem != "__init__"])
def test_no_flow_file_hides_a_module(stem: str) -> None:
    """Prefect puts flows/ first on sys.path, so no file there may be named like a module that anything imports."""
    found = importlib.metadata.packages_distributions()
    # python-hcl2, which only a test of infra/ uses, installs its own command's code as a top-level `cli`; its library does not import it.
    installed = {name.partition(".")[0] for name, packages in found.items() if set(packages) != {"python-hcl2"}}
    assert stem not in sys.stdlib_module_names | installed


def test_tests_are_no_package() -> None:
    """An __init__.py below tests/ would shadow our own packages."""
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_the_deployed_flow_loads_by_its_entrypoint() -> None:
    """The flow of each deployment imports for real, not as the placeholder that Prefect falls back to."""
    import yaml
    from prefect.flows import load_flow_from_entrypoint

    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert deployments
    for deployment in deployments:
        path, name = deployment["entrypoint"].split(":")
        loaded = load_flow_from_entrypoint(f"{ROOT / path}:{name}", use_placeholder_flow=False)
        assert loaded.fn.__name__ == name
        assert set(deployment.get("parameters", {})) <= set(inspect.signature(loaded.fn).parameters)


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        ("import flows.cli", ("torch", "prefect", "pydantic", "rich", "pandas")),
        ("import prooftune.spec, flows.commands", ("torch", "prefect", "pandas", "great_expectations", "transformers")),
        ("import flows.finetune", ("torch", "transformers", "trl", "peft", "datasets", "evaluate", "great_expectations", "boto3")),
    ],
)
def test_heavy_modules_stay_out_until_they_are_needed(code: str, forbidden: tuple[str, ...]) -> None:
    """Importing the command line, the spec or the flow loads none of what takes seconds."""
    check = f"{code}; import sys; print([name for name in {forbidden!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_wheel_carries_three_roots(tmp_path: Path) -> None:
    """An installed wheel has flows, tasks and prooftune, its templates and its examples, and cannot be uploaded by accident."""
    import zipfile

    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)], check=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == {"flows", "tasks", "prooftune"}
    assert "prooftune/report/templates/report.html.j2" in names
    assert "prooftune/examples/support-triage/spec.yaml" in names
    assert "Classifier: Private :: Do Not Upload" in metadata
