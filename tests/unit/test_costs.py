"""What each way to serve the task costs, from measured tokens and seconds."""

from __future__ import annotations

import csv
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from prooftune.economics.costs import CURVE, cost_options, curve, usd_per_wrong_answer, write_costs
from prooftune.economics.machine import Machine, machine_hour, this_machine
from prooftune.economics.options import HOURS_PER_MONTH
from prooftune.economics.prices import load_prices
from prooftune.errors import DataError
from prooftune.evidence import BreakEven, Costs, Option
from prooftune.spec import RunSpec, Use, parse_spec
from prooftune.types import Evaluation, Metric

PRICES = load_prices(None, date(2026, 11, 22))
LAPTOP = Machine(cuda=False, name="CPU", threads=4, memory_gb=16.0)
TRAINED = {"trained_tokens": 2_000_000, "device": "cpu"}
N = 100


def spec_of(**blocks: Any) -> RunSpec:
    """A spec with these blocks."""
    return parse_spec({"name": "costs", "data": {"source": "x.jsonl"}} | blocks)


def evaluation(
    name: str, *, value: float, prompt: float, answer: float, seconds: float, metric: str = "exact_match", model: str = ""
) -> Evaluation:
    """A contestant on 100 held-out examples, five of them unscored."""
    return Evaluation(
        name=name,
        description="",
        metrics={metric: Metric(name=metric, value=value, ci_low=value, ci_high=value, n=N - 5, unscored=5)},
        model=model,
        answer_tokens_mean=answer,
        answer_tokens_p50=answer,
        answer_tokens_p95=answer,
        prompt_tokens_mean=prompt,
        latency_p50_s=1,
        latency_p95_s=1,
        batch_size=32,
        tokens_per_second=1,
        seconds=seconds,
        refusals=0,
        empty=0,
        holdout_sha256="0" * 64,
    )


FEW_SHOT = evaluation("few_shot", value=0.6, prompt=1_000, answer=20, seconds=200)
CANDIDATE = evaluation("candidate", value=0.9, prompt=100, answer=10, seconds=50)


def costs_of(spec: RunSpec, *baselines: Evaluation, best: str = "few_shot", machine: Machine = LAPTOP) -> Costs:
    """Costs of a run whose training took an hour."""
    return cost_options(spec, baselines or (FEW_SHOT,), best, CANDIDATE, TRAINED, 3_600, PRICES, machine)


def option(costs: Costs, name: str) -> Option:
    """The option of this name."""
    [found] = [one for one in costs.options if one.name == name]
    return found


def pair(costs: Costs, name: str, against: str) -> BreakEven:
    """The comparison of two options."""
    [found] = [one for one in costs.break_even if (one.option, one.against) == (name, against)]
    return found


def test_this_machine_costs_its_measured_seconds() -> None:
    """2 s an answer at 3.60 USD an hour are 2 USD per 1,000; an hour of training is 3.60 USD."""
    costs = costs_of(spec_of(use={"gpu_usd_per_hour": 3.6}))
    few_shot, candidate = option(costs, "few-shot, this machine"), option(costs, "candidate, this machine")
    assert few_shot.usd_per_1000_requests == pytest.approx(2.0)
    assert candidate.usd_per_1000_requests == pytest.approx(0.5)
    assert (few_shot.tuning_usd, candidate.tuning_usd) == (0.0, pytest.approx(3.6))
    assert (costs.training_usd, costs.training_hours) == (pytest.approx(3.6), pytest.approx(1.0))
    assert (few_shot.tuned, candidate.tuned) == (False, True)
    assert "3.6 USD an hour, as use.gpu_usd_per_hour says" in candidate.assumption


def test_a_machine_paid_by_the_month_answers_for_nothing() -> None:
    """100 hours at 3.60 USD are hosting, tuned or not, and answers cost nothing more."""
    costs = costs_of(spec_of(use={"gpu_usd_per_hour": 3.6, "hosting_hours_per_month": 100, "requests_per_month": 1_000}))
    for name in ("few-shot, this machine", "candidate, this machine"):
        found = option(costs, name)
        assert (found.hosting_usd_per_month, found.usd_per_1000_requests) == (pytest.approx(360), 0.0)
    assert pair(costs, "candidate, this machine", "few-shot, this machine").requests is None


@pytest.mark.parametrize(
    ("volume", "warned"), [pytest.param(180_000, False, id="100 hours of answers"), pytest.param(180_001, True, id="a little more")]
)
def test_hours_that_do_not_suffice_are_warned_of(volume: int, warned: bool) -> None:
    """180,000 answers of 2 s are 100 hours."""
    costs = costs_of(spec_of(use={"hosting_hours_per_month": 100, "requests_per_month": volume}))
    assert any("few_shot would take 100 hours" in warning for warning in costs.warnings) is warned


def test_a_cpu_without_a_price_counts_as_rented_cores_and_says_so() -> None:
    """Four hardware threads are two cores of the price list."""
    hour = machine_hour(Use(), LAPTOP, PRICES)
    core = PRICES.price["machine/cpu"]["core_hour"]
    assert hour.usd == pytest.approx(2 * core.amount)
    assert "2 rented CPU cores" in option(costs_of(spec_of()), "candidate, this machine").assumption
    assert machine_hour(Use(), Machine(False, "CPU", 1, 1.0), PRICES).usd == pytest.approx(core.amount)


@pytest.mark.parametrize(
    ("gpu", "kind"),
    [("NVIDIA H200", "h200"), ("NVIDIA A100-SXM4-80GB", "a100"), ("NVIDIA A10G", "a10"), ("NVIDIA L4", "l4"), ("NVIDIA H100 PCIe", "h100")],
)
def test_a_gpu_is_priced_by_its_name(gpu: str, kind: str) -> None:
    """An A100 is no A10."""
    hour = machine_hour(Use(), Machine(True, gpu, 8, 80.0), PRICES)
    assert hour.usd == PRICES.price[f"machine/{kind}"]["hour"].amount
    assert not hour.warning


def test_an_unknown_gpu_counts_as_the_dearest_with_a_warning() -> None:
    """Too high a bill misleads less than none."""
    costs = costs_of(spec_of(), machine=Machine(True, "NVIDIA RTX 9999", 8, 24.0))
    assert any("no machine like NVIDIA RTX 9999" in warning for warning in costs.warnings)
    assert machine_hour(Use(), Machine(True, "NVIDIA RTX 9999", 8, 24.0), PRICES).usd == PRICES.price["machine/h200"]["hour"].amount


def test_this_machine_is_described() -> None:
    """It has threads and memory."""
    machine = this_machine()
    assert machine.threads >= 1
    assert machine.memory_gb > 0.5


def test_a_managed_provider_costs_the_measured_tokens() -> None:
    """gpt-4.1-mini: 1,000 + 20 tokens prompted, 100 + 10 tuned, 2M tokens trained."""
    costs = costs_of(spec_of())
    prompted, tuned = option(costs, "few-shot, openai gpt-4.1-mini"), option(costs, "candidate, openai gpt-4.1-mini")
    assert prompted.usd_per_1000_requests == pytest.approx(1_000 * (1_000 * 0.40 + 20 * 1.60) / 1e6)
    assert tuned.usd_per_1000_requests == pytest.approx(1_000 * (100 * 0.80 + 10 * 3.20) / 1e6)
    assert tuned.tuning_usd == pytest.approx(10.0)
    assert (tuned.hosting_usd_per_month, prompted.tuning_usd) == (0.0, 0.0)
    assert (tuned.prompt_tokens, tuned.answer_tokens) == (100, 10)
    for found in (prompted, tuned):
        assert found.assumption.startswith("Not measured")


def test_azure_s_developer_tier_has_no_month_of_hosting() -> None:
    """Its deployment costs nothing by the hour, and that it lives for a day is said beside it."""
    fields = {"base_url": "https://mine.openai.azure.com/openai/v1", "resource": "/subscriptions/s/accounts/mine", "tier": "developer"}
    spec = spec_of(backend={"provider": "azure", "model": "gpt-4.1"}, provider=fields)
    figures = {"trained_tokens": 1_000, "billed_usd": None, "device": ""}
    found = option(cost_options(spec, (FEW_SHOT,), "few_shot", CANDIDATE, figures, 60, PRICES, LAPTOP), "candidate, azure gpt-4.1")
    assert found.hosting_usd_per_month == 0.0
    assert "costs nothing by the hour, and lives for a day" in found.assumption


@pytest.mark.parametrize(("hours", "paid"), [(None, HOURS_PER_MONTH), (10, 10)])
def test_a_deployment_is_paid_by_the_hour(hours: float | None, paid: float) -> None:
    """Around the clock unless the spec says how long; by the month where the provider bills so."""
    costs = costs_of(spec_of(use={"hosting_hours_per_month": hours}))
    assert option(costs, "candidate, azure gpt-4.1").hosting_usd_per_month == pytest.approx(1.70 * paid)
    assert option(costs, "candidate, bedrock nova-micro").hosting_usd_per_month == 1.95


def test_every_tuned_option_meets_the_one_in_use_and_the_candidates_comes_first() -> None:
    """And a provider's also the same provider's base model, where that has a price."""
    costs = costs_of(spec_of())
    assert (costs.break_even[0].option, costs.break_even[0].against) == ("candidate, this machine", "few-shot, this machine")
    tuned = [one.name for one in costs.options if one.tuned]
    assert [one.option for one in costs.break_even if one.against == "few-shot, this machine"] == tuned
    at_home = {one.against for one in costs.break_even} - {"few-shot, this machine"}
    assert at_home == {one.name for one in costs.options if not one.tuned} - {"few-shot, this machine"}


def test_a_saving_counts_answers_and_corrections() -> None:
    """1.5 minutes at 40 USD an hour cost 1 USD a wrong answer: 0.3 wrong answers fewer and 1.5 USD per 1,000 less."""
    use = {"gpu_usd_per_hour": 3.6, "minutes_per_wrong_answer": 1.5, "usd_per_hour_of_work": 40, "requests_per_month": 100}
    spec = spec_of(use=use)
    assert usd_per_wrong_answer(spec) == pytest.approx(1.0)
    found = pair(costs_of(spec), "candidate, this machine", "few-shot, this machine")
    assert found.saving_usd_per_request == pytest.approx(0.3 * 1.0 + 0.0015)
    assert found.saving_usd_per_month == pytest.approx(30.15)
    assert found.requests == 12
    assert found.months == pytest.approx(3.6 / 30.15)


@pytest.mark.parametrize(("metric", "counted"), [("exact_match", True), ("json_valid", True), ("rouge_l", False), ("macro_f1", False)])
def test_corrections_need_a_metric_that_calls_answers_wrong(metric: str, counted: bool) -> None:
    """Half a ROUGE point is no half wrong answer: then corrections are left out, and a warning says so."""
    spec = spec_of(task={"metric": metric}, use={"minutes_per_wrong_answer": 60, "usd_per_hour_of_work": 1})
    baseline, candidate = (one.model_copy(update={"metrics": {metric: one.metrics["exact_match"]}}) for one in (FEW_SHOT, CANDIDATE))
    costs = cost_options(spec, [baseline], "few_shot", candidate, TRAINED, 3_600, PRICES, LAPTOP)
    saved = costs.break_even[0].saving_usd_per_request
    assert (saved > 0.3) is counted
    assert any("corrections are not counted" in warning for warning in costs.warnings) is not counted


def test_a_larger_model_behind_an_api_costs_its_tokens() -> None:
    """The option in use is then the API's."""
    larger = evaluation("larger_model", value=0.8, prompt=1_000, answer=20, seconds=300, model="gpt-5.4")
    spec = spec_of(baseline={"ladder": ["few_shot", "larger_model"], "larger": {"provider": "openai", "model": "gpt-5.4"}})
    costs = costs_of(spec, FEW_SHOT, larger, best="larger_model")
    assert option(costs, "larger model, openai gpt-5.4").usd_per_1000_requests == pytest.approx(2.8)
    assert costs.break_even[0].against == "larger model, openai gpt-5.4"


def test_an_api_without_a_price_has_no_costs_and_says_so() -> None:
    """Where it is the option in use, only the providers' own comparisons are left."""
    larger = evaluation("larger_model", value=0.8, prompt=1_000, answer=20, seconds=300, model="unheard-of")
    spec = spec_of(baseline={"ladder": ["few_shot", "larger_model"], "larger": {"provider": "anthropic", "model": "unheard-of"}})
    costs = costs_of(spec, FEW_SHOT, larger, best="larger_model")
    assert any("no price for anthropic/unheard-of" in warning for warning in costs.warnings)
    assert "candidate, this machine" not in {one.option for one in costs.break_even}


def test_residency_leaves_providers_out_and_says_which() -> None:
    """Only Azure and Vertex can be confined to the EU."""
    costs = costs_of(spec_of(data={"source": "x.jsonl", "residency": "eu"}))
    assert {one.name.split(", ")[1] for one in costs.options} == {"this machine", "azure gpt-4.1", "vertex gemini-2.5-flash"}
    [left_out] = [warning for warning in costs.warnings if warning.startswith("Left out")]
    assert "openai/gpt-4.1" in left_out


def test_old_prices_and_a_provider_that_closes_are_warned_of() -> None:
    """With the age of the source, and the last day for a new training."""
    costs = costs_of(spec_of())
    assert costs.priced_at == "2026-02-11"
    assert any("older than 180 days" in warning and "(284 days)" in warning for warning in costs.warnings)
    assert any("openai accepts no new training after 2027-01-06" in warning for warning in costs.warnings)


def test_hosting_that_is_not_covered_names_the_volume_that_would() -> None:
    """At 10 requests a month no deployment pays."""
    costs = costs_of(spec_of(use={"requests_per_month": 10, "minutes_per_wrong_answer": 1, "usd_per_hour_of_work": 60}))
    [text] = [
        one for one in costs.warnings if "candidate, together qwen3.5-9b is covered" in one and one.endswith("few-shot, this machine.")
    ]
    assert int(text.split(" covered from ")[1].split()[0].replace(",", "")) > 9_000


def test_zero_volume_pays_nothing_back() -> None:
    """Requests until paid are known, months are never."""
    found = costs_of(spec_of(use={"requests_per_month": 0})).break_even[0]
    assert found.requests is not None
    assert (found.months, found.saving_usd_per_month) == (None, 0.0)


def test_the_curves_cross_at_the_break_even() -> None:
    """At the middle point both sides have cost the same, up to one request."""
    costs = costs_of(spec_of(use={"gpu_usd_per_hour": 3.6, "requests_per_month": 1_000}))
    rows = [row for row in curve(costs) if row["option"] == "candidate, this machine"]
    first, middle, last = rows[0], rows[len(rows) // 2], rows[-1]
    found = costs.break_even[0]
    assert middle["requests"] == found.requests
    assert (first["option_usd"], first["against_usd"]) == (3.6, 0.0)
    assert float(str(middle["against_usd"])) - float(str(middle["option_usd"])) == pytest.approx(0.0, abs=found.saving_usd_per_request)
    assert float(str(last["against_usd"])) > float(str(last["option_usd"]))


def test_hosting_without_a_volume_has_no_curve() -> None:
    """Its cost per request is not known."""
    drawn = {row["option"] for row in curve(costs_of(spec_of()))}
    assert "candidate, openai gpt-4.1-mini" in drawn
    assert "candidate, azure gpt-4.1" not in drawn


def test_an_unknown_best_baseline_is_an_error() -> None:
    """With the ones that there are."""
    with pytest.raises(DataError, match=r"'rag'; there are few_shot"):
        costs_of(spec_of(), best="rag")


def test_the_stage_writes_costs_and_the_plots_data(tmp_path: Path) -> None:
    """costs.json is evidence.Costs, break_even.csv the rows of its curve, and a user's prices count."""
    mine = '[price."openai/gpt-4.1-mini"]\ntraining = { amount = 50.0, unit = "1M tokens", source = "openai-tuning" }\n'
    (tmp_path / "mine.toml").write_text(mine, encoding="utf-8")
    spec = spec_of(use={"prices": str(tmp_path / "mine.toml")})
    figures = write_costs(spec, [FEW_SHOT], "few_shot", CANDIDATE, TRAINED, 3_600.0, tmp_path)
    costs = Costs.model_validate_json((tmp_path / "costs.json").read_text())
    assert option(costs, "candidate, openai gpt-4.1-mini").tuning_usd == pytest.approx(100.0)
    with (tmp_path / "break_even.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == CURVE
    assert len(rows) == len(curve(costs))
    assert json.loads(json.dumps(figures))["options"][0]["name"] == "few-shot, this machine"
    assert len(figures["prices_sha256"]) == 64
