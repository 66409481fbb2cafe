"""What asking a champion at its provider again costs is held in the project's month before, and billed after, however it ends."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from fixtures_managed import line
from fixtures_watched import BY_THE_HOUR, CHAMPION, HOLDOUT, Watched, fail_half_way, questions_of, today

from prooftune.economics import spending
from prooftune.economics.bill import Bill, BillLine
from prooftune.economics.managed import Estimate
from prooftune.economics.prices import load_prices
from prooftune.errors import DataError, SpecError
from prooftune.providers.hosting import ANSWERS, note_hosting
from prooftune.spec import Budget, Use
from prooftune.storage.local import LocalStore
from prooftune.watching.nightly import evaluate_again
from prooftune.watching.nightly_bill import NAME, NightlyBill, likely_usd

pytest_plugins = ["fixtures_watched"]


def test_what_it_costs_is_held_and_then_billed(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held is what asking the candidate cost; billed are the tokens that the provider counted, and hours that a deployment ran."""
    began, asked = time.monotonic(), questions_of(watched, monkeypatch)
    found = evaluate_again(watched.store, watched.spec, today())
    hours = (time.monotonic() - began) / 3600
    assert found is not None
    bill = Bill.model_validate_json((watched.folder / "bill.json").read_bytes())
    [held] = {item for question in asked for item in question.items}
    assert (held.key, held.billed_usd) == (f"asking {CHAMPION} again on {today():%Y-%m-%d}", None)
    assert held.held_usd == pytest.approx(bill.of("tuned model") + sum(one.usd for one in bill.lines if one.unit == "hour"))
    assert held.held_usd > 0
    [item] = watched.month.items
    assert item.billed_usd == found.usd
    place = [line for line in Estimate.model_validate_json((watched.folder / "estimate.json").read_bytes()).lines if line.unit == "hour"]
    assert bool(place) == (watched.here.tuner.provider in BY_THE_HOUR)
    hosting = (found.usd or 0) - watched.usd_of(asked)
    assert 0 < hosting <= hours * place[0].usd_per_unit if place else hosting == pytest.approx(0)
    before = len(watched.here.api.seen)
    assert evaluate_again(watched.store, watched.spec, today()) == found
    assert (watched.month.items, len(watched.here.api.seen)) == ((item,), before)


def test_a_month_that_is_full_lets_nobody_ask(watched: Watched) -> None:
    """The present spec's limit counts, and the provider hears nothing."""
    spec = watched.spec.model_copy(update={"budget": Budget(project="full", monthly_usd=0)})
    before = len(watched.here.api.seen)
    with pytest.raises(spending.BudgetExceeded, match=rf"^asking {CHAMPION} again on .* may cost \$.* of the project full is \$0.00"):
        evaluate_again(watched.store, spec, today())
    assert (len(watched.here.api.seen), spending.spent(watched.store, "full").items) == (before, ())


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "on another machine"])
def test_every_try_of_a_day_is_in_its_bill(watched: Watched, monkeypatch: pytest.MonkeyPatch, elsewhere: bool) -> None:
    """What failed half way is billed as far as it came; the next try pays for the rest, or for all where it finds no answers."""
    asked = questions_of(watched, monkeypatch)
    fail_half_way(watched)
    [half] = watched.month.items
    assert half.billed_usd is not None
    hosted = watched.here.tuner.provider in BY_THE_HOUR
    assert (half.billed_usd > watched.usd_of(asked)) if hosted else (half.billed_usd == pytest.approx(watched.usd_of(asked)))
    if elsewhere:
        shutil.rmtree(watched.store.work_dir())
    found = evaluate_again(watched.store, watched.spec, today())
    [whole] = watched.month.items
    assert found is not None
    assert len(asked) == HOLDOUT + (HOLDOUT // 2 if elsewhere else 0)
    assert (whole.held_usd, whole.billed_usd) == (half.held_usd, found.usd)
    assert (whole.usd > max(half.usd, watched.usd_of(asked))) if hosted else (whole.usd == pytest.approx(watched.usd_of(asked)))


def test_a_champion_without_a_bill_is_not_asked(watched: Watched) -> None:
    """Nobody can say what that costs: what to do is told, and nothing is held."""
    place = watched.store.root / "runs" / CHAMPION / "manifest.json"
    manifest = json.loads(place.read_text())
    del manifest["files"]["bill.json"]
    place.write_text(json.dumps(manifest))
    before = len(watched.here.api.seen)
    with pytest.raises(DataError, match=rf"^the champion {CHAMPION} has published no bill.json, .*prooftune run"):
        evaluate_again(watched.store, watched.spec, today())
    assert (len(watched.here.api.seen), watched.month.items) == (before, ())


@pytest.mark.parametrize("crowned", ["vertex"], indirect=True)
def test_a_price_that_is_missing_is_told_before_anything_is_asked(watched: Watched) -> None:
    """The price list is the present spec's; without the champion's prices nobody could settle."""
    before = len(watched.here.api.seen)
    with pytest.raises(SpecError, match=r"no price for vertex/gemini-3.5-flash, tuned_input.*use.prices"):
        evaluate_again(watched.store, watched.spec.model_copy(update={"use": Use()}), today())
    assert (len(watched.here.api.seen), watched.month.items) == (before, ())


def test_what_is_held_is_what_asking_the_candidate_cost() -> None:
    """Of the bill what the evaluation cost, its tokens at the full price; a deployment that nobody timed counts as it was estimated."""
    hour = line("hosting, for the evaluation", 2, "hour", 1.5)
    lines = [
        BillLine(part=part, what=what, quantity=1, unit="tokens", usd=usd, told_by="list")
        for part, what, usd in (
            ("training", "training", 40.0),
            ("base model", "baselines: answers of base model", 7.0),
            ("tuned model", "evaluate: answers of candidate", 0.25),
            ("tuned model", "champion: answers of candidate old", 9.0),
        )
    ]
    timed = BillLine(part="hosting", what="evaluate: deployment", quantity=0.5, unit="hour", usd=0.75, told_by="list")
    untimed, whole = (
        Bill(lines=tuple(some), usd=0, estimated_usd=0, training_tokens_estimated=0, training_tokens_billed=0)
        for some in (lines, [*lines, timed])
    )
    assert likely_usd(untimed, None, batched=False) == 0.25
    assert likely_usd(untimed, None, batched=True) == 0.5
    assert likely_usd(untimed, hour, batched=False) == 3.25
    assert likely_usd(whole, hour, batched=True) == 1.25


def test_hours_that_nobody_knows_count_as_estimated(tmp_path: Path) -> None:
    """Once, however many tries died, and beside the hours that are known: a deployment that nobody timed was not for nothing."""
    hour = line("hosting, for the evaluation", 2, "hour", 1.7)
    store, moment = LocalStore(tmp_path / "store"), today()
    bill = NightlyBill(
        store=store,
        budget=Budget(monthly_usd=100),
        key=f"asking {CHAMPION} again on {moment:%Y-%m-%d}",
        now=moment,
        likely_usd=hour.usd,
        offer="openai/gpt-4.1-mini",
        prices=load_prices(None, moment.date()),
        hour=hour,
        out=tmp_path,
    )
    for hours, usd in ((0.1, 0.17), (None, 0.17 + 3.4), (None, 0.17 + 3.4)):
        with bill.held():
            note_hosting(tmp_path / f"{NAME}{ANSWERS}", "prooftune-1", hours)
        [item] = spending.spent(store, "default").items
        assert item.billed_usd == pytest.approx(usd)
