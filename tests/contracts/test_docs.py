"""The documentation keeps its word: commands and code run, links lead somewhere, reference pages are those of the code."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from tests_support import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
RUN = "triage-3f1c09a8d2be"
"""The run that the documentation speaks of."""

MAIN_JOB = "tests/e2e/test_main_job.py::test_a_candidate_that_learned_the_task_is_promoted"
AGAIN = "tests/e2e/test_main_job.py::test_the_same_command_again_does_nothing_again"
STORES = "tests/contracts/test_object_store.py"
DEPLOYED = "tests/orchestration/test_deployment.py::test_a_run_from_the_form_ends_in_a_verdict"
TRAIN_QLORA = "prooftune run triage/spec.yaml --set backend.method.kind=qlora --set backend.model=owner/name"
QLORA = "tests/gpu/test_qlora_cuda.py::test_qlora_loads_nf4_and_learns"
ROLLED_BACK = "tests/unit/test_registry.py::test_each_change_says_who_from_and_to"
SERVER = "tests/conftest.py::server"
TEAM = "tests/orchestration/test_team.py"
JOBS = "tests/unit/test_jobs_cli.py"
MANAGED = "tests/orchestration/test_managed_flow.py"
APPROVED = "tests/orchestration/test_managed_approval.py::test_a_person_approves_once"
KEY = "prooftune-0a1b2c3d4e5f60718293a4b5"
AT_A_STAND_IN = (
    "--set backend.provider=openai --set backend.model=gpt-4.1-mini --set provider.base_url=http://127.0.0.1:8787/v1 "
    "--set provider.min_remaining_days=0"
)
IN_CONTAINERS = "docker compose --file infra/compose.yaml"
DEPLOYING = "tests/orchestration/test_deploying.py"
COMPOSE = "tests/contracts/test_compose.py"
LONG = {
    "make demo": "Makefile",
    "make demo-managed": "Makefile",
    "make test": "Makefile",
    "make check": "Makefile",
    "prooftune run triage/spec.yaml": MAIN_JOB,
    "prooftune run triage/spec.yaml --json > result.json": MAIN_JOB,
    "prooftune run triage/spec.yaml --fresh": AGAIN,
    "prooftune run triage/spec.yaml --set store.uri=s3://my-bucket/prooftune": STORES,
    "prooftune show --store s3://my-bucket/prooftune": STORES,
    "prooftune show --store s3://my-bucket/prooftune --endpoint-url http://127.0.0.1:8333": STORES,
    "prooftune doctor --store s3://my-bucket/prooftune": STORES,
    f"{TRAIN_QLORA} --set backend.method.learning_rate=2e-4": QLORA,
    "prooftune verify triage-3f1c09a8d2be": "tests/unit/test_verification.py::test_an_untouched_run_matches",
    'prooftune rollback triage --reason "wrong on refunds since Monday" --from triage-3f1c09a8d2be': ROLLED_BACK,
    f"prooftune run triage/spec.yaml {AT_A_STAND_IN}": f"{MANAGED}::test_a_run_ends_in_a_verdict_with_one_job_and_one_bill",
    "prooftune sandbox openai": "tests/unit/test_sandbox_cli.py::test_it_serves_until_nobody_asks",
    'prooftune approve triage-3f1c09a8d2be --reason "within this quarter\'s plan"': APPROVED,
    f"prooftune jobs reconcile {KEY}": f"{JOBS}::test_a_job_that_turns_up_is_adopted",
    f"prooftune jobs reconcile {KEY} --job ftjob-abc123": f"{JOBS}::test_a_person_names_the_job",
    f'prooftune jobs reconcile {KEY} --none --reason "the console shows no job"': f"{JOBS}::test_a_person_says_that_there_is_no_job",
    f"prooftune jobs cancel {KEY}": f"{JOBS}::test_a_job_is_cancelled_and_done_again",
    f'prooftune jobs again {KEY} --reason "the file is mended"': f"{JOBS}::test_a_job_is_cancelled_and_done_again",
    "prooftune jobs resume": f"{MANAGED}::test_a_run_need_not_wait_for_its_job",
    "prooftune compare triage/spec.yaml --backends local,openai,together": f"{MANAGED}::test_backends_are_compared_on_one_seal",
    "make up": "Makefile",
    "make down": "Makefile",
    "make e2e": "Makefile",
    ". ~/.local/state/prooftune/team/env": f"{TEAM}::test_every_service_answers",
    "prooftune deploy --store s3://prooftune/store": f"{DEPLOYING}::test_deployed_flows_keep_their_results_where_deploy_is_told",
    "cp infra/env.example infra/.env": f"{COMPOSE}::test_no_secret_stands_in_it",
    f"{IN_CONTAINERS} up --detach --build --wait": f"{COMPOSE}::test_everything_is_deployed_before_a_worker_starts",
    f"{IN_CONTAINERS} run --rm deploy": f"{COMPOSE}::test_everything_is_deployed_before_a_worker_starts",
    f"{IN_CONTAINERS} exec worker prooftune history TASK": f"{COMPOSE}::test_all_keep_their_results_in_the_s3_server",
    "prooftune automations apply": f"{DEPLOYING}::test_a_failed_run_and_a_verdict_are_told_to_every_channel",
    "PROOFTUNE_WEBHOOK_SECRET=… prooftune listen": "tests/orchestration/test_watch.py::test_a_posted_request_becomes_an_event",
    "prooftune up": SERVER,
    "PREFECT_API_URL=http://127.0.0.1:4200/api prefect --no-prompt deploy --all": DEPLOYED,
    "PREFECT_API_URL=http://127.0.0.1:4200/api prefect worker start --pool cpu --type process": DEPLOYED,
    "PREFECT_API_URL=http://127.0.0.1:4200/api prefect work-pool create cpu --type process": DEPLOYED,
}
"""Commands that take minutes, a GPU, a bucket, a server or containers, and what covers each: test, fixture, or target of the Makefile."""


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Yield language and content of each fenced block."""
    yield from ((found[1], found[2]) for found in FENCE.finditer(page.read_text(encoding="utf-8")))


def commands() -> list[str]:
    """Return every command of the documentation once, in reading order, without its trailing comment."""
    lines = [line for page in PAGES for language, text in blocks(page) if language in ("console", "bash") for line in text.splitlines()]
    return list(dict.fromkeys(re.sub(r"\s+# .*", "", line.removeprefix("$ ")) for line in lines))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder as the documentation's reader has it: the environment, a model of their own, and a run of theirs in the store."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "my-model").symlink_to(tiny_model)
    _publish_run(folder, tiny_model)
    return folder


@pytest.fixture(scope="module")
def reader(folder: Path, home: dict[str, str]) -> dict[str, str]:
    """Environment of a reader with a home of their own: `prooftune down` must not stop the server of other tests."""
    return home | {"HOME": str(folder)}


def _publish_run(folder: Path, base: Path) -> None:
    from peft import LoraConfig, get_peft_model

    from prooftune.models.loading import load_base, load_tokenizer
    from prooftune.spec import Store, parse_spec
    from prooftune.storage.manifest import publish
    from prooftune.storage.objects import open_store
    from prooftune.storage.registry import register
    from prooftune.types import Decision

    adapter = folder / "trained"
    get_peft_model(load_base(base), LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear")).save_pretrained(adapter)
    load_tokenizer(base).save_pretrained(adapter)
    spec = parse_spec({"name": "triage", "data": {"source": "x"}, "task": {"system": "Triage"}, "backend": {"model": str(base)}})
    (folder / "resolved.yaml").write_text(spec.resolved_yaml())
    (folder / "report.html").write_text("<!doctype html>")
    files = {"spec.yaml": folder / "resolved.yaml", "report.html": folder / "report.html"}
    files |= {f"adapter/{path.name}": path for path in adapter.iterdir() if path.suffix != ".md"}
    decision = Decision(verdict="promote", reasons=("It is better.",), metric="exact_match", baseline="few_shot", n=100)
    facts = {"run_id": RUN, "name": "triage", "decision": decision.model_dump(mode="json"), "evaluations": [], "stages": []}
    store = open_store(Store(uri=str(folder / "prooftune-store")))
    register(store, "triage", RUN, publish(store, RUN, files, facts), decision)


def test_every_command_runs(folder: Path, reader: dict[str, str]) -> None:
    """Each command of README and docs, in reading order in one folder, exits with 0, unless it is on the list of long ones."""
    for command in commands():
        if command not in LONG:
            done = subprocess.run(["bash", "-c", command], cwd=folder, env=reader, capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    found = json.loads((folder / "validation.json").read_text())
    told = f"of {found['rows']} rows {found['invalid']} are invalid and {found['kept']} are usable"
    assert told in (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("command", "covered_by"), LONG.items())
def test_long_commands_are_in_the_docs_and_covered(command: str, covered_by: str) -> None:
    """The list of long commands has no stale entry, and what covers each of them exists."""
    assert command in commands()
    if covered_by == "Makefile":
        subprocess.run(["make", "--dry-run", *command.split()[1:]], cwd=ROOT, check=True, capture_output=True)
        return
    path, _, name = covered_by.partition("::")
    assert f"def {name}" in (ROOT / path).read_text(encoding="utf-8")


def test_python_snippets_run(folder: Path, reader: dict[str, str]) -> None:
    """Each Python block of the docs runs as it stands, in the folder of a reader who has a promoted run."""
    snippets = [(page.name, text) for page in PAGES for language, text in blocks(page) if language == "python"]
    assert snippets
    for name, text in snippets:
        done = subprocess.run(
            [sys.executable, "-c", text], cwd=folder, env=reader, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{name}\n{text}\n{done.stderr}"


def test_yaml_blocks_are_specs() -> None:
    """Each YAML block is a spec, or parts of one that are valid beside a name and a source."""
    from prooftune.spec import parse_spec

    found = [yaml.safe_load(text) for page in PAGES for language, text in blocks(page) if language == "yaml"]
    assert found
    for values in found:
        parse_spec({"name": "docs", "data": {"source": "x"}} | values)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_pictures_resolve(page: Path) -> None:
    """Every relative link and picture leads to a file, and every anchor to a heading of it."""
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" in target:
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}, which has no such heading"


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and GitLab make them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_index() -> None:
    """docs/README.md leads to every page of the documentation."""
    listed = {(ROOT / "docs" / target).resolve() for target in LINK.findall((ROOT / "docs" / "README.md").read_text(encoding="utf-8"))}
    assert {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - {ROOT / "docs" / "README.md"} <= listed


def test_reference_pages_are_current() -> None:
    """The generated pages are what the code says now; `make docs` writes them."""
    made = _generator().pages()
    for name, text in made.items():
        assert (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8") == text, f"docs/reference/{name} is stale; run `make docs`"
    assert {path.name for path in (ROOT / "docs" / "reference").iterdir()} == set(made)


def test_every_error_and_field_has_its_meaning() -> None:
    """No field of the spec and no error is listed without a word on what it means."""
    bare = re.compile(r"\| +\|$", re.MULTILINE)
    made = _generator().pages()
    assert not bare.findall(made["errors.md"])
    assert not bare.findall(made["spec.md"])


def _generator() -> Any:
    specification = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_every_dependency_has_its_reason() -> None:
    """Decision 0003 has a row for each dependency of pyproject.toml, and none for anything else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    page = (ROOT / "docs" / "decisions" / "0003-dependencies.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([\w.-]+)`", page, re.MULTILINE)) == {re.split(r"[^\w.-]", name)[0] for name in wanted}


def test_every_finding_is_explained() -> None:
    """The guide to cleaning explains every kind of flaw that the data stages can name."""
    guide = (ROOT / "docs" / "how-to" / "clean-a-data-set.md").read_text(encoding="utf-8")
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src" / "prooftune" / "data").glob("*.py"))
    named = set(re.findall(r'(?:\b(?:_?Unfit|Flaw|FileUnusable)\(\s*|\bcode=)"([a-z-]+)"', sources))
    assert {"broken-line", "wrong-type", "unreadable", "exact-duplicate"} <= named
    assert [code for code in sorted(named) if f"`{code}`" not in guide] == []
