"""A retraining at a provider, on a Prefect server: no process while its job goes on, and no second job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from fixtures_desk import HeldBrain
from fixtures_openai import KEY
from fixtures_tickets import managed_fields
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.resume import gone_on
from flows.retrain import retrain
from prooftune.providers.waiting import FOLDER
from prooftune.retraining.claims import read_retrains
from prooftune.sandbox.http import serving
from prooftune.sandbox.openai import OpenAIApi
from prooftune.spec import RunSpec, parse_spec
from prooftune.storage.local import LocalStore
from prooftune.storage.objects import open_store
from prooftune.storage.registry import history
from prooftune.watching.signals import Signal

pytestmark = pytest.mark.slow
REALLY_DELETED = LocalStore.delete


@pytest.fixture(scope="module", autouse=True)
def on_the_server(server: dict[str, Any]) -> Iterator[None]:
    """Run the flows of this file on the test server."""
    with temporary_settings({PREFECT_API_URL: server["api"]}):
        yield
        APILogWorker.drain_all(timeout=10)  # or the rest is sent at exit, for a minute, to a server that is gone


def _deleted_and_killed(store: LocalStore, key: str) -> None:
    """Delete an object, and die where it was the note that a run waits."""
    REALLY_DELETED(store, key)
    if key.startswith(FOLDER):
        raise KeyboardInterrupt


def test_a_retraining_at_a_provider_needs_no_process_while_its_job_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps its claim, its signal is a duplicate, `resume-waiting` finishes it, and there was one job; the month's budget is kept."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("prooftune.providers.calls.FIRST_WAIT_S", 0.001)
    brain = HeldBrain()
    api = OpenAIApi(brain, tmp_path / "api")
    with serving(api) as address:
        fields = managed_fields(tmp_path, "openai", "gpt-4.1-mini", "managed-growing")
        fields["provider"] |= {"base_url": f"{address}/v1", "hold_minutes": 0}
        own_prices = tmp_path / "prices.toml"
        own_prices.write_text("")
        fields["use"] = fields.get("use", {}) | {"prices": str(own_prices)}
        spec = parse_spec(fields | {"retrain": {"cool_down_hours": 0, "monthly_usd": 0.001}})
        plenty = parse_spec(fields | {"retrain": {"cool_down_hours": 0, "monthly_usd": 100}})
        store = open_store(spec.store)

        def signalled(digest: str, spec: RunSpec) -> str:
            signal = Signal(kind="data", task=spec.name, digest=digest, reason="new data", at="2026-11-26T00:00:00+00:00")
            return str(retrain(spec, signal, return_state=True).message)

        assert signalled("d0", spec).startswith("over_budget: "), "the estimate is above what is left of the month"
        assert api.state()["jobs"] == 0
        assert read_retrains(store, spec.name).claims[0].state == "failed"

        assert signalled("d1", plenty).startswith("waiting: ")
        assert read_retrains(store, spec.name).claims[-1].state == "waiting"
        assert signalled("d1", plenty).startswith("duplicate: ")
        assert signalled("d2", plenty).startswith("running: ")
        assert [row["result"] for row in gone_on(spec.store)] == [None]
        brain.may.set()
        api.works.settle()

        away = own_prices.rename(tmp_path / "away")
        [row] = gone_on(spec.store)
        assert str(own_prices) in row["trouble"], "the run was not to go on"
        claim = read_retrains(store, spec.name).claims[-1]
        assert claim.state == "failed", "what cannot go on keeps no other signal out"
        assert str(own_prices) in claim.outcome
        away.rename(own_prices)
        Path(spec.data.source).unlink()  # the run goes on with what it had read

        with patch.object(LocalStore, "delete", _deleted_and_killed), pytest.raises(KeyboardInterrupt):
            gone_on(spec.store)
        assert gone_on(spec.store) == [], "the process was to die after it had forgotten that the run waited"
        claim = read_retrains(store, spec.name).claims[-1]
        [entry] = history(store, spec.name)["history"]
        assert (claim.state, claim.outcome) == ("finished", f"{entry['decision']['verdict']}, run {entry['run_id']}")
        assert signalled("d1", plenty).startswith("duplicate: ")
        assert api.state()["jobs"] == 1
        assert signalled("d3", spec).startswith("over_budget: "), "what the retraining was billed is above the limit"
