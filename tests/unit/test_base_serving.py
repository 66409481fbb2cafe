"""A base model that has to be deployed, at Azure: under a lease like a tuned one, shared, taken down after, and swept after a crash."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fixtures_ledger import QUICK
from fixtures_serving import LAPSED
from fixtures_stand_ins import StandIn, open_stand_in

from prooftune.evaluation.answers.managed import ManagedBase, open_base
from prooftune.providers.chat import ChatModel
from prooftune.providers.deployment_leases import id_of, read_leases
from prooftune.providers.serving import served_base
from prooftune.providers.sweeping import sweep
from prooftune.providers.tuning import MARK, open_tuner
from prooftune.spec import Provider
from prooftune.storage.local import LocalStore
from prooftune.types import Message

PROMPTS = [[Message(role="user", content=f"ticket {number} about login, please help")] for number in range(3)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Azure's stand-in, where nothing answers without a deployment."""
    monkeypatch.setattr("prooftune.providers.calls.FIRST_WAIT_S", 0.001)
    monkeypatch.setattr("prooftune.providers.batches.FIRST_POLL_S", 0.01)
    monkeypatch.setattr("prooftune.providers.openai.READ_POLL_S", 0.01)
    monkeypatch.setattr("prooftune.providers.submission.Patience.pause", lambda self, number: 0.01)
    with open_stand_in("azure", tmp_path, monkeypatch) as found:
        yield found


def skus(here: StandIn) -> dict[str, str]:
    """Return what is deployed: of which kind, by the first two words of the name."""
    deployed = here.api.deployed  # type: ignore[attr-defined]  # of Azure's stand-in
    return {"-".join(name.split("-")[:2]): one.sku["name"] for name, one in deployed.items()}


def with_options(here: StandIn, **options: object) -> Provider:
    """Return how the stand-in is reached, with these options."""
    return here.options.model_copy(update=options)


def test_runs_of_a_store_share_it_and_the_last_takes_it_down(here: StandIn, tmp_path: Path) -> None:
    """One deployment for both, under two leases, which say that it costs nothing by the hour."""
    store = LocalStore(tmp_path / "store")
    first, second = ExitStack(), ExitStack()
    chats: list[ChatModel] = [
        stack.enter_context(served_base(here.tuner, store, here.model, here.options, QUICK)) for stack in (first, second)
    ]
    leases = list(read_leases(store))
    assert [(lease.name, lease.usd_per_hour) for lease in leases] == [(chats[0].name, 0.0)] * 2
    assert skus(here) == {f"{MARK}-base": "globalstandard"}
    first.close()
    assert chats[1].ask(PROMPTS[0], 9).finished
    second.close()
    assert (here.api.state()["deployments"], list(read_leases(store))) == (0, [])


def test_another_store_has_another(here: StandIn, tmp_path: Path) -> None:
    """A store knows no other's leases: what it takes down must be its own, also where both have the same address on their hosts."""
    stores = [LocalStore(tmp_path / name) for name in ("one", "other")]
    assert id_of(stores[0]) == id_of(LocalStore(tmp_path / "one")) != id_of(stores[1])
    with served_base(here.tuner, stores[0], here.model, here.options, QUICK) as ours:
        with served_base(here.tuner, stores[1], here.model, here.options, QUICK):
            assert here.api.state()["deployments"] == 2
        assert ours.ask(PROMPTS[0], 9).finished
    assert here.api.state()["deployments"] == 0


def test_it_is_taken_down_when_the_evaluation_fails(here: StandIn, tmp_path: Path) -> None:
    """Both deployments are, whatever goes wrong between."""
    store, base = LocalStore(tmp_path / "store"), ManagedBase(provider="azure", model=here.model, options=with_options(here, batch=True))
    seen: list[dict[str, str]] = []

    def break_off() -> None:
        with open_base(base, store, tmp_path / "kept.jsonl"):
            seen.append(skus(here))
            raise ValueError("it broke")

    with pytest.raises(ValueError, match="it broke"):
        break_off()
    assert seen == [{f"{MARK}-base": "globalstandard", f"{MARK}-batch": "GlobalBatch"}]
    assert (here.api.state()["deployments"], list(read_leases(store))) == (0, [])


ASK = """
import sys, time
from pathlib import Path
from prooftune.evaluation.answers.managed import ManagedBase, open_base
from prooftune.storage.local import LocalStore

base = ManagedBase.model_validate_json(sys.argv[1])
with open_base(base, LocalStore(Path(sys.argv[2])), Path(sys.argv[2]) / "kept.jsonl"):
    print("in use", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_run_left_is_swept(here: StandIn, tmp_path: Path) -> None:
    """SIGKILL while the baselines are asked: the sweep finds both deployments, says that an hour costs nothing, and removes them."""
    store = LocalStore(tmp_path / "store")
    base = ManagedBase(provider="azure", model=here.model, options=with_options(here, batch=True))
    command = [sys.executable, "-c", ASK, json.dumps(base.model_dump(mode="json")), str(store.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "in use\n", process.stderr.read()
        process.send_signal(signal.SIGKILL)
    assert here.api.state()["deployments"] == 2
    shutil.rmtree(store.work_dir() / "living")  # as another machine sees it
    now = datetime.now(UTC)
    found = sweep(store, open_tuner, [], remove=True, now=now).deployments
    assert [(one.leased, one.in_use, one.removed, one.usd_per_hour) for one in found] == [(True, True, False, 0.0)] * 2
    found = sweep(store, open_tuner, [], remove=True, now=now + timedelta(minutes=LAPSED)).deployments
    assert [(one.in_use, one.removed, one.failed) for one in found] == [(False, True, "")] * 2
    assert (here.api.state()["deployments"], list(read_leases(store))) == (0, [])


def test_batches_go_to_a_deployment_of_their_own(here: StandIn, tmp_path: Path) -> None:
    """The first question teaches the parameters at the one that answers directly; the batch is answered by the other, and fetched once."""
    store = LocalStore(tmp_path / "store")
    base = ManagedBase(provider="azure", model=here.model, options=with_options(here, batch=True))
    for kept in ("first.jsonl", "again.jsonl"):
        with open_base(base, store, tmp_path / kept) as subject:
            answers = subject.answerer.answer(PROMPTS, max_new_tokens=9)
            [chosen] = subject.searcher.answer(PROMPTS[:1], max_new_tokens=9) if kept == "first.jsonl" else answers[:1]
        assert all(answer.text.startswith("I am a stand-in") and answer.latency_s is None for answer in answers)
        assert chosen.text == answers[0].text
        assert (here.api.state()["batches"], here.api.state()["deployments"]) == (1, 0)
    assert [name for name, _, _ in here.api.seen].count("create_batch") == 1


def test_what_must_stay_in_the_region_goes_through_no_batch(here: StandIn, tmp_path: Path) -> None:
    """Azure works batches off anywhere: at tier standard the base model is asked directly, and no such deployment is made."""
    base = ManagedBase(provider="azure", model=here.model, options=with_options(here, batch=True, tier="standard"))
    with open_base(base, LocalStore(tmp_path / "store"), tmp_path / "kept.jsonl") as subject:
        assert skus(here) == {f"{MARK}-base": "standard"}
        [answer] = subject.answerer.answer(PROMPTS[:1], max_new_tokens=9)
    assert answer.latency_s is not None
    assert here.api.state()["batches"] == 0


@pytest.mark.parametrize("provider", ["openai", "together", "fireworks"])
def test_what_answers_as_it_is_needs_no_lease(provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is deployed, and nothing written into the store."""
    store = LocalStore(tmp_path / "store")
    with open_stand_in(provider, tmp_path, monkeypatch) as here, served_base(here.tuner, store, here.model, here.options) as chat:
        assert chat.ask(PROMPTS[0], 9).finished
        assert list(store.list()) == []
        assert here.api.state()["deployments"] == 0
