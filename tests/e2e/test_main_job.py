"""The main job from the command line, on a tiny model that learns a toy task."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests_support import prooftune

from prooftune.spec import load_spec
from prooftune.storage.manifest import read_manifest, verify_manifest
from prooftune.storage.objects import open_store

STAGES = ["ingest", "validate", "split", "format", "tokens", "preflight", "baselines", "advise"]
AFTER_ADVICE = ["train", "evaluate", "champion", "costs", "forgetting", "failures", "gate"]
ENDING = ["report", "upload", "register"]
ASKED_ANEW = ("model", "fingerprint", "fingerprint_files", "find_champion")
"""Tasks that look at what may have changed, so they are never cached."""


def run_json(spec: Path, env: dict[str, str], *more: str) -> dict[str, Any]:
    """Run a spec and return the one document on stdout."""
    done = prooftune("run", str(spec), "--json", *more, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def evidence(result: dict[str, Any]) -> dict[str, Any]:
    """What must be the same however often a run was interrupted."""
    return {name: result[name] for name in ("run_id", "verdict", "reasons", "metrics")}


@pytest.fixture(scope="module")
def finished(toy_folder: Path, server: dict[str, Any], home: dict[str, str]) -> dict[str, Any]:
    """The result of one undisturbed run."""
    return run_json(toy_folder / "spec.yaml", home)


def test_a_candidate_that_learned_the_task_is_promoted(finished: dict[str, Any], toy_folder: Path) -> None:
    """The run ends in promote, with the promised fields, every stage, a whole report and a manifest that verifies."""
    assert finished["verdict"] == "promote", finished["reasons"]
    metrics = finished["metrics"]
    assert metrics["candidate"]["exact_match"] > metrics["baseline"]["exact_match"] + 0.3
    assert metrics["ci_low"] <= metrics["difference"] <= metrics["ci_high"]
    assert metrics["p_value"] < 0.01
    assert metrics["n"] == 60
    names = [stage["name"] for stage in finished["stages"] if stage["name"] not in ASKED_ANEW]
    assert names == STAGES + AFTER_ADVICE + ENDING
    assert "<html" in Path(finished["report"]).read_text(encoding="utf-8")
    store = open_store(load_spec(toy_folder / "spec.yaml").store)
    assert verify_manifest(store, finished["run_id"]) == []
    files = read_manifest(store, finished["run_id"]).files
    assert {"spec.yaml", "data_manifest.json", "decision.json", "candidate.evaluation.json", "report.html", "model_card.md"} <= set(files)
    assert {"model/model.safetensors", "model/tokenizer.json", "model/chat_template.jinja", "data_docs/index.html"} <= set(files)
    data = json.loads(store.get(files["data_manifest.json"].key))
    assert data["seal"] == files["holdout.jsonl"].sha256 == data["splits"]["holdout.jsonl"]["sha256"]


def test_the_same_command_again_does_nothing_again(finished: dict[str, Any], toy_folder: Path, home: dict[str, str]) -> None:
    """Every stage of a second run is cached and the evidence is the same."""
    again = run_json(toy_folder / "spec.yaml", home)
    assert evidence(again) == evidence(finished)
    assert all(stage["cached"] for stage in again["stages"] if stage["name"] not in ASKED_ANEW)


def test_every_digest_and_metric_is_found_again(finished: dict[str, Any], toy_folder: Path, home: dict[str, str]) -> None:
    """``verify`` computes the promoted run again from its artifacts, finds no difference, and names a file that was changed."""
    command = ("verify", finished["run_id"], "--json", "--store", str(toy_folder / "store"))
    done = prooftune(*command, env=home)
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    assert answer["matches"]
    store = open_store(load_spec(toy_folder / "spec.yaml").store)
    path = toy_folder / "store" / read_manifest(store, finished["run_id"]).files["candidate.predictions.jsonl"].key
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"answer":"', b'"answer":"x', 1))
    try:
        done = prooftune(*command, env=home)
        assert done.returncode == 1
        assert "candidate.predictions.jsonl" in {found["file"] for found in json.loads(done.stdout)["mismatches"]}
    finally:
        path.write_bytes(whole)


def test_history_says_how_the_champion_came_to_be(finished: dict[str, Any], toy_folder: Path, home: dict[str, str]) -> None:
    """The promoted run is the task's champion."""
    done = prooftune("history", "toy", "--json", "--store", str(toy_folder / "store"), env=home)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["champion"] == finished["run_id"]


def test_show_tells_the_verdict_again(finished: dict[str, Any], toy_folder: Path, home: dict[str, str]) -> None:
    """``show`` reads the run from the store alone."""
    shown = prooftune("show", finished["run_id"], "--json", "--store", str(toy_folder / "store"), env=home)
    assert shown.returncode == 0, shown.stderr
    assert evidence(json.loads(shown.stdout)) == evidence(finished)


def test_too_little_data_ends_before_training(toy_folder: Path, server: dict[str, Any], home: dict[str, str]) -> None:
    """With fewer examples than required the run ends in do_not_fine_tune, exit 0, and nothing is trained."""
    result = run_json(toy_folder / "spec.yaml", home, "--set", "data.min_examples=1000")
    assert result["verdict"] == "do_not_fine_tune"
    assert "160" in result["reasons"][0]
    assert "1000" in result["reasons"][0]
    assert not {"train", "evaluate", "gate"} & {stage["name"] for stage in result["stages"]}
    assert result["metrics"]["candidate"] is None
    assert Path(result["report"]).is_file()


@pytest.mark.slow
def test_a_fresh_run_is_published_beside_the_first(toy_folder: Path, server: dict[str, Any], home: dict[str, str]) -> None:
    """``--fresh`` does every stage again and shows the new result under an id of its own; the first run stays whole."""
    settings = ["--set", "data.min_examples=1001"]
    first, again = run_json(toy_folder / "spec.yaml", home, *settings), run_json(toy_folder / "spec.yaml", home, *settings, "--fresh")
    assert not any(stage["cached"] for stage in again["stages"])
    assert again["run_id"].startswith(f"{first['run_id']}-")
    store = open_store(load_spec(toy_folder / "spec.yaml").store)
    assert verify_manifest(store, first["run_id"]) == verify_manifest(store, again["run_id"]) == []


@pytest.mark.slow
def test_two_runs_of_one_spec_at_once_end_alike(toy_folder: Path, server: dict[str, Any], home: dict[str, str]) -> None:
    """Two processes on one store, at once, give the same result and each stage's work is done once."""
    command = ["prooftune", "run", str(toy_folder / "spec.yaml"), "--json", "--set", "data.split.seed=11"]
    runs = [subprocess.Popen(command, env=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    answers = []
    for run in runs:
        out, err = run.communicate(timeout=300)
        assert run.returncode == 0, err
        answers.append(json.loads(out))
    assert evidence(answers[0]) == evidence(answers[1])
    trained = {json.dumps(stage["seconds"]) for answer in answers for stage in answer["stages"] if stage["name"] == "train"}
    assert len(trained) == 1, "both report the seconds of the one training"


@pytest.mark.slow
def test_a_kill_in_any_stage_loses_nothing(finished: dict[str, Any], toy_folder: Path, home: dict[str, str], tmp_path: Path) -> None:
    """SIGKILL at each stage in turn, then the same command again: same verdict and metrics, and finished stages stay done."""
    own_store = ["--set", f"store.uri={tmp_path / 'killed'}"]
    command = ["prooftune", "run", str(toy_folder / "spec.yaml"), "--json", *own_store]
    for stage in STAGES + AFTER_ADVICE + ENDING:
        run = subprocess.Popen(command, env=home, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert run.stderr is not None
        for line in run.stderr:
            if line.strip() == f"{stage}: started":
                run.kill()
                break
        assert run.wait(timeout=300) == -9, f"the run was to be killed in {stage}"
    result = run_json(toy_folder / "spec.yaml", home, *own_store)
    assert evidence(result) == evidence(finished)
    cached = {stage["name"]: stage["cached"] for stage in result["stages"]}
    assert all(cached[stage] for stage in STAGES + AFTER_ADVICE)


def test_a_secret_appears_nowhere(finished: dict[str, Any], toy_folder: Path, server: dict[str, Any], home: dict[str, str]) -> None:
    """A planted key is in no file of the store, the home folder (with Prefect's database and logs) or the output."""
    canary = "canary-3f1b77e0d2"
    env = home | {"AWS_SECRET_ACCESS_KEY": canary, "HF_TOKEN": canary, "OPENAI_API_KEY": canary, "WANDB_API_KEY": canary}
    done = prooftune("run", str(toy_folder / "spec.yaml"), "--json", "--set", "data.split.seed=12", env=env)
    assert done.returncode == 0, done.stderr
    assert canary not in done.stdout + done.stderr
    places = [toy_folder, Path(home["HOME"])]
    searched = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert any(path.name == "prefect.db" for path in searched), "Prefect's database was to be searched too"
    assert [path for path in searched if canary.encode() in path.read_bytes()] == []
