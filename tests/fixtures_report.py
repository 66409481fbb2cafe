"""Made-up runs for the tests of the report: one per verdict, seeded, with the texts that real data brings."""

from __future__ import annotations

import json
import random
from html.parser import HTMLParser

from prooftune.report.view import Histogram, RunView
from prooftune.spec import parse_spec
from prooftune.types import Decision, Evaluation, Finding, Metric, Prediction, Verdict

N = 160
ACCURACY: dict[Verdict, dict[str, float]] = {
    "promote": {"zero_shot": 0.04, "few_shot": 0.41, "candidate": 0.72},
    "keep_baseline": {"zero_shot": 0.04, "few_shot": 0.71, "candidate": 0.55},
    "inconclusive": {"zero_shot": 0.04, "few_shot": 0.41, "candidate": 0.47},
    "do_not_fine_tune": {"zero_shot": 0.31, "few_shot": 0.985},
}
DESCRIPTIONS = {
    "zero_shot": "system message and the ticket",
    "few_shot": "system message, 8 demonstrations from the training split, and the ticket",
    "retrieved": "system message, the 8 nearest training examples, and the ticket",
    "optimised": "the best of 24 instructions, 4 demonstrations, and the ticket",
    "larger_model": "the few-shot prompt, answered by a larger model",
    "rag": "system message, 3 passages of the handbook, and the ticket",
    "candidate": "system message and the ticket, adapter of step 180",
}
TICKETS = [
    "Hi, I was billed twice for November (invoices 4411 and 4412). Please refund one of them, and tell me why this happened?",
    "App stürzt seit dem Update beim Öffnen der Kamera ab. Galaxy S22, Android 15. Schon neu installiert, hilft nicht.",
    "where do i change the adress for delivery??? order is not shipped yet",
    "Just wanted to say the new dashboard is lovely. One small thing: the export button is hidden on my tablet.\n\nCheers,\nMo",
    "Login fails with 'token expired' although I reset my password three times today. Deadline tonight, this is urgent! " * 6,
]
FIELDS = {
    "category": ["billing", "bug", "delivery", "feedback", "account"],
    "priority": ["low", "normal", "high"],
    "sentiment": ["calm", "annoyed", "happy"],
}
HOSTILE = "<script>alert('x')</script> \u202ereversed\u202c \x00 & \"quoted\" | `tick` \ud800 [EMAIL]"

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """What a browser would see: the elements with their attributes, and the text outside style sheets."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.css: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.css if self.open[-1:] == ["style"] else self.texts).append(data)

    @property
    def text(self) -> str:
        """All text, white space folded."""
        return " ".join(" ".join(self.texts).split())


def make_view(verdict: Verdict = "promote", hostile: str = "") -> RunView:
    """Return the view of a run that ended in ``verdict``; ``hostile`` stands wherever data or a model can put text."""
    names = list(ACCURACY[verdict])
    predictions = {name: predicted(name, share, hostile) for name, share in ACCURACY[verdict].items()}
    trained = "candidate" in names
    return RunView(
        run_id="support-triage-20261122-9f3a1c",
        spec=parse_spec(
            {"name": "support-triage", "data": {"source": "/data/tickets.jsonl"}, "task": {"system": f"Answer with JSON.{hostile}"}}
        ),
        decision=_decision(verdict, predictions),
        evaluations=tuple(measured(name, predictions[name]) for name in names),
        predictions=predictions,
        findings=_findings(hostile),
        figures=_figures(trained),
        loss=_loss() if trained else (),
        token_lengths={"train": _histogram(1, 430), "validation": _histogram(2, 61), "holdout": _histogram(3, N)},
        seconds={"ingest": 0.41, "validate": 6.2, "split": 0.8, "format": 0.05, "tokens": 1.9, "preflight": 1.1, "baselines": 121.4}
        | ({"train": 288.7, "evaluate": 38.2, "gate": 1.3} if trained else {}),
        versions={"prooftune": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.0", "trl": "1.16.0"},
        digests={"source": "a1" * 32, "holdout": "b2" * 32, "adapter/adapter_model.safetensors": "c3" * 32},
    )


def make_empty_view() -> RunView:
    """Return the view of a run that stopped before any baseline, with nothing but its decision."""
    decision = Decision(verdict="do_not_fine_tune", reasons=("There are 12 training examples; data.min_examples requires 50.",), n=4)
    spec = parse_spec({"name": "tiny", "data": {"source": "rows.csv"}})
    return RunView(run_id="tiny-1", spec=spec, decision=decision, figures={"split": {"counts": {"train": 12, "holdout": 4}}})


def _decision(verdict: Verdict, predictions: dict[str, tuple[Prediction, ...]]) -> Decision:
    before = value_of(predictions["few_shot"])
    if verdict == "do_not_fine_tune":
        reason = f"The baseline few_shot reaches exact_match {before:.3f} (n = {N - 1}) without training: prompting is enough."
        return Decision(
            verdict=verdict, reasons=(reason,), metric="exact_match", baseline="few_shot", baseline_value=before, n=N - 1, unscored=1
        )
    after = value_of(predictions["candidate"])
    why = {
        "promote": "The gain over few_shot, the best baseline, is significant and at least the 2 required.",
        "keep_baseline": "The candidate is significantly worse than few_shot, the best baseline.",
        "inconclusive": "The difference to few_shot, the best baseline, could be luck at alpha = 0.05.",
    }[verdict]
    return Decision(
        verdict=verdict,
        reasons=(f"exact_match {before:.3f} → {after:.3f} (n = {N - 1})", why),
        metric="exact_match",
        baseline="few_shot",
        baseline_value=before,
        candidate_value=after,
        difference=after - before,
        ci_low=after - before - 0.0932,
        ci_high=after - before + 0.0914,
        p_value={"promote": 3.1e-9, "keep_baseline": 0.0021, "inconclusive": 0.29}[verdict],
        test="exact McNemar",
        n=N - 1,
        unscored=1,
        n_needed=1420 if verdict == "inconclusive" else None,
    )


def value_of(predictions: tuple[Prediction, ...]) -> float:
    """Return the exact match of a contestant's predictions."""
    scored = [score for p in predictions if (score := p.scores["exact_match"]) is not None]
    return sum(scored) / len(scored)


def predicted(name: str, share: float, hostile: str) -> tuple[Prediction, ...]:
    """Return a contestant's predictions, of which about ``share`` are right."""
    luck = random.Random(name)
    rows = []
    for index in range(N):
        target = {field: values[(index * 7 + len(field)) % len(values)] for field, values in FIELDS.items()}
        right = luck.random() < share
        answer = json.dumps(target if right else target | {"category": FIELDS["category"][(index * 7 + 9) % 5]})
        if name == "zero_shot" and not right:
            answer = "Sure! I'd be happy to help you with this ticket. " * luck.randint(1, 12)
        tokens = max(3, len(answer) // 4 + luck.randint(-2, 3))
        rows.append(
            Prediction(
                example_id=f"{index * 7919 + 4096:016x}",
                prompt=TICKETS[index % len(TICKETS)] + hostile,
                target=json.dumps(target),
                answer=answer + hostile,
                prompt_tokens=92 if name in ("zero_shot", "candidate") else 700,
                answer_tokens=tokens,
                finished=tokens < 120,
                latency_s=(0.9 if name == "few_shot" else 0.3) + tokens * 0.011 * luck.uniform(0.9, 1.4),
                scores={"exact_match": None if index == 3 else float(right), "json_valid": float(answer.startswith("{"))},
            )
        )
    return tuple(rows)


def measured(name: str, predictions: tuple[Prediction, ...]) -> Evaluation:
    """Return the evaluation of a contestant's predictions."""
    tokens, seconds = sorted(p.answer_tokens for p in predictions), sorted(p.latency_s for p in predictions)
    middle, high = N // 2, int(N * 0.95)
    return Evaluation(
        name=name,
        description=DESCRIPTIONS[name],
        metrics={
            "exact_match": _metric("exact_match", value_of(predictions), N - 1),
            "json_valid": _metric("json_valid", sum(p.answer.startswith("{") for p in predictions) / N, N),
            "json_field_accuracy": _metric("json_field_accuracy", value_of(predictions) ** 0.4, N),
        },
        answer_tokens_mean=sum(tokens) / N,
        answer_tokens_p50=tokens[middle],
        answer_tokens_p95=tokens[high],
        prompt_tokens_mean=predictions[0].prompt_tokens + 0.37,
        latency_p50_s=seconds[middle],
        latency_p95_s=seconds[high],
        batch_size=32,
        tokens_per_second=312.4 if name == "candidate" else 287.9,
        seconds=12.5,
        refusals=0.0,
        empty=0.0,
        holdout_sha256="b2" * 32,
    )


def _metric(name: str, value: float, n: int) -> Metric:
    return Metric(name=name, value=value, ci_low=max(0.0, value - 0.071), ci_high=min(1.0, value + 0.069), n=n, unscored=N - n)


def _findings(hostile: str) -> tuple[Finding, ...]:
    kinds = [
        ("exact-duplicate", "the same prompt and target stand in line 12", "dropped"),
        ("near-duplicate", "91 % like line 88; both stay in one split", "grouped"),
        ("pii-email", "1 e-mail address was replaced by [EMAIL]", "redacted"),
        ("contradiction", "the same prompt has 2 different targets", "dropped"),
        ("broken-line", "not JSON (unterminated string, column 211); one object a line is required", "dropped"),
        ("long-prompt", "1,412 tokens, longer than 99 % of the prompts", "kept"),
    ]
    return tuple(
        Finding(where=f"tickets.jsonl:{17 * n + 3}", code=code, reason=reason + (hostile if n == 0 else ""), action=action)
        for n in range(44)
        for code, reason, action in [kinds[n % 6]]
    )


def _figures(trained: bool) -> dict[str, dict[str, object]]:
    figures: dict[str, dict[str, object]] = {
        "ingest": {"records": 702, "shape": "chat"},
        "split": {
            "counts": {"train": 430, "validation": 61, "holdout": N, "unused": 0},
            "holdout_sha256": "b2" * 32,
            "order": "random",
            "stratified_by": "category",
            "groups": 588,
            "largest_group": 5,
            "overlap": {"ids": 0, "groups": 0},
        },
        "preflight": {
            "train": {"examples": 430, "supervised_tokens": 12_040, "supervised_share": 0.2312, "truncated": 0},
            "max_length": 1024,
            "template_has_generation_mask": False,
            "prompt_is_token_prefix": True,
        },
    }
    if trained:
        figures["train"] = {"steps": 216, "best_step": 180, "trainable_parameters": 4_884_480, "stopped_early": False}
    return figures


def _loss() -> tuple[dict[str, float | None], ...]:
    luck = random.Random(5)
    rows: list[dict[str, float | None]] = []
    for step in range(4, 220, 4):
        at: dict[str, float | None] = {"step": step, "epoch": step / 108}
        loss = 0.18 + 2.6 * 0.975**step + luck.uniform(-0.05, 0.05)
        rows.append(at | {"loss": loss, "validation_loss": None, "learning_rate": 1e-3, "tokens": step * 800})
        if step % 36 == 0:
            validation = 0.26 + 2.5 * 0.975**step + (0.02 if step > 190 else 0)
            rows.append(at | {"loss": None, "validation_loss": validation, "learning_rate": None, "tokens": None})
    return tuple(rows)


def _histogram(seed: int, n: int) -> Histogram:
    luck = random.Random(seed)
    lengths = sorted(int(luck.lognormvariate(4.6, 0.45)) for _ in range(n))
    edges = range(12, 620, 16)
    counts = [sum(low <= length < low + 16 for length in lengths) for low in edges[:-1]]
    return Histogram(edges=tuple(edges), counts=tuple(counts), p50=lengths[n // 2], p95=lengths[int(n * 0.95)])
