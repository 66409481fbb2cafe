"""Retries, caching and locking of stages, with small tasks on a real Prefect server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, task
from prefect.settings import PREFECT_API_URL, temporary_settings
from tests_support import ROOT

from prooftune.errors import DataError, TransientError
from prooftune.spec import Store
from prooftune.types import StageOutput
from tasks import listening
from tasks.policies import policy, results_in
from tasks.stage import Stage


@pytest.fixture(autouse=True)
def on_the_server(server: dict[str, Any]) -> Iterator[None]:
    """Run the flows of this file on the test server."""
    with temporary_settings({PREFECT_API_URL: server["api"]}):
        yield


def counting_task(done: list[str], version: int = 1) -> Any:
    """Return a stage's task that notes each time its work is really done."""

    @task(**policy("count", version=version, timeout_minutes=1))
    def count(store: Store, text: str) -> StageOutput:
        def work(out: Path) -> dict[str, Any]:
            done.append(text)
            (out / "text.txt").write_text(text)
            return {"length": len(text)}

        return Stage(store).perform(work)

    return count


def run(store: Store, *calls: tuple[Any, str]) -> list[StageOutput]:
    """Call tasks in one flow run."""

    @flow(name="stages")
    def stages() -> list[StageOutput]:
        with results_in(store):
            return [stage(store, text) for stage, text in calls]

    return stages()


def failing_task(errors: list[Exception], tries: list[int]) -> Any:
    """Return a task that raises the given errors, one a try, and then succeeds."""

    @task(**(policy("fail", version=1, timeout_minutes=1) | {"retry_delay_seconds": 0, "persist_result": False}))
    def fail() -> str:
        tries.append(len(tries))
        if len(tries) <= len(errors):
            raise errors[len(tries) - 1]
        return "done"

    return fail


def test_a_stage_is_done_once_for_the_same_content(tmp_path: Path) -> None:
    """The second flow run finds the first one's result in the store; other content is done anew."""
    done: list[str] = []
    store, stage = Store(uri=str(tmp_path / "store")), counting_task(done)
    [first] = run(store, (stage, "a"))
    [again, other] = run(store, (stage, "a"), (stage, "b"))
    assert done == ["a", "b"]
    assert again == first
    assert other.key != first.key
    assert (tmp_path / "store" / first.artifacts["text.txt"].key).read_text() == "a"


def test_a_raised_version_is_done_anew(tmp_path: Path) -> None:
    """A stage whose version was raised does not trust results of the old one."""
    done: list[str] = []
    store = Store(uri=str(tmp_path / "store"))
    run(store, (counting_task(done, version=1), "a"), (counting_task(done, version=2), "a"))
    assert done == ["a", "a"]


def test_a_deleted_store_is_forgotten(tmp_path: Path) -> None:
    """What is done is known by the store alone: without it the stage is done again, whatever Prefect's database says."""
    done: list[str] = []
    store = Store(uri=str(tmp_path / "store"))
    run(store, (counting_task(done), "a"))
    (tmp_path / "store").rename(tmp_path / "gone")
    run(store, (counting_task(done), "a"))
    assert done == ["a", "a"]


def test_a_lost_artifact_is_made_again(tmp_path: Path) -> None:
    """A record whose artifact was deleted is no record: the stage is done again."""
    done: list[str] = []
    store = Store(uri=str(tmp_path / "store"))
    [first] = run(store, (counting_task(done), "a"))
    artifact = tmp_path / "store" / first.artifacts["text.txt"].key
    artifact.unlink()
    run(store, (counting_task(done), "a"))
    assert done == ["a", "a"]
    assert artifact.read_text() == "a"


def test_a_transient_error_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two transient errors cost two more tries and then the stage succeeds."""
    tries: list[int] = []
    said: list[Any] = []
    monkeypatch.setattr(listening, "listeners", [said.append])
    stage = failing_task([TransientError("reset"), TransientError("timed out")], tries)
    assert flow(name="retried")(lambda: stage())() == "done"
    assert len(tries) == 3
    assert [one.text for one in said if isinstance(one, listening.Said)] == ["fail is tried again: reset", "fail is tried again: timed out"]


def test_any_other_error_is_not_tried_again() -> None:
    """Bad data does not get better by trying again."""
    tries: list[int] = []
    stage = failing_task([DataError("no records")], tries)
    with pytest.raises(DataError, match="no records"):
        flow(name="not-retried")(lambda: stage())()
    assert len(tries) == 1


def test_comparing_runs_gives_them_no_other_keys() -> None:
    """What a process imports besides the stages of a run changes no run's key: `compare` finds what `run` has done."""
    code = "import flows.finetune; from tasks.policies import VERSIONS as v; before = dict(v); import flows.compare; assert v == before"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
