"""The estimate of a managed run: every line is a quantity times a price of the list, and nothing is estimated without a price."""

from __future__ import annotations

import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from fixtures_models import write_examples
from fixtures_openai import stand_in
from fixtures_tokenizer import write_tokenizer

from prooftune.data.lines import read_lines
from prooftune.economics.billable import billable_tokens, openai_tokens
from prooftune.economics.managed import (
    HOSTING_HOURS,
    Estimate,
    Line,
    beyond_limit,
    check_limit,
    estimate_managed,
    hosting_usd_per_hour,
    price_of,
    training_meter,
)
from prooftune.economics.prices import PriceList, load_prices
from prooftune.economics.spending import BudgetExceeded
from prooftune.errors import SpecError
from prooftune.evaluation.answers.api_answerer import ROOM_TO_THINK
from prooftune.evaluation.general.asking import LETTER_TOKENS, as_prompt
from prooftune.evaluation.general.items import load_questions
from prooftune.providers.bedrock_chat import BATCH_MIN
from prooftune.providers.tuning import Files
from prooftune.spec import Hyperparameters, RunSpec, parse_spec
from prooftune.training.encoding import with_system
from prooftune.types import Example, SplitName

TODAY = date(2026, 11, 26)
SIZES: dict[SplitName, int] = {"train": 20, "validation": 6, "holdout": 10}
NEEDED: dict[str, dict[str, Any]] = {
    "openai": {},
    "azure": {"base_url": "https://mine.openai.azure.com/openai/v1", "resource": "/subscriptions/s/accounts/mine"},
    "bedrock": {"region": "us-east-1", "bucket": "s3://b", "role_arn": "arn:aws:iam::1:role/r"},
    "vertex": {"project": "p", "region": "us-central1", "bucket": "gs://b"},
    "together": {},
    "fireworks": {"project": "me"},
}
MODELS = {
    "openai": "gpt-4.1-mini-2025-04-14",
    "azure": "gpt-4.1-2025-04-14",
    "bedrock": "amazon.nova-micro-v1:0:128k",
    "vertex": "gemini-2.5-flash",
    "together": "Qwen/Qwen3.5-9B",
    "fireworks": "accounts/fireworks/models/llama-v3p1-8b-instruct",
}


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[SplitName, Path]:
    """Three splits."""
    folder = tmp_path_factory.mktemp("splits")
    return {name: write_examples(folder / f"{name}.jsonl", count, seed) for seed, (name, count) in enumerate(SIZES.items())}


def spec_of(provider: str = "openai", model: str | None = None, objective: str = "supervised", **blocks: Any) -> RunSpec:
    """A managed run."""
    backend = {"provider": provider, "model": model or MODELS[provider], "objective": objective}
    options = NEEDED[provider] | blocks.pop("options", {})
    base = {"name": "x", "data": {"source": "x.jsonl"}, "task": {"system": "Shout."}, "backend": backend, "provider": options}
    return parse_spec(base | {"general": {"suite": "none"}} | blocks)


def prices_with(folder: Path, text: str = "") -> PriceList:
    """The shipped list with prompts on Fireworks priced, and ``text`` behind it."""
    path = folder / "prices.toml"
    head = '[source.mine]\nname = "contract"\nchecked = 2026-11-01\n'
    fireworks = '[price."fireworks/model-up-to-16b"]\n' + "".join(
        f'{meter} = {{ amount = 0.2, unit = "1M tokens", source = "mine" }}\n' for meter in ("input", "output")
    )
    path.write_text(head + fireworks + text, encoding="utf-8")
    return load_prices(path, TODAY)


def lines_of(estimate: Estimate) -> dict[str, Line]:
    """The lines by what they are for."""
    return {line.what: line for line in estimate.lines}


@pytest.mark.parametrize("provider", NEEDED)
def test_every_line_is_a_quantity_times_a_price_and_the_total_is_their_sum(
    provider: str, splits: dict[SplitName, Path], tmp_path: Path
) -> None:
    """For every provider, with a source and its day in each line."""
    estimate = estimate_managed(spec_of(provider), splits, prices_with(tmp_path))
    assert all(line.usd == pytest.approx(line.quantity * line.usd_per_unit) for line in estimate.lines)
    assert all(line.source and date.fromisoformat(line.checked) <= TODAY for line in estimate.lines)
    assert estimate.usd == pytest.approx(sum(line.usd for line in estimate.lines), abs=1e-6)
    assert lines_of(estimate)["training"].quantity == estimate.training_tokens
    assert Estimate.model_validate_json(estimate.model_dump_json()) == estimate


def test_training_is_exact_tokens_times_epochs_times_price(splits: dict[SplitName, Path]) -> None:
    """Counted row by row with the system message in each, at 5 USD a million."""
    estimate = estimate_managed(spec_of(options={"hyperparameters": {"epochs": 4}}), splits, load_prices(None, TODAY))
    epoch = sum(openai_tokens(with_system(row.messages, "Shout.")) for row in read_lines(splits["train"], Example))
    assert estimate.exact
    assert estimate.training_tokens == 4 * epoch
    assert lines_of(estimate)["training"].usd == pytest.approx(4 * epoch * 5 / 1e6)
    assert (estimate.offer, lines_of(estimate)["training"].unit) == ("openai/gpt-4.1-mini", "tokens")


def test_the_estimate_is_the_stand_ins_bill_to_the_token(
    splits: dict[SplitName, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job over the same rows at OpenAI's stand-in, which counts by itself, bills what was estimated."""
    with stand_in(tmp_path, monkeypatch) as openai:
        rows = tmp_path / "rows.jsonl"
        openai.tuner.write_rows(splits["train"], "Shout.", "supervised", rows)
        order = openai.order(rows, hyperparameters=Hyperparameters(epochs=3))
        files = Files(train=openai.tuner.upload(rows, order.key, "train"))
        job = openai.tuner.create(order, files)
        deadline = time.monotonic() + 20
        while not job.ended and time.monotonic() < deadline:
            time.sleep(0.05)
            job = openai.tuner.job(job.id)
    assert job.billed_tokens == estimate_managed(spec_of(), splits, load_prices(None, TODAY)).training_tokens


def test_evaluation_counts_prompts_exactly_and_answers_as_long_as_the_task_has_them(splits: dict[SplitName, Path]) -> None:
    """Zero-shot and the candidate read what they are asked; each answer has the tokens that the task says."""
    spec = spec_of(baseline={"ladder": ["zero_shot"]}, task={"system": "Shout.", "max_answer_tokens": 7})
    lines = lines_of(estimate_managed(spec, splits, load_prices(None, TODAY)))
    asked = sum(openai_tokens(with_system(row.prompt, "Shout.")) for row in read_lines(splits["holdout"], Example))
    assert lines["baselines, read"].quantity == lines["candidate, read"].quantity == asked
    assert lines["baselines, written"].quantity == lines["candidate, written"].quantity == 7 * SIZES["holdout"]
    assert lines["baselines, read"].usd == pytest.approx(asked * 0.40 / 1e6)
    assert lines["candidate, written"].usd == pytest.approx(7 * SIZES["holdout"] * 3.20 / 1e6)
    assert "baselines, looking for prompts, read" not in lines


def test_answers_as_long_as_their_requests_allow_are_told_beside_the_estimate(splits: dict[SplitName, Path]) -> None:
    """By hand: the tokens that a request is sent with, for each answer of two rungs and the candidate; a limit below warns of them."""
    spec = spec_of(baseline={"ladder": ["zero_shot", "rag"], "documents": "x.txt", "choose_on": 0})
    estimate = estimate_managed(spec, splits, load_prices(None, TODAY))
    lines = lines_of(estimate)
    written = sum(line.usd for what, line in lines.items() if what.endswith("written"))
    longest = ROOM_TO_THINK * SIZES["holdout"] * (2 * 1.60 + 3.20) / 1e6
    assert estimate.longest_usd == pytest.approx(estimate.usd - written + longest)
    limit = (estimate.usd + estimate.longest_usd) / 2
    between = spec_of(budget={"max_usd": limit})
    check_limit(between, estimate)
    assert f"would cost ${estimate.longest_usd:,.2f}, above budget.max_usd" in beyond_limit(between, estimate)
    assert beyond_limit(spec_of(budget={"max_usd": estimate.longest_usd}), estimate) == ""


def test_more_rungs_cost_more_and_demonstrations_are_counted(splits: dict[SplitName, Path]) -> None:
    """Each further rung adds to what is read; choosing among demonstrations is a line of its own, and never through a batch."""
    prices, read = load_prices(None, TODAY), []
    for ladder in (["zero_shot"], ["zero_shot", "few_shot"], ["zero_shot", "few_shot", "retrieved", "optimised"]):
        estimate = estimate_managed(spec_of(baseline={"ladder": ladder}, options={"batch": True}), splits, prices)
        read.append(sum(line.quantity for line in estimate.lines if line.what.startswith("baselines")))
    assert read == sorted(set(read))
    assert "baselines, looking for prompts, read" in lines_of(estimate)


def test_a_batch_halves_what_it_asks(splits: dict[SplitName, Path]) -> None:
    """The same tokens at half the price; training and the search for prompts cost what they did."""
    prices = load_prices(None, TODAY)
    whole = lines_of(estimate_managed(spec_of(), splits, prices))
    half = lines_of(estimate_managed(spec_of(options={"batch": True}), splits, prices))
    assert half["candidate, read, by batch"].usd == pytest.approx(whole["candidate, read"].usd / 2)
    assert half["candidate, read, by batch"].quantity == whole["candidate, read"].quantity
    assert half["training"] == whole["training"]
    assert half["baselines, looking for prompts, read"] == whole["baselines, looking for prompts, read"]


def test_what_is_deployed_is_estimated_at_the_full_price(splits: dict[SplitName, Path], tmp_path: Path) -> None:
    """It is asked directly, also where the base model goes through a batch, and the estimate says so."""
    estimate = estimate_managed(spec_of("azure", options={"batch": True}), splits, prices_with(tmp_path))
    lines = lines_of(estimate)
    assert {"candidate, read", "baselines, read, by batch"} <= lines.keys()
    assert "candidate, read, by batch" not in lines
    assert any("asked directly, at the full price" in one for one in estimate.warnings)
    prices = load_prices(None, date(2026, 3, 2))
    assert estimate_managed(spec_of(options={"batch": True}), splits, prices).warnings == ()


@pytest.mark.parametrize(("tier", "batched"), [("standard", False), ("global_standard", True), ("developer", True)])
def test_azure_batches_nothing_that_must_stay_in_the_region(
    tier: str, batched: bool, splits: dict[SplitName, Path], tmp_path: Path
) -> None:
    """At tier standard the base model is estimated at the full price, as it is asked, and the estimate says why."""
    spec = spec_of("azure", options={"batch": True, "tier": tier}, baseline={"ladder": ["zero_shot"]})
    estimate = estimate_managed(spec, splits, prices_with(tmp_path))
    assert {"baselines, read, by batch": batched, "baselines, read": not batched}.items() == {
        name: name in lines_of(estimate) for name in ("baselines, read, by batch", "baselines, read")
    }.items()
    assert any("provider.tier: standard keeps data" in one for one in estimate.warnings) != batched


@pytest.mark.parametrize(
    ("provider", "tier", "usd"),
    [("azure", "standard", 1.70), ("azure", "global_standard", 1.70), ("azure", "developer", 0.0), ("openai", "developer", None)],
)
def test_a_lease_tells_what_an_hour_costs(provider: str, tier: str, usd: float | None) -> None:
    """Azure's developer tier costs nothing by the hour; elsewhere the tier says nothing."""
    assert hosting_usd_per_hour(spec_of(provider, options={"tier": tier})) == usd


@pytest.mark.parametrize(("count", "batched"), [(BATCH_MIN, True), (BATCH_MIN - 1, False)])
def test_bedrock_batches_base_models_alone(count: int, batched: bool, splits: dict[SplitName, Path], tmp_path: Path) -> None:
    """And from a hundred questions on; everything else is asked at the full price, and estimated at it."""
    many = splits | {"holdout": write_examples(tmp_path / "many.jsonl", count, 3)}
    spec = spec_of("bedrock", baseline={"ladder": ["zero_shot"]}, options={"batch": True})
    lines = lines_of(estimate_managed(spec, many, load_prices(None, TODAY)))
    assert ("baselines, read, by batch" in lines, "candidate, read" in lines) == (batched, True)


def test_the_general_suite_is_asked_of_both_models(splits: dict[SplitName, Path]) -> None:
    """Its questions are counted as they are put."""
    prices = load_prices(None, TODAY)
    without, with_it = (lines_of(estimate_managed(spec_of(general={"suite": suite}), splits, prices)) for suite in ("none", "shipped"))
    questions = load_questions()
    more = sum(openai_tokens(as_prompt(question)) for question in questions)
    for who in ("baselines", "candidate"):
        assert with_it[f"{who}, read"].quantity - without[f"{who}, read"].quantity == more
        assert with_it[f"{who}, written"].quantity - without[f"{who}, written"].quantity == LETTER_TOKENS * len(questions)


def test_a_deployment_is_paid_for_while_it_is_evaluated(splits: dict[SplitName, Path], tmp_path: Path) -> None:
    """By the hour, for a stored model by the month, on Azure's developer tier not at all; where the hour pays for tokens they are free."""
    prices = prices_with(tmp_path)
    azure = lines_of(estimate_managed(spec_of("azure"), splits, prices))
    assert azure["hosting, for the evaluation"].usd == pytest.approx(HOSTING_HOURS * 1.70)
    assert azure["candidate, read"].usd > 0
    developer = estimate_managed(spec_of("azure", options={"tier": "developer"}), splits, prices)
    assert not [what for what in lines_of(developer) if what.startswith("hosting")]
    assert lines_of(estimate_managed(spec_of("bedrock"), splits, prices))["hosting, first month"].usd == pytest.approx(1.95)
    together = lines_of(estimate_managed(spec_of("together"), splits, prices))
    assert together["hosting, for the evaluation"].usd == pytest.approx(HOSTING_HOURS * 3.99)
    assert not [what for what in together if what.startswith("candidate")]
    assert price_of(prices, "together/qwen3.5-9b", "tuned_input") == 0.0
    assert "hosting" not in str(lines_of(estimate_managed(spec_of("openai"), splits, prices)))


def test_together_bills_the_validation_file_as_well(splits: dict[SplitName, Path], tmp_path: Path) -> None:
    """Once an epoch, as the adapter orders it; the tokenizer makes the count exact."""
    folder = write_tokenizer(tmp_path / "tokenizer")
    spec = spec_of("together", options={"tokenizer": str(folder), "hyperparameters": {"epochs": 2}})
    estimate = estimate_managed(spec, splits, load_prices(None, TODAY))
    epoch = [
        billable_tokens("together", "m", read_lines(splits[name], Example), "Shout.", folder).tokens for name in ("train", "validation")
    ]
    assert estimate.exact
    assert estimate.training_tokens == 2 * sum(epoch)


def test_an_estimate_that_is_not_exact_says_why(splits: dict[SplitName, Path], tmp_path: Path) -> None:
    """No tokenizer is published, or it could be named."""
    vertex = estimate_managed(spec_of("vertex"), splits, prices_with(tmp_path))
    assert not vertex.exact
    assert any("vertex publishes no tokenizer of gemini-2.5-flash" in warning for warning in vertex.warnings)
    fireworks = estimate_managed(spec_of("fireworks"), splits, prices_with(tmp_path))
    assert any("provider.tokenizer" in warning for warning in fireworks.warnings)
    assert not [one for one in estimate_managed(spec_of(), splits, load_prices(None, TODAY)).warnings if "tokenizer" in one]


def test_a_count_that_its_own_tokenizer_does_not_make_exact_says_why(splits: dict[SplitName, Path], tmp_path: Path) -> None:
    """Nobody knows what Bedrock bills for a row of prompt and completion, whatever tokenizer is named."""
    meters = {"training": "1M tokens", "input": "1M tokens", "output": "1M tokens", "hosting": "hour"}
    lines = [f'{meter} = {{ amount = 1.0, unit = "{unit}", source = "mine" }}' for meter, unit in meters.items()]
    prices = prices_with(tmp_path, '[price."bedrock/llama3-1-8b"]\n' + "\n".join(lines) + "\n")
    options = {"tokenizer": str(write_tokenizer(tmp_path / "tokenizer"))}
    found = estimate_managed(spec_of("bedrock", "meta.llama3-1-8b-instruct-v1:0:128k", options=options), splits, prices)
    assert not found.exact
    assert any("Bedrock does not publish" in warning for warning in found.warnings)


def test_old_prices_are_warned_of(splits: dict[SplitName, Path]) -> None:
    """Only those that the estimate rests on count."""
    assert any("(270 days)" in one for one in estimate_managed(spec_of(), splits, load_prices(None, TODAY)).warnings)
    fresh = estimate_managed(spec_of(), splits, load_prices(None, date(2026, 3, 2)))
    assert fresh.warnings == ()


@pytest.mark.parametrize(
    ("provider", "model", "objective", "missing"),
    [
        pytest.param("openai", "gpt-4.1-nano-2025-04-14", "supervised", "openai/gpt-4.1-nano-2025-04-14", id="no entry"),
        pytest.param("fireworks", MODELS["fireworks"], "supervised", "fireworks/model-up-to-16b, input", id="no price of prompts"),
        pytest.param("together", MODELS["together"], "preference", "together/qwen3.5-9b, training_preference", id="no price of DPO"),
        pytest.param("openai", "gpt-5-mini", "supervised", "openai/gpt-5-mini, training", id="not tuned there"),
    ],
)
def test_without_a_price_there_is_no_estimate(
    provider: str, model: str, objective: str, missing: str, splits: dict[SplitName, Path]
) -> None:
    """The message says which price to add, and where."""
    with pytest.raises(SpecError) as caught:
        estimate_managed(spec_of(provider, model, objective), splits, load_prices(None, TODAY))
    assert missing in str(caught.value)
    assert "use.prices" in str(caught.value)


def test_a_preference_tuning_has_its_own_price_where_the_provider_asks_one(splits: dict[SplitName, Path], tmp_path: Path) -> None:
    """Fireworks doubles it; OpenAI asks the same for both."""
    prices = prices_with(tmp_path)
    line = lines_of(estimate_managed(spec_of("fireworks", objective="preference"), splits, prices))["training"]
    assert line.usd_per_unit == pytest.approx(1.00 / 1e6)
    assert training_meter(spec_of("openai", objective="preference")) == "training"


def test_judge_and_larger_model_are_part_of_it(splits: dict[SplitName, Path]) -> None:
    """By their own prices; a judge on a server of the user's without a price is warned of, one at its provider's is refused."""
    prices, larger = load_prices(None, TODAY), {"provider": "openai", "model": "gpt-5.4"}
    spec = spec_of(baseline={"ladder": ["zero_shot", "larger_model"], "larger": larger}, judge={"model": "gpt-5-mini"})
    lines = lines_of(estimate_managed(spec, splits, prices))
    assert lines["larger model, read"].usd_per_unit == pytest.approx(2.50 / 1e6)
    assert lines["judge, written"].usd_per_unit == pytest.approx(2.00 / 1e6)
    own = estimate_managed(spec_of(judge={"model": "mine", "base_url": "http://127.0.0.1:1/v1"}), splits, prices)
    assert any("judge openai/mine" in warning for warning in own.warnings)
    with pytest.raises(SpecError, match="openai/mine, input"):
        estimate_managed(spec_of(judge={"model": "mine"}), splits, prices)


def test_baselines_on_this_machine_cost_nothing_there(splits: dict[SplitName, Path]) -> None:
    """With baseline.model set, the provider is asked for the candidate alone."""
    lines = lines_of(estimate_managed(spec_of(baseline={"model": "smollm2-135m-instruct"}), splits, load_prices(None, TODAY)))
    assert set(lines) == {"training", "candidate, read", "candidate, written"}


def test_an_estimate_above_the_limit_is_refused_with_both_amounts(splits: dict[SplitName, Path]) -> None:
    """And one at the limit is not."""
    estimate = estimate_managed(spec_of(), splits, load_prices(None, TODAY))
    check_limit(spec_of(budget={"max_usd": estimate.usd}), estimate)
    with pytest.raises(BudgetExceeded, match=r"budget\.max_usd is \$0\.00; nothing was uploaded"):
        check_limit(spec_of(budget={"max_usd": 0}), estimate)


def test_a_reinforcement_tuning_without_a_price_is_refused_with_what_to_add(splits: dict[SplitName, Path]) -> None:
    """Google publishes no price of Gemini 3.5's: nobody can say what it would cost until one is given."""
    grader = {"type": "string_check"}
    spec = spec_of("vertex", "gemini-3.5-flash", objective="reinforcement", options={"grader": grader})
    with pytest.raises(SpecError, match=r"vertex/gemini-3\.5-flash.*use\.prices"):
        estimate_managed(spec, splits, load_prices(None, TODAY))


def test_a_reinforcement_tuning_has_no_bound(splits: dict[SplitName, Path]) -> None:
    """What it generates is not known beforehand, and the estimate says so."""
    spec = spec_of(objective="reinforcement", options={"grader": {"type": "string_check"}})
    assert any("no bound" in warning for warning in estimate_managed(spec, splits, load_prices(None, TODAY)).warnings)
