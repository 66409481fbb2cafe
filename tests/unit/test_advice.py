"""Advice before training: each rule on both sides of its threshold, the recommendations' table, and the stage's function."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests_support import toy_rows

from prooftune.data.lines import write_lines
from prooftune.economics.estimate import DEMO_SIZE
from prooftune.economics.machine import Machine
from prooftune.economics.prices import load_prices
from prooftune.evaluation.advice import Case, advise, parameters_of, weigh
from prooftune.evaluation.advice.diversity import diversity_of
from prooftune.evaluation.advice.findings import LOW_DIVERSITY, RULES, power
from prooftune.evaluation.advice.recommendation import needs_gb, recommend
from prooftune.evaluation.gate import worth_training
from prooftune.evidence import AdviceFinding
from prooftune.spec import Backend, RunSpec, parse_spec
from prooftune.types import Decision, Evaluation, Example, Message, Metric

PRICES = load_prices(None, date(2026, 11, 22))
CPU = Machine(cuda=False, name="CPU", threads=2, memory_gb=8.0)
GPU = Machine(cuda=True, name="NVIDIA L4", threads=8, memory_gb=24.0)
DATA = {"valid": 1_000, "kept": 1_000, "findings": {}}
TOKENS = {"train": {"examples": 700, "total": 70_000}, "holdout": {"examples": 200, "total": 20_000}}


def spec_of(**blocks: Any) -> RunSpec:
    """A spec with these blocks."""
    return parse_spec({"name": "advice", "data": {"source": "x.jsonl"}} | blocks)


def rung(name: str, value: float, *, prompt: float = 980, answer: float = 20, seconds: float = 200, n: int = 200) -> Evaluation:
    """A baseline that answered 200 held-out examples on this machine, at 1,000 tokens a second."""
    return Evaluation(
        name=name,
        description="",
        metrics={"exact_match": Metric(name="exact_match", value=value, ci_low=value - 0.05, ci_high=value + 0.05, n=n)},
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


def case_of(spec: RunSpec | None = None, **changes: Any) -> Case:
    """A case for which nothing speaks against training, with these changes."""
    usual = Case(
        spec=spec or spec_of(),
        n_train=700,
        n_holdout=500,
        data=DATA,
        tokens=TOKENS,
        baselines=(rung("few_shot", 0.6),),
        diversity=0.5,
        machine=CPU,
        parameters=DEMO_SIZE.parameters,
        prices=PRICES,
    )
    return replace(usual, **changes)


def all_found(case: Case) -> list[AdviceFinding]:
    """Every finding but that on power, which takes longer than all others."""
    return [one for rule in RULES if rule is not power for one in rule(case)]


def found(case: Case, topic: str) -> AdviceFinding:
    """The finding on a topic."""
    [finding] = [one for one in (power(case) if topic == "power" else all_found(case)) if one.topic == topic]
    return finding


def topics(case: Case) -> set[str]:
    """Topics that something was found on."""
    return {one.topic for one in all_found(case)}


def decided(case: Case) -> Decision | None:
    """The decision that ends the run."""
    return worth_training(case.n_train, case.n_holdout, case.baselines, case.spec)


def recommended(case: Case) -> str:
    """The recommendation."""
    return recommend(case, decided(case))[0]


@pytest.mark.parametrize(
    ("n", "speaks", "stops"),
    [
        (19, "against", True),
        (20, "against", False),
        (49, "against", False),
        (50, "neutral", False),
        (99, "neutral", False),
        (100, "for", False),
        (499, "for", False),
        (500, "for", False),
    ],
)
def test_examples(n: int, speaks: str, stops: bool) -> None:
    """50, 100 and 500 are the guides' thresholds; fewer than data.min_examples ends the run."""
    finding = found(case_of(spec_of(data={"source": "x", "min_examples": 20}), n_train=n), "examples")
    assert (finding.speaks, finding.stops) == (speaks, stops)
    assert finding.figure == f"{n} training examples"
    assert ("from 500 on" in finding.text) is (100 <= n < 500)


@pytest.mark.parametrize(("n", "stops"), [(29, True), (30, False)])
def test_holdout(n: int, stops: bool) -> None:
    """Fewer than gate.min_holdout end the run."""
    case = case_of(n_holdout=n)
    assert ("holdout" in topics(case)) is stops
    assert (decided(case) is not None) is stops


@pytest.mark.parametrize(("value", "speaks"), [(LOW_DIVERSITY - 0.01, "against"), (LOW_DIVERSITY, "for")])
def test_diversity(value: float, speaks: str) -> None:
    """Prompts that are nearly copies speak against training."""
    assert found(case_of(diversity=value), "diversity").speaks == speaks
    assert "diversity" not in topics(case_of(diversity=None))


@pytest.mark.parametrize(("count", "speaks"), [(0, "for"), (40, "neutral"), (41, "against")])
def test_contradictions(count: int, speaks: str) -> None:
    """Of 1,000 examples, 40 that contradict each other cost 2 points, as many as gate.min_effect looks for."""
    case = case_of(data=DATA | {"findings": {"contradiction": {"dropped": count}}})
    assert found(case, "contradictions").speaks == speaks


def test_contradictions_are_a_share_of_distinct_examples() -> None:
    """Copies were dropped before contradictions were looked for."""
    findings = {"exact-duplicate": {"dropped": 600}, "contradiction": {"kept": 30, "dropped": 10}}
    assert case_of(data=DATA | {"findings": findings}).contradicting == pytest.approx(0.1)


@pytest.mark.parametrize(("value", "speaks"), [(0.949, "for"), (0.95, "against")])
def test_baseline(value: float, speaks: str) -> None:
    """A prompt that reaches task.target ends the run."""
    case = case_of(baselines=(rung("zero_shot", 0.1), rung("few_shot", value)))
    finding, decision = found(case, "baseline"), decided(case)
    assert finding.speaks == speaks
    assert finding.stops is (decision is not None) is (speaks == "against")
    assert finding.figure.startswith(f"few_shot: exact_match {value:.3f}")


@pytest.mark.parametrize(("n", "speaks"), [(30, "against"), (500, "neutral")])
def test_power(n: int, speaks: str) -> None:
    """With 30 examples not even the way from 0.80 to task.target 0.95 could be seen."""
    finding = found(case_of(n_holdout=n, baselines=(rung("few_shot", 0.8),)), "power")
    assert finding.speaks == speaks
    assert finding.text.startswith(f"With {n} holdout examples you can")
    assert finding.figure == f"{n} held-out examples, 15.0 points to task.target"


def test_power_is_not_asked_for_where_no_gain_is_missing() -> None:
    """A baseline at the target, or above it, leaves nothing to see."""
    assert list(power(case_of(baselines=(rung("few_shot", 0.95),)))) == []
    assert list(power(case_of(baselines=(rung("few_shot", 1.0),)))) == []


@pytest.mark.parametrize(
    ("parameters", "size"),
    [(85_000, "85,000"), (100_000, "0.1M"), (1_240_000, "1.2M"), (134_515_008, "135M"), (7_000_000_000, "7,000M")],
)
def test_small_models_have_a_size_too(parameters: int, size: str) -> None:
    """No model has 0M parameters."""
    case = case_of(machine=GPU, parameters=parameters, baselines=())
    assert f"{size} parameters" in recommend(case, decided(case))[1]


def test_power_before_a_baseline_has_run_says_what_it_supposes() -> None:
    """Half right, where gains are hardest to see."""
    assert "No baseline has run yet; this supposes one at 0.5" in found(case_of(baselines=()), "power").text


@pytest.mark.parametrize(("lacks", "speaks"), [("facts", "against"), ("reasoning", "against"), ("behaviour", "for")])
def test_lacks(lacks: str, speaks: str) -> None:
    """Tuning teaches behaviour; facts and reasoning are advice, never a stop."""
    case = case_of(spec_of(use={"lacks": lacks}))
    assert (found(case, "lacks").speaks, found(case, "lacks").stops, decided(case)) == (speaks, False, None)
    assert "lacks" not in topics(case_of())


@pytest.mark.parametrize(("days", "speaks"), [(29, "against"), (30, "neutral")])
def test_stability(days: float, speaks: str) -> None:
    """Answers that change faster than monthly outrun training, whose time is named."""
    finding = found(case_of(spec_of(use={"answers_change_every_days": days})), "stability")
    assert finding.speaks == speaks
    assert finding.figure == f"answers change every {days} days"
    assert "Training takes about 7 minutes" in finding.text
    assert "stability" not in topics(case_of())


def test_training_time_follows_the_measured_speed() -> None:
    """140,000 tokens over two epochs, at three forward passes a token and 1,000 tokens a second; the slowest rung counts."""
    assert case_of().training_hours == pytest.approx(140_000 * 3 / 1_000 / 3_600)
    slow = rung("zero_shot", 0.1, seconds=400)
    assert case_of(baselines=(rung("few_shot", 0.6), slow)).training_hours == pytest.approx(140_000 * 3 / 500 / 3_600)


def test_training_time_before_a_baseline_has_run() -> None:
    """From the measured run of the demo model on CPU; on a GPU, or for a model that is not here, it is not known."""
    hours = case_of(baselines=()).training_hours
    assert hours == pytest.approx(140_000 / 100 / 3_600)
    assert case_of(baselines=(), parameters=10 * DEMO_SIZE.parameters).training_hours == pytest.approx(10 * 140_000 / 100 / 3_600)
    assert case_of(baselines=(), machine=GPU).training_hours is None
    assert case_of(baselines=(), parameters=None).training_hours is None


def volume_case(requests: int | None, **use: Any) -> Case:
    """A wrong answer costs 1 USD and training, which takes 7 minutes, 42 USD: at best 0.35 USD a request are saved, 120 requests pay."""
    money = {"minutes_per_wrong_answer": 1, "usd_per_hour_of_work": 60, "gpu_usd_per_hour": 360, "hosting_hours_per_month": 700}
    return case_of(spec_of(use={"requests_per_month": requests, **money, **use}))


@pytest.mark.parametrize(("requests", "speaks"), [(9, "against"), (10, "for"), (0, "against")])
def test_volume(requests: int, speaks: str) -> None:
    """120 requests until it pays are a year at 10 a month."""
    finding = found(volume_case(requests), "volume")
    assert (finding.speaks, finding.figure) == (speaks, f"{requests} requests a month")
    assert "tuning costs about 42 USD and saves at most 0.35 USD a request" in finding.text


def test_a_volume_alone_speaks_neither_way() -> None:
    """Where better answers have no price, what shorter prompts save is said, and decides nothing."""
    case = volume_case(1, minutes_per_wrong_answer=0)
    assert found(case, "volume").speaks == "neutral"
    assert "better answers are worth nothing in this" in found(case, "volume").text
    assert recommended(case) == "lora"


def test_shorter_prompts_count_in_the_plan() -> None:
    """Of 1,000 tokens a request 100 are left: nine tenths of a second at 360 USD an hour."""
    plan = volume_case(1_000, hosting_hours_per_month=None, minutes_per_wrong_answer=0).plan()
    assert plan is not None
    assert plan.saving_usd_per_request == pytest.approx(0.9 * 0.1)


def test_volume_without_what_it_takes() -> None:
    """No volume, no finding; no baseline on this machine, no estimate."""
    assert "volume" not in topics(volume_case(None))
    assert found(replace(volume_case(10), baselines=()), "volume").speaks == "neutral"
    assert found(replace(volume_case(10), baselines=(rung("larger_model", 0.7),)), "volume").speaks == "neutral"


@pytest.mark.parametrize(
    ("blocks", "speaks"),
    [
        pytest.param({}, "neutral", id="local"),
        pytest.param({"judge": {"model": "gpt-5.4"}}, "against", id="judge"),
        pytest.param({"judge": {"model": "m", "base_url": "http://127.0.0.1:8000"}}, "neutral", id="judge of one's own"),
        pytest.param(
            {"baseline": {"ladder": ["larger_model"], "larger": {"provider": "anthropic", "model": "m"}}}, "against", id="larger model"
        ),
        pytest.param({"baseline": {"larger": {"provider": "anthropic", "model": "m"}}}, "neutral", id="larger model not on the ladder"),
    ],
)
def test_residency(blocks: dict[str, Any], speaks: str) -> None:
    """What leaves this machine must go where a source says it stays in the region."""
    finding = found(case_of(spec_of(data={"source": "x", "residency": "eu"}, **blocks)), "residency")
    assert (finding.speaks, finding.figure) == (speaks, "data.residency: eu")
    if speaks == "neutral":
        assert "azure, vertex can be confined to eu" in finding.text
    assert "residency" not in topics(case_of())


def test_regulated_use_needs_the_technical_file_and_oversight() -> None:
    """It is told, and stops nothing."""
    case = case_of(spec_of(use={"regulated": "EU AI Act, Annex III, employment"}))
    finding = found(case, "regulated")
    assert (finding.speaks, finding.figure, decided(case)) == ("neutral", "EU AI Act, Annex III, employment", None)
    assert "technical file" in finding.text
    assert "oversee" in finding.text
    assert "regulated" not in topics(case_of())


def test_every_finding_has_a_figure() -> None:
    """Nothing is said without what it rests on."""
    use = {"lacks": "behaviour", "answers_change_every_days": 90, "requests_per_month": 10, "regulated": "yes"}
    advice, _ = weigh(case_of(spec_of(use=use, data={"source": "x", "residency": "eu"})))
    assert len(advice.findings) == len(RULES)
    assert all(any(letter.isdigit() for letter in one.figure) or ":" in one.figure or one.topic == "regulated" for one in advice.findings)


BIG = 7_000_000_000
EU = {"data": {"source": "x", "residency": "mars"}}


@pytest.mark.parametrize(
    ("blocks", "changes", "expected"),
    [
        pytest.param({}, {"baselines": (rung("zero_shot", 0.96),)}, "prompt", id="a prompt is enough"),
        pytest.param({}, {"baselines": (rung("zero_shot", 0.9), rung("optimised", 0.96))}, "prompt", id="an optimised prompt is enough"),
        pytest.param({}, {"baselines": (rung("few_shot", 0.95), rung("rag", 0.99))}, "few_shot", id="the first that is enough"),
        pytest.param({}, {"baselines": (rung("retrieved", 0.96),)}, "few_shot", id="retrieved demonstrations are enough"),
        pytest.param({}, {"baselines": (rung("rag", 0.96),)}, "rag", id="documents are enough"),
        pytest.param({}, {"baselines": (rung("larger_model", 0.96),)}, "larger_model", id="a larger model is enough"),
        pytest.param({}, {"n_train": 49}, "collect_data", id="too few to train"),
        pytest.param({}, {"n_holdout": 29}, "collect_data", id="too few to judge"),
        pytest.param({"use": {"lacks": "facts"}}, {}, "rag", id="facts"),
        pytest.param({"use": {"answers_change_every_days": 7}}, {}, "rag", id="answers change weekly"),
        pytest.param({"use": {"lacks": "reasoning"}}, {}, "larger_model", id="reasoning"),
        pytest.param({"data": {"source": "x", "min_examples": 10}}, {"n_train": 40}, "few_shot", id="few examples"),
        pytest.param({}, {"data": DATA | {"findings": {"contradiction": {"kept": 110}}}}, "collect_data", id="contradictions"),
        pytest.param({}, {"data": DATA | {"findings": {"contradiction": {"kept": 90}}}}, "lora", id="bearable contradictions"),
        pytest.param({}, {}, "lora", id="the demo on CPU"),
        pytest.param({}, {"baselines": ()}, "lora", id="before a model has run"),
        pytest.param({"use": {"lacks": "behaviour"}}, {"machine": GPU, "parameters": BIG}, "lora", id="7B on 24 GB"),
        pytest.param({}, {"machine": GPU, "parameters": 2 * BIG}, "qlora", id="14B on 24 GB"),
        pytest.param({}, {"machine": GPU, "parameters": 10 * BIG}, "managed", id="70B on 24 GB"),
        pytest.param(EU, {"machine": GPU, "parameters": 10 * BIG}, "qlora", id="70B and no provider allowed"),
        pytest.param({}, {"n_train": 100_000}, "full", id="many examples"),
        pytest.param({}, {"n_train": 99_999}, "lora", id="not quite as many"),
        pytest.param({}, {"n_train": 100_000, "machine": GPU, "parameters": BIG}, "lora", id="many, but all weights do not fit"),
        pytest.param({}, {"baselines": (), "parameters": 100 * DEMO_SIZE.parameters}, "managed", id="days of CPU"),
        pytest.param(EU, {"baselines": (rung("few_shot", 0.6, seconds=1e5),)}, "lora", id="days of CPU and no provider allowed"),
        pytest.param({"backend": {"method": {"kind": "qlora"}}}, {"parameters": None}, "qlora", id="size unknown: the spec's method"),
    ],
)
def test_recommendations(blocks: dict[str, Any], changes: dict[str, Any], expected: str) -> None:
    """The table of the module recommendation, row by row."""
    case = case_of(spec_of(**blocks), **changes)
    recommendation, why = recommend(case, decided(case))
    assert recommendation == expected
    assert why.endswith(".")


def test_a_small_volume_keeps_the_best_prompt() -> None:
    """Where it is not paid back within a year; a request a month more and it is."""
    assert (recommended(volume_case(9)), recommended(volume_case(10))) == ("few_shot", "lora")
    assert recommended(replace(volume_case(9), baselines=(rung("zero_shot", 0.6),))) == "prompt"


def managed(model: str = "gpt-4.1-mini", **blocks: Any) -> RunSpec:
    """A spec whose backend is OpenAI."""
    return spec_of(backend={"provider": "openai", "model": model}, **blocks)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("gpt-4.1-mini", "openai tunes gpt-4.1-mini: 210,000 tokens in 3 epochs cost about 1 USD"),  # 0.21 million at 5 USD
        ("gpt-9", "for which the price list has no price"),
    ],
)
def test_a_managed_backend_is_recommended_with_its_price(model: str, words: str) -> None:
    """And no LoRA on a machine that trains nothing; what speaks against training still does."""
    case = case_of(managed(model), parameters=None, baselines=())
    recommendation, why = recommend(case, None)
    assert recommendation == "managed"
    assert words.replace("about 1 USD", "about 1.1 USD") in why
    assert recommended(replace(case, n_train=10)) == "collect_data"
    assert case.training_hours is None


def test_advice_on_a_managed_backend_speaks_of_the_provider() -> None:
    """Of volume before the tuned model has answered, and of where data go."""
    finding = found(case_of(managed(use={"requests_per_month": 10})), "volume")
    assert "once the tuned model has answered" in finding.text
    eu = {"data": {"source": "x", "residency": "eu"}}
    finding = found(case_of(managed(**eu)), "residency")
    assert finding.speaks == "against"
    assert "openai" in finding.text
    own = managed(**eu, provider={"base_url": "http://127.0.0.1:1/v1"})
    assert found(case_of(own), "residency").speaks == "neutral"
    assert parameters_of(managed().backend) is None


def test_memory_by_method() -> None:
    """7B parameters: 112 GB with all weights, 14 GB in bf16, 3.6 GB in 4 bits; fp32 on CPU is twice bf16."""
    on_gpu, on_cpu = (case_of(machine=machine, parameters=BIG) for machine in (GPU, CPU))
    assert [needs_gb(on_gpu, kind) for kind in ("full", "lora", "qlora")] == pytest.approx([112, 14, 3.611], abs=0.001)
    assert needs_gb(on_cpu, "lora") == pytest.approx(28)


def examples_of(texts: Sequence[str]) -> list[Example]:
    """Examples in the order of their ids, as a split is written."""
    rows = [
        Example(
            id=hashlib.sha256(text.encode()).hexdigest()[:16],
            source="x.jsonl:1",
            messages=(Message(role="user", content=text), Message(role="assistant", content="go")),
        )
        for text in texts
    ]
    return sorted(rows, key=lambda row: row.id)


def test_diversity_tells_templates_from_questions(tmp_path: Path) -> None:
    """One template with names and numbers is far below the threshold, sentences of random words above it, copies at 0."""
    path = tmp_path / "train.jsonl"
    measured = {}
    for name, texts in {
        "template": [
            f"Remind {('Ann', 'Ben', 'Cem')[n % 3]} that invoice {7919 * n % 9000} over {31 * n} euro is due." for n in range(300)
        ],
        "sentences": [row["prompt"] for row in toy_rows(300)],
        "copies": ["where is my card"] * 20,
    }.items():
        write_lines(path, examples_of(texts))
        measured[name] = diversity_of(path)
    assert measured["copies"] == pytest.approx(0.0, abs=1e-9)
    assert measured["template"] < LOW_DIVERSITY - 0.1  # type: ignore[operator]
    assert measured["sentences"] > LOW_DIVERSITY + 0.05  # type: ignore[operator]


@pytest.mark.parametrize("texts", [[], ["one prompt"], [" ", "\n"]])
def test_diversity_needs_two_prompts(tmp_path: Path, texts: list[str]) -> None:
    """Otherwise there is nothing to compare."""
    write_lines(tmp_path / "train.jsonl", examples_of(texts))
    assert diversity_of(tmp_path / "train.jsonl") is None


def test_diversity_of_prompts_too_short_for_a_3_gram(tmp_path: Path) -> None:
    """Single letters can be compared too."""
    write_lines(tmp_path / "train.jsonl", examples_of(["a", "b", "?"]))
    assert diversity_of(tmp_path / "train.jsonl") == pytest.approx(1.0)


def test_the_stage_measures_and_weighs(tmp_path: Path) -> None:
    """From the files and figures that stages hand on, with a list of prices of the user's."""
    write_lines(tmp_path / "train.jsonl", examples_of([row["prompt"] for row in toy_rows(240)]))
    (tmp_path / "prices.toml").write_text("", encoding="utf-8")
    spec = spec_of(use={"prices": str(tmp_path / "prices.toml")})
    counts = {"train": 240, "validation": 20, "holdout": 60}
    advice, decision = advise(spec, tmp_path / "train.jsonl", counts, DATA, TOKENS, [rung("few_shot", 0.6)], CPU)
    assert (advice.recommendation, decision) == ("lora", None)
    assert {"examples", "diversity", "contradictions", "baseline", "power"} <= {one.topic for one in advice.findings}
    stopped, decision = advise(spec, tmp_path / "train.jsonl", counts | {"train": 10}, DATA, TOKENS, (), CPU)
    assert stopped.recommendation == "collect_data"
    assert decision is not None
    assert decision.verdict == "do_not_fine_tune"


def test_the_size_of_the_base_model_is_read_where_it_is_here(tiny_model: Path) -> None:
    """Of the demo model, of a folder; of a hub id only from the cache, and nothing is downloaded."""
    assert parameters_of(Backend()) == DEMO_SIZE.parameters
    assert 10_000 < (parameters_of(Backend(model=str(tiny_model))) or 0) < 10_000_000
    assert parameters_of(Backend(model="nobody/no-such-model")) is None
    assert parameters_of(Backend(model="no such folder")) is None
