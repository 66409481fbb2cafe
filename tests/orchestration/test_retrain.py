"""Retraining on a Prefect server: from a signal to a verdict, once; the champion is the reference, and a person may have the last word."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from prefect.flow_engine import run_flow
from prefect.input import read_flow_run_input
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Scheduled
from tests_support import ROOT, toy_rows, until, write_jsonl

from flows.cli import main
from flows.finetune import finetune
from flows.retrain import retrain
from prooftune.data.lines import read_lines
from prooftune.economics.approvals import open_questions
from prooftune.retraining.admission import admit
from prooftune.retraining.calendar import due
from prooftune.retraining.claims import Claim, finish, read_retrains
from prooftune.retraining.composition import compose, keep_composition
from prooftune.spec import RunSpec, parse_spec
from prooftune.storage.manifest import read_manifest
from prooftune.storage.objects import ObjectStore, open_store
from prooftune.storage.registry import history
from prooftune.types import Example
from prooftune.verification import verify_run
from prooftune.watching.looks import week_of
from prooftune.watching.signals import Signal
from tasks.asking import WAITS

pytestmark = pytest.mark.slow  # whole runs with training: some minutes


@dataclass(frozen=True)
class Task:
    """A task whose data grow in a folder."""

    name: str
    folder: Path
    model: Path

    def spec(self, **changes: dict[str, Any]) -> RunSpec:
        """Return its spec; blocks add to those that are there."""
        method = {"kind": "full", "epochs": 1.5, "learning_rate": 5.0e-3, "batch_size": 8, "early_stopping": None, "checks_per_epoch": 1}
        fields: dict[str, Any] = {
            "name": self.name,
            "data": {"source": str(self.folder / "data"), "split": {"holdout": 60, "validation": 20}},
            "baseline": {"ladder": ["zero_shot"]},
            "backend": {"model": str(self.model), "method": method},
            "gate": {"max_forgetting": None},
            "general": {"suite": "none"},
            "learning_curve": {"shares": []},
            "retrain": {"cool_down_hours": 0},
            "store": {"uri": str(self.folder / "store")},
        }
        for block, values in changes.items():
            fields[block] = {**fields.get(block, {}), **values}
        return parse_spec(fields)

    @property
    def store(self) -> ObjectStore:
        """Its store."""
        return open_store(self.spec().store)

    def add(self, name: str, count: int, seed: int) -> None:
        """Put a file of new examples into the folder."""
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        write_jsonl(self.folder / "data" / name, toy_rows(count, seed))

    def signal(self, digest: str) -> Signal:
        """Return a signal of its data."""
        return Signal(kind="data", task=self.name, digest=digest, reason="new data", at="2026-11-26T00:00:00+00:00", figures={"new": 1})

    def claim(self, digest: str) -> Claim:
        """Return what is known of an occurrence."""
        claim = read_retrains(self.store, self.name).of(self.signal(digest))
        assert claim is not None
        return claim

    def retrain(self, digest: str, **changes: Any) -> tuple[str, str]:
        """Retrain in this process; return the flow run's name and its last message."""
        spec = self.spec(**changes)
        state = retrain(spec, self.signal(digest), return_state=True)
        assert state.is_completed(), state
        return newest(self.name).name, str(state.message)

    def registry(self) -> dict[str, Any]:
        """Return the registry."""
        return history(self.store, self.name)

    def ids(self, run_id: str, split: str) -> set[str]:
        """Return the examples of a published split."""
        path = self.store.fetch(read_manifest(self.store, run_id).files[f"{split}.jsonl"])
        return {example.id for example in read_lines(path, Example)}


def newest(task: str) -> FlowRun:
    """Return the newest flow run that is tagged as a retraining of the task."""
    with get_client(sync_client=True) as client:
        tagged = FlowRunFilter(tags=FlowRunFilterTags(all_=[task, "retrain"]))
        return max(client.read_flow_runs(flow_run_filter=tagged), key=lambda run: str(run.start_time))


def shown(key: str) -> list[tuple[FlowRun, str, str]]:
    """Return every artifact of a key: the flow run that has it, its description and its text."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
        return [(client.read_flow_run(one.flow_run_id), str(one.description), str(one.data)) for one in found if one.flow_run_id]


@pytest.fixture(scope="module", autouse=True)
def on_the_server(server: dict[str, Any]) -> Iterator[None]:
    """Run the flows of this file on the test server."""
    with temporary_settings({PREFECT_API_URL: server["api"]}):
        yield
        APILogWorker.drain_all(timeout=10)  # or the rest is sent at exit, for a minute, to a server that is gone


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Task:
    """A task with a champion that has learnt little: its data were retrained on for the first time."""
    task = Task("growing", tmp_path_factory.mktemp("growing"), tiny_model)
    task.add("first.jsonl", 240, 0)
    name, message = task.retrain("d1")
    assert task.registry()["champion"], message
    assert name == "growing: promote"
    assert "240 examples, the first ones" in message
    return task


def test_a_replayed_signal_trains_nothing(task: Task) -> None:
    """It ends as completed, called a duplicate, and says what came of the first one."""
    name, message = task.retrain("d1")
    assert name == "growing: duplicate"
    assert message.startswith("duplicate: ")
    assert "promote, run growing-" in message
    assert task.claim("d1").attempts == 1


def test_a_signal_within_the_cool_down_waits(task: Task) -> None:
    """The message says which field it is and until when."""
    name, message = task.retrain("d2", retrain={"cool_down_hours": 24})
    assert name == "growing: cooling down"
    assert "retrain.cool_down_hours is 24" in message
    assert read_retrains(task.store, task.name).of(task.signal("d2")) is None


def test_a_scheduled_run_that_is_started_again_in_another_week_is_the_same_occurrence(tmp_path: Path) -> None:
    """A run of a Sunday that crashed and is started again on Monday goes on with the Sunday's retraining, and begins none of its own."""
    spec = parse_spec({"name": "weekly", "data": {"source": str(tmp_path / "none.jsonl")}, "store": {"uri": str(tmp_path / "store")}})
    then = datetime.now(UTC) - timedelta(days=14)
    told = admit(open_store(spec.store), spec, due(spec.name, then), "the first process", then)
    assert finish(open_store(spec.store), spec.name, told.token or 0, "promote, run weekly-0a1b")
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(retrain, parameters={"spec": spec}, state=Scheduled(scheduled_time=then))
    state = run_flow(retrain, flow_run=run, parameters={"spec": spec}, return_type="state")
    assert str(state.message).startswith("duplicate: "), state
    assert len(read_retrains(open_store(spec.store), spec.name).claims) == 1


def test_a_calendar_s_run_by_hand_is_of_this_week(tmp_path: Path) -> None:
    """Who starts a retraining without saying why starts the week's."""
    spec = parse_spec({"name": "by-hand", "data": {"source": str(tmp_path / "none.jsonl")}, "store": {"uri": str(tmp_path / "store")}})
    assert retrain(spec, return_state=True).is_failed(), "there are no data"
    [claim] = read_retrains(open_store(spec.store), spec.name).claims
    assert (claim.kind, claim.digest) == ("schedule", week_of(datetime.now(UTC)))


def test_without_anything_new_nothing_is_trained(task: Task) -> None:
    """A signal whose data the champion has seen all of is done for good, and costs no cool-down."""
    before = len(task.registry()["history"])
    name, message = task.retrain("d3")
    assert name == "growing: nothing new"
    assert "knows all 240 examples" in message
    claim = task.claim("d3")
    assert (claim.state, claim.outcome, claim.trained) == ("finished", "nothing_new", False)
    assert len(task.registry()["history"]) == before


def test_new_data_meet_the_champion_on_its_holdout_and_a_person_decides(task: Task) -> None:
    """Old and new are learnt from, warm; the champion's holdout stays sealed; approved, the run is in use and the history says by whom."""
    champion = task.registry()["champion"]
    task.add("second.jsonl", 120, 1)
    gate = {"max_forgetting": None, "approve_promotion": True}
    method = {"kind": "full", "epochs": 8, "learning_rate": 5.0e-3, "batch_size": 8, "early_stopping": None, "checks_per_epoch": 1}
    backend = {"model": str(task.model), "method": method}
    retraining = {"cool_down_hours": 0, "warm_start": True, "keep_old": 0.5}
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(copy_context().run, lambda: task.retrain("d4", gate=gate, backend=backend, retrain=retraining))
        asked = until(lambda: run.result() and None if run.done() else next(open_questions(task.store), None))
        assert (asked.what, asked.task) == ("promote", "growing")
        registry = task.registry()
        assert (registry["champion"], registry["challenger"]) == (champion, asked.key)
        assert task.claim("d4").lives(datetime.now(UTC)), "it holds the retraining while a person thinks"
        command = f"prooftune approve {asked.key} --store {task.store.uri}"
        check_question(asked.key, command)
        arguments = ["approve", asked.key, "--by", "ada", "--reason", "read the report", "--json", "--store", task.store.uri]
        told = json.loads(CliRunner().invoke(main, arguments).stdout)
        assert told["promotion"]["champion"] == asked.key
        name, message = run.result(timeout=60)
    assert name == "growing: promote"
    assert "120 new examples" in message
    change = task.registry()["changes"][-1]
    assert (change["action"], change["champion"], change["by"]) == ("approve", asked.key, "ada")
    check_answer(asked.key, command)

    assert task.ids(champion, "holdout") <= task.ids(asked.key, "holdout")
    fresh = len(task.ids(asked.key, "holdout")) - 60
    assert 10 <= fresh <= 40, "and a sixth of what is new, with the near-duplicates of what was sealed before"
    learnt, before = task.ids(asked.key, "train"), task.ids(champion, "train")
    assert 0.3 * len(before) < len(learnt & before) < 0.7 * len(before)
    manifest = read_manifest(task.store, asked.key)
    spec = yaml.safe_load(task.store.get(manifest.files["spec.yaml"].key))
    assert spec["data"]["old"] == {"run": champion, "keep": 0.5}
    assert spec["backend"]["start_from"] == champion
    assert {"old", "start_from"} <= manifest.facts["lineage"]["data"]["files"].keys()  # type: ignore[index]
    contest = json.loads(task.store.get(manifest.files["champion.json"].key))
    [old] = [rival for rival in contest["rivals"] if rival["holdout"] == "old"]
    assert (old["n"], old["seen"]) == (60, 0), "no example of the champion's holdout was trained on"
    assert verify_run(task.store, asked.key).mismatches == ()


def test_a_run_that_goes_on_from_weights_holds_out_nothing_that_they_know(tmp_path: Path, tiny_model: Path) -> None:
    """Started by hand on data that have grown, it holds out what the run before did, and nothing that it was trained on."""
    task = Task("warm", tmp_path, tiny_model)
    task.add("first.jsonl", 240, 0)
    first = finetune(task.spec())
    task.add("second.jsonl", 120, 1)
    second = finetune(task.spec(backend={"start_from": first.run_id}))
    held_out = task.ids(second.run_id, "holdout")
    assert task.ids(first.run_id, "holdout") <= held_out
    assert not held_out & (task.ids(first.run_id, "train") | task.ids(first.run_id, "validation"))


def check_question(key: str, command: str) -> None:
    """Check that the run that asks has its question in the form, and that it and both runs above it show that they wait."""
    waiting = until(lambda: found if len(found := shown("approval")) == 3 else None)
    [asks] = [run for run, _, _ in waiting if run.name == f"{key}: put it in use?"]
    form = until(lambda: read_flow_run_input("paused-approve-promote-description", asks.id))
    for expected in (f"{key} is to be the champion of growing", "The gate's verdict: promote the candidate.", "- Exact match ", command):
        assert expected in form
    for run, _, text in waiting:
        assert WAITS in run.tags
        assert (str(asks.id) in text) == (run.id != asks.id), "a run above leads to the one that asks"


def check_answer(key: str, command: str) -> None:
    """Check that none of the runs shows that it waits, and that question, verdict and registry say what came of it."""
    assert [WAITS in run.tags for run, _, _ in shown("approval")] == [False] * 3
    said = r"approved by ada on [\d-]+: read the report\."
    assert all(re.fullmatch(f"It was {said}", answer) for _, answer, _ in shown("approval"))
    [verdict] = [text for _, _, text in shown("verdict") if key in text]
    assert re.search(f"In use: it is the champion of growing, {said}", verdict)
    [registry] = [text for _, text, _ in shown("registry") if key in text]
    assert command in registry


def test_a_killed_retraining_goes_on_as_the_same_run(
    tmp_path: Path, tiny_model: Path, server: dict[str, Any], home: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL while it trains: its signal is a duplicate until the lease lapses, and then goes on with the same run, its stages cached."""
    task = Task("killed", tmp_path, tiny_model)
    task.add("first.jsonl", 240, 0)
    (tmp_path / "spec.yaml").write_text(task.spec().resolved_yaml())
    (tmp_path / "signal.json").write_text(task.signal("d1").model_dump_json())
    script = (
        "import sys, yaml; from flows.retrain import retrain; from prooftune.spec import parse_spec; "
        "from prooftune.watching.signals import Signal; "
        "retrain(parse_spec(yaml.safe_load(open('spec.yaml'))), Signal.model_validate_json(open('signal.json').read()))"
    )
    env = home | {"PREFECT_API_URL": server["api"], "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    work = task.store.work_dir() / "stages" / "train"
    until(lambda: next(work.glob("*/out/checkpoints"), None))
    process.kill()
    process.wait(timeout=30)
    killed = task.claim("d1")
    assert (killed.state, killed.attempts, len(killed.runs)) == ("running", 1, 1)
    assert task.retrain("d1")[1].startswith("duplicate: "), "nobody knows yet that it is dead"

    for module in ("claims", "admission"):
        monkeypatch.setattr(f"prooftune.retraining.{module}.SKEW_S", 0.0)
    monkeypatch.setattr("prooftune.storage.leases.DEAD_AFTER_S", 1.0)
    time.sleep(1)
    _, message = task.retrain("d1")
    claim = task.claim("d1")
    assert (claim.state, claim.attempts, claim.runs) == ("finished", 2, killed.runs), message
    assert f"run {killed.runs[0]}" in message
    assert len(task.registry()["history"]) == 1


def test_a_holder_that_died_after_it_had_registered_its_run_is_no_news(task: Task) -> None:
    """What was composed is gone on with: composed anew, the run's own examples would be nothing new, and its verdict would be lost."""
    task.add("third.jsonl", 60, 2)
    spec, signal = task.spec(), task.signal("d5")
    task.retrain("d5-before")
    run_id = task.registry()["history"][-1]["run_id"]
    store = task.store
    told = admit(store, spec, signal, "dead", datetime.now(UTC) - timedelta(hours=1))
    made = compose(store, spec, store.fetch(latest_examples(store)))
    assert made.new == 0, "its own run is registered by now"
    composed = yaml.safe_load(store.get(read_manifest(store, run_id).files["spec.yaml"].key))
    keep_composition(store, signal, made.model_copy(update={"new": 60, "spec": parse_spec(composed)}))
    assert told.decision == "start"
    _, message = task.retrain("d5")
    assert run_id in message
    assert task.claim("d5").outcome.endswith(run_id)


def latest_examples(store: ObjectStore) -> Any:
    """Return the newest validated examples of the store, as a reference."""
    keys = [key for key in store.list("stages/validate/") if key.endswith("/examples.jsonl")]
    return max((store.measure(key) for key in keys), key=lambda ref: ref.size)
