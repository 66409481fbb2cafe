"""A champion at its provider, on a Prefect server: asked its holdout again each night, the reference of a retraining, and its start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fixtures_stand_ins import StandIn, open_stand_in
from fixtures_tickets import managed_fields, tickets
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, temporary_settings
from tests_support import write_jsonl

from flows.retrain import retrain
from flows.watch import evaluate_champion
from prooftune.economics.spending import spent
from prooftune.providers.deployment_leases import read_leases
from prooftune.sandbox.models import Answered, CannedBrain
from prooftune.spec import Budget, RunSpec, parse_spec
from prooftune.storage.manifest import read_manifest
from prooftune.storage.objects import ObjectStore, open_store
from prooftune.storage.registry import read_registry
from prooftune.verification import verify_run
from prooftune.watching.nightly import newest_evaluation
from prooftune.watching.quality import look_at_quality
from prooftune.watching.signals import Signal

pytestmark = pytest.mark.slow  # two whole runs each
MODELS = {"openai": "gpt-4.1-mini", "azure": "gpt-4.1"}
HOLDOUT = 30


@pytest.fixture(scope="module", autouse=True)
def on_the_server(server: dict[str, Any]) -> Iterator[None]:
    """Run the flows of this file on the test server."""
    with temporary_settings({PREFECT_API_URL: server["api"]}):
        yield
        APILogWorker.drain_all(timeout=10)  # or the rest is sent at exit, for a minute, to a server that is gone


@pytest.fixture(params=MODELS)
def here(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A provider whose tuned models answer as they are, and one whose models need a deployment; both can go on from a tuned model."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("prooftune.providers.calls.FIRST_WAIT_S", 0.001)
    with open_stand_in(request.param, tmp_path, monkeypatch) as found:
        yield found


def spec_at(here: StandIn) -> RunSpec:
    """Return a spec whose retrainings go on from the champion."""
    name = here.tuner.provider
    fields = managed_fields(here.folder, name, MODELS[name], f"watched-{name}")
    provider = here.options.model_dump() | {"min_remaining_days": 0}
    return parse_spec(fields | {"provider": provider, "retrain": {"cool_down_hours": 0, "warm_start": True}})


def retrained(spec: RunSpec, signal: Signal | None = None) -> str:
    """Retrain, and return what came of it."""
    state = retrain(spec, signal, return_state=True)
    assert state.is_completed(), state
    return str(state.message)


def read_published(store: ObjectStore, run_id: str, name: str) -> Any:
    """Return a published JSON or YAML file."""
    return yaml.safe_load(store.get(read_manifest(store, run_id).files[name].key))


def left(here: StandIn, store: ObjectStore) -> list[str]:
    """Return what was left running or leased."""
    running = [one.name for one in here.tuner.deployments()]
    return running + [lease.name for lease in read_leases(store)]


def test_it_is_watched_and_retrained(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made worse by its provider it gives a signal; the retraining goes on from it, and meets it on the old holdout and the new one."""
    spec = spec_at(here)
    store = open_store(spec.store)
    assert retrained(spec).startswith("promote: ")
    champion = read_registry(store, spec.name)["champion"]
    full = spec.model_copy(update={"budget": Budget(project="full", monthly_usd=0)})
    state = evaluate_champion(full, return_state=True)
    assert state.is_failed()
    assert f"asking {champion} again on" in str(state.message)
    assert "budget.monthly_usd of the project full is $0.00" in str(state.message)

    asked: list[str] = []
    as_tuned = CannedBrain.answer

    def worse(brain: CannedBrain, model: str, *rest: Any) -> Answered:
        asked.append(model)
        found = as_tuned(brain, model, *rest)
        return Answered("no idea", found.prompt_tokens, found.answer_tokens)

    with monkeypatch.context() as patched:
        patched.setattr(CannedBrain, "answer", worse)
        message = str(evaluate_champion(spec, return_state=True).message)
    assert "told as prooftune.quality.dropped" in message
    [first] = here.api.works.jobs.values()  # type: ignore[attr-defined]  # OpenAI's stand-in, and Azure's, which is one
    assert asked == [first.tuned] * HOLDOUT
    found = newest_evaluation(store, spec.name, champion)
    assert found is not None
    assert (found.value, found.changed) == (0, HOLDOUT)
    assert found.usd is not None
    assert [item.usd for item in spent(store, spec.budget.project).items if item.of_evaluation] == [found.usd]
    assert left(here, store) == []

    signal = look_at_quality(store, spec, found.at)
    assert isinstance(signal, Signal)
    write_jsonl(here.folder / "tickets.jsonl", tickets(140))
    message = retrained(spec, signal)
    assert "60 new examples" in message
    run_id = read_registry(store, spec.name)["history"][-1]["run_id"]
    assert read_published(store, run_id, "spec.yaml")["backend"]["start_from"] == champion
    second = list(here.api.works.jobs.values())[-1]  # type: ignore[attr-defined]
    assert second.model == first.tuned, "the job goes on from the champion's model"
    rivals = {rival["holdout"]: rival for rival in read_published(store, run_id, "champion.json")["rivals"]}
    assert rivals.keys() == {"old", "new"}
    assert rivals["old"]["n"] == HOLDOUT
    assert verify_run(store, run_id).mismatches == ()
    assert left(here, store) == []
    assert retrained(spec, signal).startswith("duplicate: ")
    assert here.jobs == 2
