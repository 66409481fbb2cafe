"""Tests of a run's bill: each part by who can tell it, and what nobody can tell named."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from fixtures_ledger import FAILED, entry_in, intent_of, order_of
from prefect.logging import disable_run_logger

from prooftune.data.lines import read_lines
from prooftune.economics import spending
from prooftune.economics.bill import Bill, bill_of
from prooftune.economics.managed import Estimate, Line
from prooftune.economics.prices import load_prices
from prooftune.economics.spending import BudgetExceeded
from prooftune.evaluation.answers.api_answerer import KeptAnswer
from prooftune.providers.chat import ChatAnswer
from prooftune.providers.hosting import Hosted, hosting_file, note_hosting
from prooftune.providers.ledger import Ledger
from prooftune.providers.tuning import Job
from prooftune.spec import Budget, Store, parse_spec
from prooftune.storage.local import LocalStore
from prooftune.types import StageOutput
from tasks.spending import hold_estimate, settle_failed
from tests.fixtures_managed import line

PRICES = load_prices(None, date(2026, 11, 22))
OFFER = "openai/gpt-4.1-mini"
HOUR = line("hosting, for the evaluation", 2, "hour", 1.7)


SPEC = parse_spec({"name": "triage", "data": {"source": "x"}, "backend": {"provider": "openai", "model": "gpt-4.1-mini"}})


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty store."""
    return LocalStore(tmp_path / "store")


def output(store: LocalStore, stage: str, folder: Path, figures: dict[str, Any]) -> StageOutput:
    """Hand on what is in a folder, as a stage does."""
    refs = {path.name: store.upload(path, f"stages/{stage}/{path.name}") for path in sorted(folder.iterdir())}
    return StageOutput(stage=stage, key=stage, artifacts=refs, figures=figures, seconds=1.0)


def estimated(*lines: Line) -> StageOutput:
    """Return the stage that estimated."""
    found = Estimate(offer=OFFER, training_tokens=1000, exact=True, lines=lines, usd=sum(one.usd for one in lines))
    return StageOutput(stage="estimate", key="estimate", artifacts={}, figures=found.model_dump(mode="json"), seconds=1.0)


def trained(tokens: int | None = 1000, usd: float | None = None) -> StageOutput:
    """Return the stage that collected a job."""
    return StageOutput(stage="train", key="train", artifacts={}, figures={"trained_tokens": tokens, "billed_usd": usd}, seconds=0.1)


def kept(*answers: tuple[int, int], batched: bool = False) -> str:
    """Return lines of kept answers with these tokens read and written."""
    rows = [
        KeptAnswer(
            asked=str(n),
            answer=ChatAnswer(text="x", prompt_tokens=read, answer_tokens=written, finished=True, latency_s=None if batched else 1),
        )
        for n, (read, written) in enumerate(answers)
    ]
    return "".join(row.model_dump_json() + "\n" for row in rows)


def billed(store: LocalStore, *outputs: StageOutput, failed: Job | None = None) -> Bill:
    """Return the bill."""
    return bill_of(SPEC, PRICES, {one.stage: one for one in outputs}, store, failed)


@pytest.mark.parametrize(
    ("tokens", "usd", "cost", "told_by"),
    [(1_000_000, None, 5.0, OFFER), (1_000_000, 4.5, 4.5, "the provider"), (None, 4.5, 4.5, "the provider"), (None, None, 0.0, None)],
)
def test_training_is_what_the_provider_says(
    store: LocalStore, tokens: int | None, usd: float | None, cost: float, told_by: str | None
) -> None:
    """Its USD, else its tokens by the price list; where it says neither, the bill says so, and the month counts the estimate."""
    bill = billed(store, estimated(line("training", 1000, "tokens", 5e-6)), trained(tokens, usd))
    assert (bill.usd, bill.of("training")) == (pytest.approx(cost), pytest.approx(cost))
    assert [one.told_by for one in bill.lines] == ([told_by] if told_by else [])
    assert bool(bill.left_out) == (told_by is None)
    assert [(one.part, one.usd, one.told_by) for one in bill.untold] == ([] if told_by else [("training", 0.005, "the estimate")])
    assert bill.by_stage == {"train": pytest.approx(cost or 0.005)}
    assert bill.training_tokens_billed == tokens


def test_answers_cost_their_tokens(store: LocalStore, tmp_path: Path) -> None:
    """By hand: base tokens at 0.40 and 1.60 a million, tuned ones at 0.80 and 3.20, half of it through a batch."""
    for stage, name, text in [
        ("baselines", "base_model", kept((1_000_000, 0), (0, 1_000_000))),
        ("evaluate", "candidate", kept((1_000_000, 1_000_000), batched=True)),
        ("forgetting", "general.candidate", kept((1_000_000, 0))),
    ]:
        (tmp_path / stage).mkdir()
        (tmp_path / stage / f"{name}.answers.jsonl").write_text(text)
    stages = [output(store, stage, tmp_path / stage, {}) for stage in ("baselines", "evaluate", "forgetting")]
    bill = billed(store, estimated(line("training", 1000, "tokens", 5e-6)), *stages)
    assert bill.of("base model") == pytest.approx(0.4 + 1.6)
    assert bill.of("tuned model") == pytest.approx((0.8 + 3.2) / 2 + 0.8)
    assert [one.what for one in bill.lines][-1] == "forgetting: answers of candidate"


def test_a_deployment_costs_the_hours_that_it_ran(store: LocalStore, tmp_path: Path) -> None:
    """Each time it was up, a killed stage's too, at the estimate's price of an hour; what nobody noted or knows, the bill says."""
    (tmp_path / "evaluate").mkdir()
    answers = tmp_path / "evaluate" / "candidate.answers.jsonl"
    answers.write_text("")
    silent = output(store, "evaluate", tmp_path / "evaluate", {})
    bill = billed(store, estimated(HOUR), trained(0, 0.0), silent)
    assert bill.left_out == ("hosting: how long the deployment ran was not written down",)
    for hours in (0.5, 0.25):
        note_hosting(answers, "prooftune-1", hours)
    assert hosting_file(answers).read_text().count("\n") == 2
    assert Hosted.model_validate_json(hosting_file(answers).read_text().splitlines()[0]) == Hosted(deployment="prooftune-1", hours=0.5)
    noted = output(store, "evaluate", tmp_path / "evaluate", {})
    bill = billed(store, estimated(HOUR), trained(0, 0.0), noted)
    assert bill.of("hosting") == pytest.approx(0.75 * 1.7)
    assert bill.left_out == ()
    note_hosting(answers, "prooftune-1", None)
    untimed = output(store, "evaluate", tmp_path / "evaluate", {})
    bill = billed(store, estimated(HOUR), trained(0, 0.0), untimed)
    assert bill.of("hosting") == pytest.approx(0.75 * 1.7)
    assert bill.left_out == ("hosting: how long the deployment ran for an earlier try of evaluate is not known",)


def test_a_line_that_a_kill_cut_stops_no_bill(tmp_path: Path) -> None:
    """The next deployment is noted on a line of its own; what was being written is gone."""
    answers = tmp_path / "candidate.answers.jsonl"
    for hours in (0.5, 0.25):
        note_hosting(answers, "prooftune-1", hours)
    noted = hosting_file(answers)
    noted.write_bytes(noted.read_bytes()[:-9])
    note_hosting(answers, "prooftune-1", 0.75)
    assert [row.hours for row in read_lines(noted, Hosted)] == [0.5, 0.75]


def test_a_place_by_the_month_is_paid_once_there_is_a_model(store: LocalStore) -> None:
    """A month that has begun costs all of it, and nothing where nothing was trained."""
    month = estimated(line("hosting, first month", 1, "month", 1.95))
    assert billed(store, month, trained(0, 0.0)).of("hosting") == 1.95
    assert billed(store, month).usd == 0


@pytest.mark.parametrize(("cost", "left_out"), [(0.03, 0), (None, 1)])
def test_the_judge_brings_its_own_bill(store: LocalStore, cost: float | None, left_out: int) -> None:
    """One without a price is named."""
    figures = {"judge": "openai gpt-5.4", "cost_usd": cost, "prompt_tokens": 900, "answer_tokens": 100}
    judged = StageOutput(stage="judge", key="judge", artifacts={}, figures=figures, seconds=1.0)
    bill = billed(store, estimated(line("judge, read", 1000, "tokens", 1e-5)), judged)
    assert (bill.of("judge"), len(bill.left_out)) == (cost or 0, left_out)
    assert bill.error == (None if cost is None else pytest.approx(0.01 / 0.03 - 1))


def test_a_failed_job_costs_what_it_told(store: LocalStore) -> None:
    """Its USD, else its tokens, else nothing that anybody knows: then it counts as it was estimated."""
    estimate = estimated(line("training", 1000, "tokens", 5e-6))
    job = Job(id="job-1", status="failed", told="failed", billed_usd=0.2)
    assert billed(store, estimate, failed=job).usd == 0.2
    assert billed(store, estimate, failed=job.model_copy(update={"billed_usd": None, "billed_tokens": 200_000})).usd == pytest.approx(1.0)
    silent = billed(store, estimate, failed=job.model_copy(update={"billed_usd": None}))
    assert (silent.usd, silent.untold_usd) == (0, 0.005)


def test_a_failed_job_leaves_nothing_held(store: LocalStore) -> None:
    """What it cost is billed under its own key, however often it is settled; the run holds nothing, and may hold anew."""
    estimate = estimated(line("training", 1000, "tokens", 5e-6))
    ledger = Ledger(store)
    entry = ledger.open(intent_of(order_of()))
    ledger.found(entry.key, FAILED.model_copy(update={"billed_tokens": 200_000}), "created")
    spec = SPEC.model_copy(update={"store": Store(uri=str(store.uri))})
    spending.hold(store, "default", "triage-1", 0.5, 500)
    with disable_run_logger():
        for _ in range(2):
            settle_failed(spec, "triage-1", entry.key, (estimate,))
    assert spending.find(store, "default", "triage-1") is None
    month = spending.spent(store, "default")
    assert (month.held_usd, month.billed_usd) == (0, pytest.approx(1.0))
    assert spending.hold(store, "default", "triage-1", 0.5, 500).billed_usd is None


def test_a_failed_job_counts_in_the_month_that_held_it(store: LocalStore) -> None:
    """A job that fails after the turn of a month takes no room in the new one."""
    estimate = estimated(line("training", 1000, "tokens", 5e-6))
    ledger = Ledger(store)
    entry = ledger.open(intent_of(order_of()))
    ledger.found(entry.key, FAILED.model_copy(update={"billed_tokens": 200_000}), "created")
    spending.hold(store, "default", "triage-1", 0.5, 500, datetime(2020, 11, 30, 23, tzinfo=UTC))
    with disable_run_logger():
        settle_failed(SPEC.model_copy(update={"store": Store(uri=str(store.uri))}), "triage-1", entry.key, (estimate,))
    assert spending.spent(store, "default", "2020-11").usd == pytest.approx(1.0)
    assert spending.spent(store, "default").usd == 0


def test_answers_before_a_failed_job_count_once(store: LocalStore, tmp_path: Path) -> None:
    """The run that submits the job again has the same answers; the failed job of which nobody tells the cost counts as it was estimated."""
    ledger = Ledger(store)
    entry = ledger.open(intent_of(order_of()))
    ledger.found(entry.key, FAILED, "created")
    (tmp_path / "baselines").mkdir()
    (tmp_path / "baselines" / "base_model.answers.jsonl").write_text(kept((1_000_000, 0)))
    asked = output(store, "baselines", tmp_path / "baselines", {}).model_copy(update={"done_at": "then"})
    spec = SPEC.model_copy(update={"store": Store(uri=str(store.uri))})
    spending.hold(store, "default", "triage-1", 0.5, None)
    with disable_run_logger():
        settle_failed(spec, "triage-1", entry.key, (estimated(line("training", 1000, "tokens", 5e-6)), asked))
    assert spending.spent(store, "default").usd == pytest.approx(0.4 + 0.005)
    spending.hold(store, "default", "triage-1", 0.5, None)
    spending.settle(store, "default", "triage-1", {"baselines then": 0.4, "prooftune-2": 5.0})
    assert spending.spent(store, "default").usd == pytest.approx(0.4 + 0.005 + 5.0)


@pytest.mark.parametrize(
    ("history", "held"),
    [((), "refused"), (("submitting",), 31), (("submitted",), 31), (("failed",), 0), (("failed", "again"), "refused")],
    ids=["nothing is ordered", "a job may exist", "a job runs", "the job failed", "the job failed and is to be done again"],
)
def test_a_runs_limit_is_asked_unless_its_job_is_ordered(store: LocalStore, tmp_path: Path, history: tuple[str, ...], held: object) -> None:
    """Lowered after the estimate it refuses what was not bought yet; of a job that failed nothing comes, so that nothing is held for it.

    A damaged entry of another order concerns nobody here.
    """
    order, ledger = order_of(), Ledger(store)
    store.put(f"ledger/jobs/{order.key}damaged.json", b"{")
    for state in history:
        if state == "again":
            ledger.again(order.key, "ada", "mended")
        else:
            entry_in(ledger, state, order)
    (tmp_path / "estimate").mkdir()
    (tmp_path / "estimate" / "order.json").write_text(order.model_dump_json())
    found = output(store, "estimate", tmp_path / "estimate", estimated(line("training", 1000, "tokens", 0.031)).figures)
    spec = SPEC.model_copy(update={"store": Store(uri=str(store.uri)), "budget": Budget(max_usd=10)})
    with disable_run_logger(), pytest.raises(BudgetExceeded) if held == "refused" else nullcontext():
        hold_estimate(spec, "triage-1", found)
    assert spending.spent(store, "default").held_usd == (0 if held == "refused" else held)
