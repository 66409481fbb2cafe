"""What people see of a run in the Prefect UI, asked of the API that the UI asks: names, tags, artifacts, logs."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tests_support import prooftune

pytestmark = pytest.mark.slow
SILENT = {"model", "fingerprint", "fingerprint_files", "find_champion"}
"""Stages that only find out what the others work on."""


def call(api: str, path: str, body: dict[str, Any]) -> Any:
    """Ask the Prefect API."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{api}{path}", data=json.dumps(body).encode(), headers=headers)  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - loopback
        return json.loads(answer.read())


@pytest.fixture(scope="module")
def run(server: dict[str, Any], home: dict[str, str], toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run of the toy spec to its verdict, in a store of its own: the flow run, its task runs, artifacts and logs."""
    store = f"store.uri={tmp_path_factory.mktemp('shown')}"
    done = prooftune("run", str(toy_folder / "spec.yaml"), "--json", "--set", store, env=home)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    mine = {"flow_runs": {"id": {"any_": [result["ui_url"].rpartition("/")[2]]}}}
    [flow_run] = call(server["api"], "/flow_runs/filter", mine)
    of_run = {"flow_run_id": {"any_": [flow_run["id"]]}}
    return {
        "result": result,
        "flow_run": flow_run,
        "task_runs": call(server["api"], "/task_runs/filter", mine),
        "artifacts": call(server["api"], "/artifacts/filter", {"artifacts": of_run}),
        "logs": call(server["api"], "/logs/filter", {"logs": of_run, "limit": 200}),
    }


def test_names_and_tags_say_what_it_is_and_how_it_ended(run: dict[str, Any]) -> None:
    """The flow run is called by task, method and model, and tagged with task, backend and verdict; stages say what they do."""
    assert run["flow_run"]["name"] == "toy: full training of tiny-model0"
    assert {"toy", "local", run["result"]["verdict"]} <= set(run["flow_run"]["tags"])
    names = {task_run["name"] for task_run in run["task_runs"]}
    assert {"ingest: read the records", "train: make the candidate", "gate: decide"} <= names


def test_every_stage_leaves_an_artifact_with_a_sentence(run: dict[str, Any]) -> None:
    """No stage is silent, each description is a sentence, and the run's own artifact is the verdict."""
    by_task = {artifact["task_run_id"] for artifact in run["artifacts"]}
    silent = {task_run["name"].partition(":")[0] for task_run in run["task_runs"] if task_run["id"] not in by_task}
    assert silent <= SILENT
    said = {artifact["key"]: artifact["description"] for artifact in run["artifacts"] if artifact["type"] != "progress"}
    assert {key: text for key, text in said.items() if not re.search(r"[.?)]$", text)} == {}
    [verdict] = [artifact for artifact in run["artifacts"] if artifact["task_run_id"] is None]
    assert verdict["key"] == "verdict"
    shown = f"prooftune show {run['result']['run_id']}"
    for expected in ("## Evidence", "| candidate |", "report.html", "model_card.md", "data_docs/index.html", shown):
        assert expected in verdict["data"]


def test_the_loss_is_one_artifact_with_a_curve(run: dict[str, Any]) -> None:
    """Training leaves one live loss that was written anew until its last step."""
    [loss] = [artifact for artifact in run["artifacts"] if artifact["key"] == "live-loss"]
    assert "after step 120 of 120" in loss["description"]
    assert "data:image/svg+xml;base64," in loss["data"]


def test_the_librarys_log_is_there_and_prefects_own_lines_do_not_drown_it(run: dict[str, Any]) -> None:
    """The UI shows what the library says, and one line a stage."""
    lines = [(entry["name"], entry["message"]) for entry in run["logs"]]
    assert ("prooftune.training.trainer", "step 120 of 120") in {(name, text[:15]) for name, text in lines}
    assert any(name == "prooftune.storage.manifest" and text.startswith("published ") for name, text in lines)
    assert not [text for name, text in lines if name == "prefect.task_runs" and text.startswith(("Finished in state Completed", "Hook"))]


def test_a_run_that_found_all_done_tells_its_verdict_too(
    run: dict[str, Any], server: dict[str, Any], home: dict[str, str], toy_folder: Path
) -> None:
    """Stages that were done before leave no artifacts; the verdict is told all the same."""
    done = prooftune("run", str(toy_folder / "spec.yaml"), "--json", env=home)
    again = json.loads(done.stdout)["ui_url"].rpartition("/")[2]
    found = call(server["api"], "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [again]}}})
    assert "verdict" in {artifact["key"] for artifact in found}
