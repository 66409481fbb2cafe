"""A champion at its provider is asked its holdout again, at whichever provider that is, and nothing is left running."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fixtures_ledger import QUICK
from fixtures_runs import examples_of
from fixtures_stand_ins import PROVIDERS, StandIn, open_stand_in
from fixtures_tickets import BASE, tickets

from prooftune.data.formatting import format_splits
from prooftune.data.lines import write_lines
from prooftune.data.splitting import split
from prooftune.errors import TransientError
from prooftune.evaluation.answers.managed import ManagedBase, tuned_answerer
from prooftune.evaluation.candidate import evaluate_candidate
from prooftune.evaluation.champion_files import read_managed
from prooftune.providers.collection import collect
from prooftune.providers.ledger import Entry, Ledger
from prooftune.providers.orders import checked_order
from prooftune.providers.serving import Lease, read_leases, served
from prooftune.providers.submission import follow, submit
from prooftune.sandbox.models import Answered, CannedBrain
from prooftune.spec import parse_spec
from prooftune.storage.disk import sha256_of
from prooftune.storage.local import LocalStore
from prooftune.storage.manifest import publish
from prooftune.storage.registry import register
from prooftune.types import Decision
from prooftune.watching.looks import Quiet
from prooftune.watching.nightly import evaluate_again
from prooftune.watching.quality import look_at_quality
from prooftune.watching.signals import Signal

CHAMPION = "tickets-champion"
BY_THE_HOUR = ("together", "fireworks")
"""Providers whose stand-in's model has an hourly price in the list; the list does not know Azure's, and Nova is stored by the month."""
HOLDOUT = 30


class Watched:
    """A stand-in, and a store whose champion was tuned there and asked its holdout as a run does."""

    def __init__(self, here: StandIn, folder: Path) -> None:
        self.here, self.store, self.folder = here, LocalStore(folder / "store"), folder
        self.spec = parse_spec(
            {
                "name": "tickets",
                "data": {"source": "tickets.jsonl", "split": {"holdout": HOLDOUT, "validation": 8}},
                "backend": {"provider": here.tuner.provider, "model": here.model},
                "provider": here.options.model_dump(),
            }
        )
        self.publish()

    def publish(self) -> None:
        """Split, tune, ask and publish; what was deployed for it is gone after it."""
        folder, tuner, spec = self.folder, self.here.tuner, self.spec
        write_lines(folder / "examples.jsonl", examples_of(tickets()))
        split(folder / "examples.jsonl", spec.data.split, folder)
        train, validation, holdout = (folder / f"{name}.jsonl" for name in ("train", "validation", "holdout"))
        format_splits(train, validation, spec.task.system, folder)
        order, rows = checked_order(tuner, spec, {"train": train, "validation": validation}, folder / "rows")
        ledger = Ledger(self.store)
        key = submit(tuner, ledger, Entry(order=order, run=CHAMPION, options=spec.provider), rows, QUICK).key
        entry = follow(tuner, ledger, key, lambda job, events: None, patience=QUICK)
        collect(tuner, entry, tuner.probe(self.here.model, "supervised"), 42, folder)
        base, tuned = ManagedBase.of(spec, {}), read_managed(folder / "model" / "managed.json")
        opened = partial(tuned_answerer, base, tuned, self.store, folder / "candidate.answers.jsonl")
        evaluate_candidate(train, holdout, sha256_of(holdout), [opened], base.counter, "managed", spec.task, folder)
        (folder / "spec.yaml").write_text(spec.resolved_yaml())
        (folder / "report.html").write_text("")
        names = ("spec.yaml", "report.html", "train.openai.jsonl", "holdout.jsonl", "candidate.predictions.jsonl", "model/managed.json")
        decision = Decision(verdict="promote", reasons=("made up",))
        evaluations = [json.loads((folder / "candidate.evaluation.json").read_text())]
        facts = {
            "run_id": CHAMPION,
            "name": spec.name,
            "decision": decision.model_dump(mode="json"),
            "evaluations": evaluations,
            "stages": [],
        }
        register(self.store, spec.name, CHAMPION, publish(self.store, CHAMPION, {name: folder / name for name in names}, facts), decision)

    @property
    def left(self) -> list[str]:
        """Deployments that run, but for those of base models, which cost nothing by the hour, and leases."""
        running = [one.name for one in self.here.tuner.deployments() if not one.name.startswith(BASE)]
        return running + [lease.name for lease in read_leases(self.store)]


@pytest.fixture(scope="module", params=PROVIDERS)
def crowned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A champion at each provider; nobody waits long for what a stand-in has at once."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as monkeypatch, open_stand_in(request.param, folder, monkeypatch) as here:
        monkeypatch.setattr("prooftune.providers.calls.FIRST_WAIT_S", 0.001)
        monkeypatch.setattr("prooftune.evaluation.answers.managed.served", partial(served, patience=QUICK))
        yield Watched(here, folder)


@pytest.fixture
def watched(crowned: Watched, tmp_path: Path) -> Watched:
    """The champion in a store of the test's own, in which it was never asked again."""
    shutil.copytree(crowned.store.root, tmp_path / "store")
    own = copy.copy(crowned)
    own.store = LocalStore(tmp_path / "store")
    return own


def today(days: float = 0) -> datetime:
    """A moment after the champion came into use."""
    return datetime.now(UTC) + timedelta(days=days)


def questions_of(watched: Watched, monkeypatch: pytest.MonkeyPatch, answer: str | None = None) -> list[list[Lease]]:
    """Return the leases that there are at each question that the stand-in's models are asked; ``answer`` is what they say from now on."""
    asked: list[list[Lease]] = []
    as_tuned = CannedBrain.answer

    def noticed(brain: CannedBrain, model: str, *rest: Any) -> Answered:
        asked.append(list(read_leases(watched.store)))
        found = as_tuned(brain, model, *rest)
        return found if answer is None else Answered(answer, found.prompt_tokens, found.answer_tokens)

    monkeypatch.setattr(CannedBrain, "answer", noticed)
    return asked


def test_the_provider_is_asked_the_holdout_again(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question once, with a lease that tells who finds its deployment what that costs; it is gone afterwards. Nothing has changed."""
    asked = questions_of(watched, monkeypatch)
    found = evaluate_again(watched.store, watched.spec, today())
    assert found is not None
    assert (len(asked), found.n, found.changed, found.p_value) == (HOLDOUT, HOLDOUT, 0, 1)
    assert found.value == found.published.value > 0.5
    [price] = {lease.usd_per_hour for leases in asked for lease in leases}
    assert (price is not None) == (watched.here.tuner.provider in BY_THE_HOUR)
    assert watched.left == []
    assert isinstance(look_at_quality(watched.store, watched.spec, today()), Quiet)
    again = evaluate_again(watched.store, watched.spec, today())
    assert (again, len(asked)) == (found, HOLDOUT), "once a day"


def test_a_model_that_its_provider_made_worse_is_a_signal(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another answer to every question is a drop, and worth a retraining."""
    questions_of(watched, monkeypatch, answer="no idea")
    found = evaluate_again(watched.store, watched.spec, today())
    assert found is not None
    assert (found.value, found.changed) == (0, HOLDOUT)
    told = look_at_quality(watched.store, watched.spec, today())
    assert isinstance(told, Signal)
    assert "the holdout gives exact_match 0.000" in told.reason


def test_a_provider_that_fails_half_way_is_asked_for_the_rest(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was deployed is taken down all the same, and the next try pays for no answer twice."""
    half, faults = HOLDOUT // 2, watched.here.api.faults
    fault = faults.order("error_before", "chat", times=10_000, after=half)
    with pytest.raises(TransientError):
        evaluate_again(watched.store, watched.spec, today())
    assert fault.fired
    assert watched.left == []
    faults.clear()
    rest = questions_of(watched, monkeypatch)
    found = evaluate_again(watched.store, watched.spec, today())
    assert found is not None
    assert (found.changed, len(rest)) == (0, HOLDOUT - half)
