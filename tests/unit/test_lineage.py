"""Lineage: every part of what a result was made from changes its digest, and nothing else does."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests_support import ROOT

from prooftune import lineage as module
from prooftune.lineage import code_version, digest_of, environment, lineage
from prooftune.spec import parse_spec
from prooftune.types import ModelRef

SPEC = parse_spec({"name": "toy", "data": {"source": "toy.jsonl"}})
DATA = {
    "splits": {"holdout.jsonl": {"sha256": "a" * 64, "examples": 60}, "train.jsonl": {"sha256": "b" * 64, "examples": 100}},
    "seal": "a" * 64,
}
MODEL = ModelRef(name="tiny", revision="r", sha256="c" * 64)
FILES = {"prices": "d" * 64, "documents": "e" * 64}
STAGES = {"split": 1, "gate": 2}


@pytest.fixture(autouse=True)
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package in place of our own, whose files may be edited while the tests run."""
    package = tmp_path / "madeup_package"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__init__.py").write_text("x = 1\n")
    (package / "prices.toml").write_text("a = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(module, "PACKAGES", (package.name,))
    return package


def made(**changes: Any) -> dict[str, Any]:
    """The lineage of a run, with some of what it was made from changed."""
    parts = {"spec": SPEC, "source": "f" * 64, "data": DATA, "model": MODEL, "files": FILES, "stages": STAGES}
    return lineage(**(parts | changes))


def test_the_same_run_has_the_same_lineage_and_it_is_json() -> None:
    """Repeated, it is equal, survives JSON, and its digest covers all the rest."""
    first = made()
    assert made() == first == json.loads(json.dumps(first))
    assert digest_of(first) == first["sha256"]
    assert first["prices_sha256"] == "d" * 64
    assert first["data"]["files"] == {"documents": "e" * 64}


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("data", {"source": "0" * 64}),
        ("data", {"data": DATA | {"splits": {"holdout.jsonl": {"sha256": "0" * 64, "examples": 60}}}}),
        ("data", {"files": FILES | {"documents": "0" * 64}}),
        ("seal", {"data": DATA | {"seal": "0" * 64}}),
        ("spec_sha256", {"spec": parse_spec({"name": "toy", "data": {"source": "toy.jsonl", "min_examples": 51}})}),
        ("prices_sha256", {"files": FILES | {"prices": "0" * 64}}),
        ("model", {"model": MODEL.model_copy(update={"revision": "s"})}),
        ("code", {"stages": STAGES | {"gate": 3}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_each_input_changes_its_part_alone(part: str, changes: dict[str, Any]) -> None:
    """The part that differs names what differs, and the digest of the whole differs with it."""
    before, after = made(), made(**changes)
    assert {name for name in before if before[name] != after[name]} == {part, "sha256"}


def test_who_allowed_the_cost_is_in_the_lineage() -> None:
    """Where a person was asked; the digest covers the answer, and a run of which nobody was asked has none."""
    said = {"approved": True, "usd": 41.5, "by": "ada", "at": "2026-11-27T10:00:00+00:00", "reason": "worth it"}
    found = made(approval=said)
    assert found["approval"] == said
    assert digest_of(found | {"approval": said | {"by": "bob"}}) != found["sha256"] == digest_of(found)
    assert "approval" not in made()


def test_any_edit_of_a_lineage_shows() -> None:
    """Whatever value is changed by hand, the digest no longer fits."""
    found = made()
    for name in found:
        edited = copy.deepcopy(found)
        edited[name] = "edited"
        assert digest_of(edited) != edited["sha256"], name


def test_the_codes_digest_changes_with_any_of_its_files(code: Path) -> None:
    """A changed line and a changed data file count; compiled files and the examples do not."""
    digests = [code_version()["sha256"]]
    (code / "__pycache__" / "x.pyc").write_text("compiled")
    (code / "examples").mkdir()
    (code / "examples" / "spec.yaml").write_text("name: x\n")
    assert code_version()["sha256"] == digests[0]
    for name in ("__init__.py", "prices.toml"):
        (code / name).write_text("x = 2\n")
        digests.append(code_version()["sha256"])
    assert len(set(digests)) == 3
    assert code.name not in sys.modules


def test_our_own_code_is_found_without_importing_it() -> None:
    """The three packages of the wheel are found from anywhere, and the library imports no flow for it."""
    check = "import sys; from prooftune.lineage import PACKAGES, _code_of; "
    check += "assert all(len(list(_code_of(name))) > 5 for name in PACKAGES); print('prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True, capture_output=True, text=True).stdout == "False\n"


def test_a_checkout_knows_its_commit() -> None:
    """In a clone the commit is the one that git names."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert code_version()["commit"] == head


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without git, or a repository that git refuses, leaves the commit open."""
    monkeypatch.setenv("PATH", "")
    assert (code_version()["commit"], code_version()["changed"]) == (None, None)


def test_the_environment_names_what_results_depend_on() -> None:
    """Python, platform and the libraries by version."""
    found = environment()
    assert found["libraries"]["python"].startswith("3.")
    assert {"torch", "transformers"} <= set(found["libraries"])
    assert len(found["sha256"]) == 64


def test_what_is_kept_elsewhere_is_in_the_lineage() -> None:
    """A sentence for each who gets data; nothing where nothing leaves, so that such runs' lineages are as they were."""
    assert "kept_elsewhere" not in made()
    judged = parse_spec({"name": "toy", "data": {"source": "toy.jsonl"}, "judge": {"provider": "anthropic", "model": "m"}})
    [kept] = made(spec=judged)["kept_elsewhere"]
    assert kept.startswith("anthropic (judge) keeps prompts with their answers for at most 30 days")
