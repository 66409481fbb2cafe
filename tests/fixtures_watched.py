"""A champion at a provider's stand-in, tuned, asked, estimated, billed and published as a run does, to be asked again."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fixtures_ledger import QUICK
from fixtures_runs import examples_of
from fixtures_stand_ins import PROVIDERS, StandIn, open_stand_in
from fixtures_tickets import tickets

from prooftune.data.formatting import format_splits
from prooftune.data.lines import write_lines
from prooftune.data.splitting import split
from prooftune.economics import spending
from prooftune.economics.bill import bill_of
from prooftune.economics.managed import Estimate, estimate_managed, price_of
from prooftune.economics.prices import PriceList, load_prices
from prooftune.errors import TransientError
from prooftune.evaluation.answers.managed import ManagedBase, tuned_answerer
from prooftune.evaluation.candidate import evaluate_candidate
from prooftune.providers.collection import collect, read_managed
from prooftune.providers.deployment_leases import Lease, read_leases
from prooftune.providers.ledger import Entry, Ledger
from prooftune.providers.orders import checked_order
from prooftune.providers.serving import served
from prooftune.providers.submission import follow, submit
from prooftune.sandbox.models import Answered, CannedBrain
from prooftune.spec import parse_spec
from prooftune.storage.disk import sha256_of
from prooftune.storage.local import LocalStore
from prooftune.storage.manifest import publish
from prooftune.storage.registry import register
from prooftune.types import Decision, SplitName, StageOutput
from prooftune.watching.nightly import evaluate_again

CHAMPION = "tickets-champion"
BY_THE_HOUR = ("azure", "together", "fireworks")
"""Providers whose stand-in's model has an hourly price; Nova is stored by the month."""
HOLDOUT = 30
PRICES = """
[source.own]
name = "made up"
checked = 2026-11-22
[price."azure/gpt-4.1-mini"]
input = { amount = 1, unit = "1M tokens", source = "own" }
output = { amount = 2, unit = "1M tokens", source = "own" }
tuned_input = { amount = 3, unit = "1M tokens", source = "own" }
tuned_output = { amount = 4, unit = "1M tokens", source = "own" }
training = { amount = 5, unit = "1M tokens", source = "own" }
hosting = { amount = 1.7, unit = "hour", source = "own" }
[price."vertex/gemini-3.5-flash"]
input = { amount = 1, unit = "1M tokens", source = "own" }
output = { amount = 2, unit = "1M tokens", source = "own" }
tuned_input = { amount = 3, unit = "1M tokens", source = "own" }
tuned_output = { amount = 4, unit = "1M tokens", source = "own" }
training = { amount = 5, unit = "1M tokens", source = "own" }
[price."fireworks/model-up-to-16b"]
input = { amount = 1, unit = "1M tokens", source = "own" }
output = { amount = 2, unit = "1M tokens", source = "own" }
"""
"""What the shipped price list lacks."""


class Watched:
    """A stand-in, and a store whose champion was tuned there and asked its holdout as a run does."""

    def __init__(self, here: StandIn, folder: Path) -> None:
        self.here, self.store, self.folder = here, LocalStore(folder / "store"), folder
        (folder / "prices.toml").write_text(PRICES)
        self.spec = parse_spec(
            {
                "name": "tickets",
                "data": {"source": "tickets.jsonl", "split": {"holdout": HOLDOUT, "validation": 8}},
                "backend": {"provider": here.tuner.provider, "model": here.model},
                "provider": here.options.model_dump(),
                "use": {"prices": str(folder / "prices.toml")},
                "general": {"suite": "none"},
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
        trained = collect(tuner, entry, tuner.probe(self.here.model, "supervised"), 42, folder)
        base, tuned = ManagedBase.of(spec, {}), read_managed(folder / "model" / "managed.json")
        opened = partial(tuned_answerer, base, tuned, self.store, folder / "candidate.answers.jsonl")
        evaluate_candidate(train, holdout, sha256_of(holdout), [opened], base.counter, "managed", spec.task, folder)
        (folder / "spec.yaml").write_text(spec.resolved_yaml())
        (folder / "report.html").write_text("")
        self.write_money({"train": train, "validation": validation, "holdout": holdout}, trained)
        names = (
            *("spec.yaml", "report.html", "train.openai.jsonl", "holdout.jsonl", "candidate.predictions.jsonl", "model/managed.json"),
            *("estimate.json", "bill.json"),
        )
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

    def in_store_of_its_own(self, folder: Path) -> Watched:
        """Return the champion in a copy of its store."""
        shutil.copytree(self.store.root, folder / "store")
        own = copy.copy(self)
        own.store = LocalStore(folder / "store")
        return own

    def write_money(self, splits: dict[SplitName, Path], trained: dict[str, Any]) -> None:
        """Estimate and bill the run as its stages do."""
        estimate = estimate_managed(self.spec, splits, self.prices)
        kept = sorted(self.folder.glob("candidate.*.jsonl"))
        refs = {path.name: self.store.upload(path, f"stages/evaluate/{path.name}") for path in kept}
        figures = {"estimate": estimate.model_dump(mode="json"), "train": trained, "evaluate": {}}
        outputs = {
            name: StageOutput(stage=name, key=name, artifacts=refs if name == "evaluate" else {}, figures=told, seconds=1.0)
            for name, told in figures.items()
        }
        bill = bill_of(self.spec, self.prices, outputs, self.store)
        for name, document in (("estimate", estimate), ("bill", bill)):
            (self.folder / f"{name}.json").write_text(document.model_dump_json())

    @property
    def prices(self) -> PriceList:
        """The price list."""
        return load_prices(self.folder / "prices.toml", datetime.now(UTC).date())

    @property
    def month(self) -> spending.Month:
        """What the project holds and was billed this month."""
        return spending.spent(self.store, self.spec.budget.project)

    def usd_of(self, asked: Sequence[Question]) -> float:
        """Return what the tokens of answers cost, as the stand-in counted them."""
        offer = Estimate.model_validate_json((self.folder / "estimate.json").read_bytes()).offer
        read_usd, written_usd = (price_of(self.prices, offer, meter) / 1e6 for meter in ("tuned_input", "tuned_output"))
        return sum(one.answered.prompt_tokens * read_usd + one.answered.answer_tokens * written_usd for one in asked)

    @property
    def left(self) -> list[str]:
        """Deployments that run, and leases."""
        running = [one.name for one in self.here.tuner.deployments()]
        return running + [lease.name for lease in read_leases(self.store)]


@contextmanager
def crown(provider: str, folder: Path, **options: Any) -> Iterator[Watched]:
    """Crown a champion at a provider, asked with these options; nobody waits long for what a stand-in has at once."""
    with pytest.MonkeyPatch.context() as monkeypatch, open_stand_in(provider, folder, monkeypatch) as here:
        monkeypatch.setattr("prooftune.providers.calls.FIRST_WAIT_S", 0.001)
        monkeypatch.setattr("prooftune.evaluation.answers.managed.served", partial(served, patience=QUICK))
        monkeypatch.setattr("prooftune.providers.batches.FIRST_POLL_S", 0.01)
        here.options = here.options.model_copy(update=options)
        yield Watched(here, folder)


def today(days: float = 0) -> datetime:
    """A moment after the champion came into use."""
    return datetime.now(UTC) + timedelta(days=days)


@dataclass(frozen=True)
class Question:
    """What there was when the stand-in's model was asked, and what it said."""

    leases: list[Lease]
    items: tuple[spending.Item, ...]
    """Of the month."""
    answered: Answered


def questions_of(watched: Watched, monkeypatch: pytest.MonkeyPatch, answer: str | None = None) -> list[Question]:
    """Return each question that the stand-in's models are asked from now on, as it comes; ``answer`` is what they say."""
    asked: list[Question] = []
    as_tuned = CannedBrain.answer

    def noticed(brain: CannedBrain, model: str, *rest: Any) -> Answered:
        leases, items = list(read_leases(watched.store)), watched.month.items
        found = as_tuned(brain, model, *rest)
        told = found if answer is None else Answered(answer, found.prompt_tokens, found.answer_tokens)
        asked.append(Question(leases, items, told))
        return told

    monkeypatch.setattr(CannedBrain, "answer", noticed)
    return asked


def fail_half_way(watched: Watched) -> None:
    """Let the provider fail at half of the questions."""
    fault = watched.here.api.faults.order("error_before", "chat", times=10_000, after=HOLDOUT // 2)
    with pytest.raises(TransientError):
        evaluate_again(watched.store, watched.spec, today())
    assert fault.fired
    watched.here.api.faults.clear()


@pytest.fixture(scope="module", params=PROVIDERS)
def crowned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A champion at each provider."""
    with crown(request.param, tmp_path_factory.mktemp(request.param)) as found:
        yield found


@pytest.fixture
def watched(crowned: Watched, tmp_path: Path) -> Watched:
    """The champion in a store of the test's own, in which it was never asked again."""
    return crowned.in_store_of_its_own(tmp_path)
