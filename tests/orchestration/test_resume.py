"""What `resume-waiting` shows and tells of the runs that wait for a job, on a Prefect server and a stand-in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fixtures_desk import HeldBrain, opened
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import State

from flows.resume import go_on
from prooftune.providers.waiting import read_waiting
from prooftune.types import RunWaiting

pytest_plugins = ["fixtures_desk"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("surroundings")]  # a whole run


def shown() -> list[dict[str, Any]]:
    """Return the rows of the newest table of runs that wait."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["waiting-runs"])))
    newest = max(found, key=lambda one: one.created)
    rows: list[dict[str, Any]] = json.loads(str(newest.data))
    return rows


def test_a_job_that_cannot_be_asked_for_is_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the provider's key the look ends Failed, says whose job nobody asks for, and shows it; with the key it goes on."""
    brain = HeldBrain()
    with opened(folder, tmp_path, brain) as desk:
        assert isinstance(desk.start(provider={"hold_minutes": 0}).result(180), RunWaiting)
        [waiting] = read_waiting(desk.store)
        with monkeypatch.context() as worker:
            worker.delenv("OPENAI_API_KEY")
            state: State[Any] = go_on(desk.spec().store, return_state=True)
            assert state.is_failed()
            assert waiting.run in str(state.message)
            assert "OPENAI_API_KEY" in str(state.message)
            [row] = shown()
            assert (row["run"], row["verdict"]) == (waiting.run, "–")
            assert "OPENAI_API_KEY" in row["trouble"]

        state = go_on(desk.spec().store, return_state=True)
        assert (state.is_completed(), state.message) == (True, "1 runs waited, 0 went on to their verdict")
        brain.may.set()
        desk.api.works.settle()
        state = go_on(desk.spec().store, return_state=True)
        assert (state.is_completed(), state.message) == (True, "1 runs waited, 1 went on to their verdict")
        assert shown()[0]["verdict"] == "promote"
        assert str(go_on(desk.spec().store, return_state=True).message) == "0 runs waited, 0 went on to their verdict"
