"""The mirror in MLflow, against a real tracking store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prooftune.errors import EnvironmentLacks, TransientError
from prooftune.spec import Method, Task, Tracking
from prooftune.storage.local import LocalStore
from prooftune.storage.manifest import publish
from prooftune.storage.registry import promote, register, rollback
from prooftune.tracking.mlflow_registry import mirror, refusals
from prooftune.training.sft import train
from prooftune.types import Decision, Verdict

WHY = {"reason": "a check", "by": "ann"}


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of an MLflow database with its tables made."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty store."""
    return LocalStore(tmp_path / "store")


def enter(store: LocalStore, task: str, run_id: str, verdict: Verdict) -> None:
    """Publish and register a run."""
    weights = store.root.parent / "weights"
    weights.write_text(run_id)
    files = {"report.html": weights} | ({} if verdict == "do_not_fine_tune" else {"adapter/adapter_model.safetensors": weights})
    decision = Decision(verdict=verdict, reasons=("Because.",))
    facts = {
        "name": task,
        "decision": decision.model_dump(mode="json"),
        "evaluations": [{"name": "candidate", "metrics": {"exact_match": {"value": 0.75}}}],
        "lineage": {"sha256": "1" * 64, "seal": "2" * 64},
    }
    register(store, task, run_id, publish(store, run_id, files, facts), decision)


def client_of(tracking: str) -> Any:
    """An MLflow client."""
    from mlflow import MlflowClient

    return MlflowClient(tracking)


def test_versions_tags_and_aliases_follow_the_registry(tracking: str, store: LocalStore) -> None:
    """A version per run that trained something, with its digests; aliases move with every change and go when nothing has them."""
    for run_id, verdict in (("a", "promote"), ("b", "promote"), ("c", "inconclusive"), ("d", "do_not_fine_tune")):
        enter(store, "triage", f"run-{run_id}", verdict)  # type: ignore[arg-type]
    found = mirror(tracking, store, "triage")
    assert (found["model"], set(found["versions"])) == ("prooftune-triage", {"run-a", "run-b", "run-c"})
    client = client_of(tracking)
    champion = client.get_model_version_by_alias("prooftune-triage", "champion")
    manifest = store.measure("runs/run-b/manifest.json")
    assert champion.tags == {
        "prooftune.run_id": "run-b",
        "prooftune.verdict": "promote",
        "prooftune.manifest": f"prooftune://{store.root}/runs/run-b/manifest.json",
        "prooftune.manifest_sha256": manifest.sha256,
        "prooftune.lineage_sha256": "1" * 64,
        "prooftune.holdout_sha256": "2" * 64,
        "prooftune.metric.exact_match": "0.75",
    }
    assert champion.source == champion.tags["prooftune.manifest"]
    assert client.get_model_version_by_alias("prooftune-triage", "challenger").tags["prooftune.run_id"] == "run-c"
    rollback(store, "triage", **WHY)
    mirror(tracking, store, "triage")
    assert client.get_model_version_by_alias("prooftune-triage", "champion").tags["prooftune.run_id"] == "run-a"
    promote(store, "triage", "run-c", force=True, **WHY)
    assert mirror(tracking, store, "triage")["aliases"] == {"champion": "run-c"}
    assert set(client.get_registered_model("prooftune-triage").aliases) == {"champion"}


def test_mirroring_again_makes_no_second_version(tracking: str, store: LocalStore) -> None:
    """However often it is mirrored, and whoever registers in between, a run has one version."""
    enter(store, "again", "run-a", "promote")
    once = mirror(tracking, store, "again")
    assert mirror(tracking, store, "again") == once
    enter(store, "again", "run-b", "promote")
    twice = mirror(tracking, store, "again")
    assert twice["versions"] == once["versions"] | {"run-b": "2"}
    assert len(client_of(tracking).search_model_versions("name = 'prooftune-again'")) == 2


def test_a_server_that_is_not_there_is_said(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection is worth another try, and the message names the field of the spec."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TransientError, match=r"MLflow at http://127\.0\.0\.1:9 does not answer.*tracking\.mlflow"):
        mirror("http://127.0.0.1:9", store, "triage")


@pytest.mark.parametrize(
    ("address", "kind", "message"),
    [
        ("file:///nowhere/runs", EnvironmentLacks, r"MLflow at file:///nowhere/runs refuses.*tracking\.mlflow"),
        ("nonsense://x", EnvironmentLacks, r"MLflow at nonsense://x refuses"),
        ("sqlite:////proc/nowhere/x.db", EnvironmentLacks, r"has no place for its records.*tracking\.mlflow"),
        ("http://127.0.0.1:9", TransientError, r"MLflow at http://127\.0\.0\.1:9 does not answer.*tracking\.mlflow"),
    ],
)
def test_training_does_not_begin_where_mlflow_takes_no_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, kind: type[Exception], message: str
) -> None:
    """It is said before data or model are read: here there are none."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    none = tmp_path / "none"
    with pytest.raises(kind, match=message):
        train(none, none, none, Task(), Method(), tmp_path / "out", tracking=Tracking(mlflow=address))


def test_a_server_that_goes_away_while_training_is_worth_another_try() -> None:
    """MLflow's own error does not get out."""
    from mlflow.exceptions import MlflowException

    with pytest.raises(TransientError, match="API request failed"), refusals("http://tracking"):
        raise MlflowException("API request failed")


def test_a_mirror_that_fails_does_not_fail_the_run(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is registered by then; the stage's figures say what happened."""
    from prefect.logging import disable_run_logger

    from tasks.upload import mirrored

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    enter(store, "triage", "run-a", "promote")
    with disable_run_logger():
        told = mirrored("http://127.0.0.1:9", store, "triage")
    assert list(told) == ["failed"]
    assert "does not answer" in told["failed"]
