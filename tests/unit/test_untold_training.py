"""What a training costs that its provider says nothing of: estimated and marked so, or not known, and never nothing."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from fixtures_watching import evaluation

from prooftune.economics.bill import BY_ESTIMATE, training_cost
from prooftune.economics.costs import cost_options, curve
from prooftune.economics.machine import Machine
from prooftune.economics.managed import Estimate
from prooftune.economics.prices import load_prices
from prooftune.evaluation.gate.checks import Evidence, checks_of
from prooftune.evidence import Costs, Option
from prooftune.report.money import break_even_table, money_sentence, option_table
from prooftune.report.plots.money import cumulative_curves
from prooftune.report.summary import tiles
from prooftune.spec import Gate, RunSpec, parse_spec
from prooftune.types import Metric
from tests.fixtures_managed import line, make_managed_view

RIGHT = Metric(name="exact_match", value=0.9, ci_low=0.8, ci_high=1.0, n=100)
CANDIDATE = evaluation(RIGHT).model_copy(update={"prompt_tokens_mean": 100, "answer_tokens_mean": 10})
FEW_SHOT = evaluation(RIGHT.model_copy(update={"value": 0.6})).model_copy(
    update={"name": "few_shot", "prompt_tokens_mean": 1_000, "answer_tokens_mean": 20}
)
PRICES = load_prices(None, date(2026, 11, 26))
SILENT = {"trained_tokens": None, "billed_usd": None, "job_seconds": 1800.0}
ESTIMATE = Estimate(
    offer="bedrock/nova-micro", training_tokens=2_000_000, exact=False, lines=(line("training", 2_000_000, "tokens", 1e-6),), usd=2.0
)
NEEDED: dict[str, dict[str, Any]] = {
    "bedrock": {"region": "us-east-1", "bucket": "s3://b", "role_arn": "arn:aws:iam::1:role/r"},
    "fireworks": {"project": "me"},
}


def spec_of(provider: str = "bedrock", model: str = "amazon.nova-micro-v1:0:128k", objective: str = "supervised") -> RunSpec:
    """A managed run of a task with 1,000 requests a month."""
    backend = {"provider": provider, "model": model, "objective": objective}
    use = {"requests_per_month": 1_000, "minutes_per_wrong_answer": 1, "usd_per_hour_of_work": 60}
    return parse_spec(
        {
            "name": "x",
            "data": {"source": "x"},
            "backend": backend,
            "provider": NEEDED.get(provider, {}),
            "use": use,
            "general": {"suite": "none"},
        }
    )


def costs_of(estimate: Estimate | None, **figures: Any) -> Costs:
    """Costs of a run at Bedrock that says nothing of its training, but for the figures."""
    machine = Machine(cuda=False, name="CPU", threads=4, memory_gb=16.0)
    return cost_options(spec_of(), [FEW_SHOT], "few_shot", CANDIDATE, SILENT | figures, 1_800, PRICES, machine, estimate)


def candidate(costs: Costs) -> Option:
    """The tuned model at its provider."""
    return next(option for option in costs.options if option.tuned and option.measured)


def test_a_training_that_nobody_tells_the_cost_of_counts_as_estimated() -> None:
    """In options, break-even and the costs' own sum; told figures count more, and are not marked."""
    costs = costs_of(ESTIMATE)
    assert (candidate(costs).tuning_usd, candidate(costs).tuning_estimated, costs.training_usd) == (2.0, True, 2.0)
    assert "as it was estimated" in candidate(costs).assumption
    assert costs.break_even[0].requests == costs_of(None, billed_usd=2.0).break_even[0].requests
    assert costs.break_even[0].months != costs_of(None, billed_usd=0.0).break_even[0].months
    for figures, usd in (({"billed_usd": 3.5}, 3.5), ({"trained_tokens": 4_000_000}, 4.0)):
        told = costs_of(ESTIMATE, **figures)
        assert (candidate(told).tuning_usd, candidate(told).tuning_estimated, candidate(told).assumption) == (usd, False, "")


def test_without_an_estimate_it_is_not_known_and_never_nothing() -> None:
    """No break-even is said, no curve drawn; the assumption says why."""
    costs = costs_of(None)
    assert (candidate(costs).tuning_usd, costs.training_usd) == (None, None)
    own = [pair for pair in costs.break_even if pair.option == candidate(costs).name]
    assert own
    assert all(pair.requests is None and pair.months is None for pair in own)
    assert all(pair.saving_usd_per_month is not None for pair in own)
    assert candidate(costs).name not in {row["option"] for row in curve(costs)}
    assert "not known" in candidate(costs).assumption
    assert not any(candidate(costs).name in warning for warning in costs.warnings)
    assert Costs.model_validate_json(costs.model_dump_json()) == costs


@pytest.mark.parametrize(("estimate", "passed"), [(ESTIMATE, True), (None, None)])
def test_an_unknown_cost_passes_no_payback_gate(estimate: Estimate | None, passed: bool | None) -> None:
    """What is paid back by the estimate passes; what nobody can say is open, and names why."""
    [check] = checks_of(Evidence(costs=costs_of(estimate)), Gate(max_payback_months=12))
    assert (check.name, check.passed) == ("payback", passed)
    assert ("what tuning cost is not known" in check.text) == (passed is None)


def test_the_report_says_not_known_or_as_estimated() -> None:
    """In its tables, tiles and sentence, and it draws no line from nothing."""
    view = make_managed_view("bedrock", full=True)
    name = candidate(costs_of(None)).name
    for estimate, shown in ((ESTIMATE, "$2"), (None, "not known")):
        found = view.model_copy(update={"costs": costs_of(estimate)})
        rows = dict(option_table(found, measured=True).rows)
        assert (rows[name][0].value, rows[name][0].detail) == (shown, "as estimated" if estimate else "")
        paid = [cells[-1].value for option, cells in break_even_table(found, measured=True).rows if option == name]
        assert all((value == "not known") == (estimate is None) for value in paid)
        assert bool(cumulative_curves(found)) == (estimate is not None)
        assert any(tile.name == "paid back after" and (tile.value == "not known") == (estimate is None) for tile in tiles(found, ()))
        sentence = money_sentence(found)
        assert ("as it was estimated" in sentence) == (estimate is not None)
        assert ("has a cost that nobody tells" in sentence) == (estimate is None)
        assert ("when tuning is paid back is not known" in sentence) == (estimate is None)
        assert "costs $0" not in sentence


def test_a_preference_tuning_has_its_own_price() -> None:
    """Where it is told in tokens alone, Fireworks' price of them is that of DPO."""
    spec = spec_of("fireworks", "accounts/fireworks/models/llama-v3p1-8b-instruct", "preference")
    offer = "fireworks/model-up-to-16b"
    told = training_cost(spec, SILENT | {"trained_tokens": 1_000_000}, offer, PRICES, None)
    assert told is not None
    assert (told.usd, told.told_by) == (pytest.approx(1.0), offer)
    untold = training_cost(spec, SILENT, offer, PRICES, ESTIMATE)
    assert untold is not None
    assert (untold.usd, untold.told_by) == (2.0, BY_ESTIMATE)


# By the hour


def graded(**options: Any) -> RunSpec:
    """A reinforcement tuning of o4-mini at OpenAI."""
    backend = {"provider": "openai", "model": "o4-mini-2025-04-16", "objective": "reinforcement"}
    block = {"grader": {"type": "string_check"}, "min_remaining_days": 0} | options
    return parse_spec({"name": "x", "data": {"source": "x"}, "backend": backend, "provider": block, "general": {"suite": "none"}})


def test_a_job_billed_by_time_costs_its_hours() -> None:
    """Half an hour of o4-mini at $100; tokens do not count; without times nobody tells, and the estimate does."""
    told = training_cost(graded(), SILENT | {"trained_tokens": 5}, "openai/o4-mini", PRICES, None)
    assert told is not None
    assert (told.quantity, told.unit, told.usd, told.told_by) == (0.5, "hour", 50.0, "openai/o4-mini")
    assert training_cost(graded(), SILENT | {"job_seconds": None, "trained_tokens": 5}, "openai/o4-mini", PRICES, None) is None
    own = training_cost(graded(), SILENT | {"billed_usd": 7.0}, "openai/o4-mini", PRICES, None)
    assert own is not None
    assert (own.usd, own.told_by) == (7.0, "the provider")
