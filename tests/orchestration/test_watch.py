"""Sensors as flows on a real Prefect server: what they tell arrives, once, however soon they end."""

from __future__ import annotations

import http.client
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from fixtures_watching import drop, promoted, rows, spec_of
from prefect.blocks.system import Secret
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterName
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events import Event
from prefect.events.filters import EventFilter, EventIDFilter
from prefect.settings import PREFECT_API_URL, temporary_settings
from tests_support import prooftune, write_jsonl

from flows.finetune import finetune
from flows.watch import evaluate_champion, watch_data, watch_models, watch_quality
from prooftune.retraining.admission import admit
from prooftune.retraining.claims import finish
from prooftune.spec import load_spec
from prooftune.storage.objects import open_store
from prooftune.types import Decision, RunResult
from prooftune.watching.data import look_at_data
from prooftune.watching.signals import Signal
from prooftune.watching.webhook import SIGNATURE, TIMESTAMP, signature_of
from tasks import events

SECRET = "a-shared-secret-of-these-tests"
pytest_plugins = ["fixtures_deployed"]


def told(client: SyncPrefectClient, event: UUID, seconds: float = 30) -> list[Event]:
    """Return what the server's event feed has under an id, as soon as it has anything."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := client.read_events(EventFilter(id=EventIDFilter(id=[event])), limit=50).events:
            return list(found)
        time.sleep(0.5)
    return []


def newest_run(client: SyncPrefectClient, name: str) -> Any:
    """Return the newest flow run whose name begins so."""
    ours = FlowRunFilter(name=FlowRunFilterName(like_=name))
    return client.read_flow_runs(flow_run_filter=ours, sort=FlowRunSort.START_TIME_DESC, limit=1)[0]


def occurrence(task: str = "toy") -> Signal:
    """Return a signal that no other test has."""
    return Signal(
        kind="data", task=task, digest=uuid4().hex, reason="made up", at=datetime.now(UTC).isoformat(), figures={"new_examples": 60}
    )


def test_new_data_are_told_until_their_retraining_has_ended(tmp_path: Path, client: SyncPrefectClient) -> None:
    """The flow ends Completed with what it saw and its event carries the signal, which is not told again once its retraining has ended."""
    spec = spec_of(tmp_path)
    drop(tmp_path, "a.jsonl", rows(40))
    state = watch_data(spec, return_state=True)
    assert state.is_completed()
    assert "told as prooftune.data.changed" in (state.message or "")
    store = open_store(spec.store)
    seen = look_at_data(store, spec, datetime.now(UTC))
    assert isinstance(seen, Signal)
    [event] = told(client, seen.id)
    assert event.resource["prefect.resource.id"] == "prooftune.task.toy"
    assert event.resource["prooftune.digest"] == seen.digest
    assert Signal.model_validate(event.payload).digest == seen.digest
    run = newest_run(client, "toy: look for new data")
    assert [related.id for related in event.related] == [f"prefect.flow-run.{run.id}"]
    assert {"toy", "signal"} <= set(run.tags)
    shown = client.read_artifacts(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
    assert "look-data" in [artifact.key for artifact in shown]

    admitted = admit(store, spec, seen, "a-holder", datetime.now(UTC))
    assert "under way" in (watch_data(spec, return_state=True).message or "")
    assert admitted.token is not None
    finish(store, spec.name, admitted.token, "keep_baseline")
    message = watch_data(spec, return_state=True).message or ""
    assert "not told again" in message
    assert "keep_baseline" in message


def test_a_look_that_finds_nothing_is_completed(tmp_path: Path, client: SyncPrefectClient) -> None:
    """Quiet sensors end Completed and say why; a run can be found by its tag."""
    spec = spec_of(tmp_path)
    drop(tmp_path, "a.jsonl", rows(40))
    promoted(open_store(spec.store), spec, tmp_path)
    flows: list[tuple[Callable[..., Any], str]] = [
        (watch_data, "0 of 40 valid examples are new"),
        (watch_data, "no request waits"),
        (watch_quality, "no watch.feedback is kept"),
        (watch_models, "lies on this machine"),
    ]
    for look, said in flows:
        state = look(spec, return_state=True)
        assert state.is_completed()
        assert said in state.message
    assert {"toy", "quiet"} <= set(newest_run(client, "toy: look at quality and inputs").tags)
    none = spec.model_copy(update={"name": "untrained"})
    assert evaluate_champion(none, return_state=True).message == "untrained has no champion yet"


def test_quality_and_inputs_are_told_together(tmp_path: Path, client: SyncPrefectClient) -> None:
    """One look at both emits what each has to say."""
    drop(tmp_path, "a.jsonl", rows(40))
    spec = spec_of(tmp_path)
    promoted(open_store(spec.store), spec, tmp_path)
    at = datetime.now(UTC).isoformat()
    feedback = write_jsonl(tmp_path / "feedback.jsonl", [{"score": number % 2, "at": at} for number in range(200)])
    traffic = write_jsonl(tmp_path / "traffic.jsonl", [{"prompt": f"invoice {number} " * 20} for number in range(300)])
    spec = spec_of(tmp_path, watch={"feedback": str(feedback), "traffic": str(traffic)})
    message = watch_quality(spec, return_state=True).message or ""
    assert "prooftune.quality.dropped" in message
    assert "prooftune.inputs.drifted" in message


def test_a_sensor_that_cannot_look_is_no_good_news(tmp_path: Path, client: SyncPrefectClient) -> None:
    """The flow ends Failed and says which sensor saw nothing and why; what the others found is told all the same."""
    drop(tmp_path, "a.jsonl", rows(40))
    spec = spec_of(tmp_path)
    promoted(open_store(spec.store), spec, tmp_path)
    traffic = write_jsonl(tmp_path / "traffic.jsonl", [{"prompt": f"receipt {number} " * 20} for number in range(300)])
    spec = spec_of(tmp_path, watch={"feedback": str(tmp_path / "gone.jsonl"), "traffic": str(traffic)})
    state = watch_quality(spec, return_state=True)
    assert state.is_failed()
    assert "quality: could not look, no feedback can be read" in (state.message or "")
    assert "prooftune.inputs.drifted" in (state.message or "")
    request = "watch/toy/requests/0.json"
    open_store(spec.store).put(request, b"{}")
    (tmp_path / "data" / "a.jsonl").unlink()
    state = watch_data(spec, return_state=True)
    assert state.is_failed()
    assert "data: could not look, " in (state.message or "")
    assert f"request: could not look, {open_store(spec.store).uri}: {request} is no request" in (state.message or "")


def test_an_event_has_arrived_when_emit_returns(server: dict[str, Any], client: SyncPrefectClient) -> None:
    """A process that is killed the moment after it told a signal has told it; a replay is the same event."""
    signal_ = occurrence()
    script = (
        "import os, signal, sys\nfrom prooftune.watching.signals import Signal\nfrom tasks.events import emit\n"
        "assert emit(Signal.model_validate_json(sys.argv[1]))\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", script, signal_.model_dump_json()],
            env=os.environ | {"PREFECT_API_URL": server["api"]},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
    [event] = told(client, signal_.id)
    assert event.payload == signal_.model_dump(mode="json")
    time.sleep(1)
    assert len(told(client, signal_.id)) == 1


def test_a_verdict_and_a_question_are_told(client: SyncPrefectClient) -> None:
    """Automations can notify of a verdict and of an approval that is needed."""
    run_id = f"toy-{uuid4().hex[:12]}"
    decision = Decision(verdict="promote", reasons=("better",))
    result = RunResult(run_id=run_id, verdict="promote", reasons=("better",), decision=decision, evaluations=(), report="r", manifest="m")
    assert events.emit_verdict("toy", result)
    assert events.emit_approval_needed("toy", run_id, "It may cost $30.00.", "prooftune approve toy-1", {"usd": 30.0})
    [verdict] = told(client, events.id_of(events.VERDICT, "toy", run_id))
    assert verdict.payload["verdict"] == "promote"
    assert verdict.resource["prooftune.verdict"] == "promote"
    [question] = told(client, events.id_of(events.APPROVAL, "toy", run_id, "It may cost $30.00."))
    assert question.payload["figures"] == {"usd": 30.0}


def test_a_server_that_is_away_costs_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A few tries, a clear warning and no error: the next look tells it again."""
    monkeypatch.setattr(events, "PAUSES_S", (0.01, 0.01))
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}), caplog.at_level(logging.WARNING, "prefect.prooftune"):
        assert not events.emit(occurrence())
    assert "was not told, the Prefect server was asked 3 times" in caplog.text


def test_the_command_looks_and_tells_on_request(tmp_path: Path, home: dict[str, str], client: SyncPrefectClient) -> None:
    """``prooftune watch`` says what each sensor says; only with ``--emit`` the server is told, and without it Prefect is not imported."""
    spec = spec_of(tmp_path)
    drop(tmp_path, "a.jsonl", rows(40))
    (tmp_path / "spec.yaml").write_text(spec.resolved_yaml())
    path = str(tmp_path / "spec.yaml")
    script = "import sys\nfrom flows.sensors import look_once\nfrom pathlib import Path\nlook_once(Path(sys.argv[1]), (), False)\n"
    script += "assert 'prefect' not in sys.modules and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script, path], env=home, check=True)
    looked = json.loads(prooftune("watch", path, "--json", env=home).stdout)
    assert [(row["kind"], row["signal"], row["told"]) for row in looked["looks"]] == [
        ("data", True, False),
        ("quality", False, False),
        ("drift", False, False),
        ("sunset", False, False),
        ("request", False, False),
    ]
    emitted = json.loads(prooftune("watch", path, "--emit", "--json", env=home).stdout)
    assert emitted["looks"][0]["told"]
    assert told(client, UUID(emitted["looks"][0]["id"]))
    shown = prooftune("watch", path, env=home).stdout
    assert "40 of 40 valid examples are new" in shown
    assert "--emit" in shown


def test_a_posted_request_becomes_an_event(tmp_path: Path, home: dict[str, str], client: SyncPrefectClient) -> None:
    """``prooftune listen`` takes a request signed with the block's secret, tells the server, and ends in peace when it is asked to."""
    command = ["prooftune", "listen", "--port", "0", "--store", str(tmp_path / "store"), "--json"]
    without = subprocess.run(command, env=home, capture_output=True, text=True, check=False)
    assert without.returncode == 3
    assert "PROOFTUNE_WEBHOOK_SECRET" in without.stdout
    Secret(value=SECRET).save("prooftune-webhook", overwrite=True, _sync=True)
    process = subprocess.Popen(command, env=home, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        address = json.loads(process.stdout.readline())["address"]
        body, timestamp, path = b'{"id": "export-1", "reason": "a new export"}', str(int(time.time())), "/events/toy"
        headers = {TIMESTAMP: timestamp, SIGNATURE: signature_of(SECRET, timestamp, path, body)}
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        assert answer.status == 202
        [event] = told(client, UUID(json.loads(answer.read())["event"]))
        assert event.event == "prooftune.retrain.requested"
        assert event.payload["reason"] == "a new export"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait(timeout=30)


@pytest.mark.slow
def test_a_run_tells_its_verdict(toy_folder: Path, client: SyncPrefectClient) -> None:
    """The main job ends with an event that names the run, its verdict and why, found by automations under the task."""
    spec = load_spec(toy_folder / "spec.yaml", ["data.min_examples=1000"])
    result = finetune(spec)
    assert isinstance(result, RunResult)
    [event] = told(client, events.id_of(events.VERDICT, spec.name, result.run_id))
    assert event.resource["prefect.resource.id"] == "prooftune.task.toy"
    assert (event.payload["verdict"], event.payload["reasons"]) == ("do_not_fine_tune", list(result.reasons))
