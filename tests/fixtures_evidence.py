"""A made-up run that has everything a report can show: seven contestants and all that the gate weighs."""

from __future__ import annotations

import random
from typing import Any

from prooftune.evaluation.ladder.shots import ShotsChoice
from prooftune.evidence import (
    Advice,
    AdviceFinding,
    BreakEven,
    Champion,
    Costs,
    Curve,
    CurvePoint,
    FailureCluster,
    Failures,
    Forgetting,
    General,
    JudgeReport,
    Option,
    Rival,
    Slice,
)
from prooftune.report.reading import Confusion
from prooftune.report.view import RunView
from prooftune.spec import RunSpec
from prooftune.types import Check, Verdict
from tests.fixtures_report import make_view, measured, predicted, value_of

LADDER = {"zero_shot": 0.04, "few_shot": 0.41, "retrieved": 0.52, "optimised": 0.47, "larger_model": 0.49, "rag": 0.12}
CANDIDATES: dict[Verdict, float] = {"promote": 0.72, "keep_baseline": 0.44, "inconclusive": 0.56}
LABELS = [f"{what}_{how}" for what in ("card", "transfer", "refund", "top_up", "exchange") for how in ("pending", "failed", "fee", "limit")]


def make_full_view(verdict: Verdict = "promote", hostile: str = "") -> RunView:
    """Return the view of a run with every rung and every kind of evidence; ``hostile`` stands wherever data or a model can put text."""
    view = make_view(verdict, hostile)
    shares = LADDER | {"candidate": CANDIDATES[verdict]}
    predictions = {name: predicted(name, share, hostile) for name, share in shares.items()}
    before, after = value_of(predictions["retrieved"]), value_of(predictions["candidate"])
    decision = view.decision.model_copy(
        update={
            "baseline": "retrieved",
            "reasons": (f"exact_match {before:.3f} → {after:.3f} (n = 159)", view.decision.reasons[-1].replace("few_shot", "retrieved")),
            "baseline_value": before,
            "candidate_value": after,
            "difference": after - before,
            "ci_low": after - before - 0.0832,
            "ci_high": after - before + 0.0814,
            "checks": _checks(verdict, hostile),
            "alpha": 0.025,
            "look": 2,
        }
    )
    spec = RunSpec.model_validate(
        view.spec.model_dump()
        | {"baseline": {"ladder": list(LADDER), "larger": {"model": "owner/larger-7b"}, "documents": "handbook"}}
        | {"gate": {"looks": 2}, "use": {"requests_per_month": 5000, "regulated": "EU AI Act, Annex III, employment"}}
    )
    figures = {**view.figures, "train": {**view.figures["train"], "overfitting": _overfitting()}}
    return view.model_copy(
        update={
            "spec": spec,
            "decision": decision,
            "evaluations": tuple(measured(name, predictions[name]) for name in shares),
            "predictions": predictions,
            "figures": figures,
            **_evidence(hostile),
        }
    )


def _evidence(hostile: str) -> dict[str, Any]:
    return {
        "confusions": {"retrieved": _confusions(1, hostile), "candidate": _confusions(2, hostile)},
        "choices": {
            "few_shot": ShotsChoice(shots=8, metric="exact_match", scores={1: 0.22, 2: 0.31, 4: 0.36, 8: 0.42, 16: 0.42}, n=50),
            "retrieved": ShotsChoice(shots=8, metric="exact_match", scores={1: 0.38, 2: 0.44, 4: 0.47, 8: 0.53, 16: 0.5}, n=50),
        },
        "slices": _slices(hostile),
        "forgetting": _forgetting(),
        "judge": JudgeReport(
            judge=f"openai gpt-4.1-mini{hostile}",
            rubric="Which answer is more correct and more useful?",
            baseline="retrieved",
            **{"wins": 84, "losses": 31, "ties": 41, "unscored": 4, "contradictions": 17},
            **{"win_rate": 0.67, "ci_low": 0.61, "ci_high": 0.731, "p_value": 8e-7},
            **{"kappa": 0.71, "kappa_n": 60, "prompt_tokens": 90_000, "answer_tokens": 1200, "cost_usd": 0.084},
        ),
        "judged": {f"{index * 7919 + 4096:016x}": ("candidate", "baseline", "tie")[index % 3] for index in range(150)},
        "champion": Champion(run_id="support-triage-20261001-aa12", rivals=(_rival("old"), _rival("new"))),
        "advice": _advice(hostile),
        "costs": _costs(hostile),
        "curve": _curve(),
        "failures": _failures(hostile),
        "labelling": tuple({"cluster": "refund", "wanted": 20, "like": f"{n:016x}"} for n in range(12)),
        "looks": ({"look": 1, "step": 180, "p_value": 0.04, "verdict": "inconclusive"}, {"look": 2, "step": 144, "p_value": 0.001}),
        "lineage": {
            "data": {"source": "a1" * 32, "split": "b2" * 32},
            "code": {"prooftune": "0.2.0", "commit": "f225e6e"},
            "model": {"name": "smollm2-135m-instruct", "sha256": "d4" * 32},
            "spec": "e5" * 32,
        },
    }


def _overfitting() -> dict[str, float]:
    return {"overfit_from_step": 180, "overfit_from_epoch": 1.67, "epochs_past_minimum": 0.33, "loss_at_end": 0.301, "rise": 0.021}


def _checks(verdict: Verdict, hostile: str) -> tuple[Check, ...]:
    return (
        Check(name="slice product=pay", passed=True, text=f"product=pay{hostile} gains 12.1 points (n = 41).", difference=0.121, n=41),
        Check(
            name="forgetting, multiple choice",
            passed=True,
            text="Accuracy on the general suite falls by 1.2 points; 5 are allowed (n = 120).",
            limit=-0.05,
        ),
        Check(
            name="forgetting, perplexity",
            passed=None if verdict == "inconclusive" else True,
            text="Perplexity rises by 3.1 %, and by up to 6.2 %; 5 are allowed (n = 40).",
        ),
        Check(name="metric json_valid", passed=verdict != "keep_baseline", text="JSON valid changes by 0.0 points (p = 1, Holm)."),
        Check(name="champion, new holdout", passed=True, text="The candidate beats the champion by 6.0 points on the new holdout."),
    )


def _slices(hostile: str) -> tuple[Slice, ...]:
    luck = random.Random(11)
    found = []
    for column, values in {
        "product": ["pay", "cards", "loans", f"insurance{hostile}"],
        "language": ["en", "de", "日本語", "العربية"],
    }.items():
        for value in values:
            before, change, n = luck.uniform(0.3, 0.6), luck.uniform(-0.08, 0.4), luck.randint(9, 80)
            after = min(before + change, 0.98)
            bounds = {
                "baseline_low": before - 0.1,
                "baseline_high": before + 0.1,
                "candidate_low": after - 0.09,
                "candidate_high": after,
            }
            found.append(
                Slice(
                    **{"column": column, "value": value, "n": n, "baseline": before, "candidate": after, "difference": after - before},
                    **{**bounds, "ci_low": after - before - 0.11, "ci_high": after - before + 0.1, "p_value": 0.04, "guarded": n >= 20},
                )
            )
    return tuple(found)


def _forgetting() -> Forgetting:
    def part(name: str, change: float, n: int) -> General:
        accuracy = name.startswith("multiple")
        before, after = (0.61, 0.61 + change) if accuracy else (3.1, 3.1 * (1 - change / 3))
        return General(
            **{"name": name, "unit": "accuracy" if accuracy else "nats_per_token", "before": before, "after": after, "change": change},
            **{"ci_low": change - 0.03, "ci_high": change + 0.03, "p_value": 0.4, "n": n},
        )

    topics = {"science": -0.02, "history": 0.01, "language": -0.05, "everyday": 0.0}
    wholes = (part("multiple choice", -0.012, 120), part("perplexity", -0.031, 40))
    return Forgetting(parts=(*wholes, *(part(f"multiple choice: {topic}", change, 30) for topic, change in topics.items())))


def _rival(holdout: str) -> Rival:
    return Rival.model_validate(
        {"holdout": holdout, "holdout_sha256": "b2" * 32, "metric": "exact_match", "champion_value": 0.66, "candidate_value": 0.72}
        | {"difference": 0.06, "ci_low": 0.01, "ci_high": 0.11, "p_value": 0.02, "n": 159, "seen": 3}
    )


def _advice(hostile: str) -> Advice:
    return Advice(
        recommendation="lora",
        why=f"The prompt lacks behaviour, and there are enough examples of it.{hostile}",
        findings=(
            AdviceFinding(topic="examples", figure="430 training examples", text="Enough for an adapter.", speaks="for"),
            AdviceFinding(topic="stability", figure="right answers change every 60 days", text="Tuning again costs $45.", speaks="against"),
            AdviceFinding(topic="residency", figure="eu", text="Local training keeps it.", speaks="neutral"),
        ),
    )


def _costs(hostile: str) -> Costs:
    now = f"retrieved, this machine{hostile}"
    here, there = "candidate, this machine", "candidate, openai gpt-4.1-mini"

    def option(name: str, tuning: float, per_1000: float, prompt: float, assumption: str = "") -> Option:
        return Option(
            **{"name": name, "tuned": tuning > 0, "tuning_usd": tuning, "hosting_usd_per_month": 12.0 if name == here else 0.0},
            **{"usd_per_1000_requests": per_1000, "prompt_tokens": prompt, "answer_tokens": 31.0, "assumption": assumption},
        )

    return Costs(
        options=(
            option(now, 0, 1.2, 700.4),
            option("larger_model, this machine", 0, 4.6, 700.4),
            option(here, 45, 0.31, 92.4, "The machine is paid for 24 hours a month."),
            option(there, 3.2, 0.52, 92.4, "Tuned there, it answers as well as here."),
        ),
        break_even=(
            BreakEven(
                **{"option": here, "against": now, "saving_usd_per_request": 0.0134, "saving_usd_per_month": 55.0},
                **{"requests": 4091, "months": 0.8182},
            ),
            BreakEven(
                **{"option": there, "against": now, "saving_usd_per_request": 0.0131, "saving_usd_per_month": 65.5},
                **{"requests": 245, "months": 0.049},
            ),
        ),
        requests_per_month=5000,
        training_usd=45,
        training_hours=0.08,
        priced_at="2026-11-01",
        warnings=("The price of a correction is the spec's.",),
    )


def _curve() -> Curve:
    sizes = {0.25: (107, 0.62, 0.48), 0.5: (215, 0.42, 0.61), 1.0: (430, 0.28, 0.7)}
    points = tuple(
        CurvePoint(share=share, examples=n, validation_loss=loss, metric=metric, n=61) for share, (n, loss, metric) in sizes.items()
    )
    text = "Twice the examples should bring validation loss from 0.280 to 0.192 (0.160 to 0.231): more help."
    return Curve(points=points, more_helps=True, text=text, doubled_loss=0.192, doubled_low=0.16, doubled_high=0.231)


def _failures(hostile: str) -> Failures:
    clusters = tuple(
        FailureCluster(
            **{"name": f"{name}{hostile if at == 0 else ''}", "failures": 12 - at, "share": (12 - at) / 44, "example_ids": ("00", "01")},
            **{"confusion": "billing → account" if at % 2 else None, "nearest": ("aa" * 8, "bb" * 8), "nearest_similarity": 0.31},
            advice=f"Label about 20 examples that mention {name}.",
        )
        for at, name in enumerate(["refund, invoice", "camera, update", "delivery", "token, password", "dashboard", "tablet", "export"])
    )
    return Failures(failures=44, scored=159, clusters=clusters)


def _confusions(seed: int, hostile: str) -> tuple[Confusion, ...]:
    luck = random.Random(seed)
    cells = [Confusion(target=label, answer=label, count=luck.randint(3, 9)) for label in LABELS]
    cells += [Confusion(target=luck.choice(LABELS), answer=label, count=1 + at % 3) for at, label in enumerate(LABELS)]
    return (*cells, Confusion(target=LABELS[0], answer=f"(other){hostile}", count=4))
