"""Turns a run's figures into words, the same ones in the report and in the model card."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, get_args

from prooftune.spec.evaluation import BUILT_IN_METRICS
from prooftune.types import Decision, Evaluation, Metric, SplitName, Verdict

if TYPE_CHECKING:
    from prooftune.evidence import General
    from prooftune.report.view import RunView

TITLES: Final[dict[Verdict, str]] = {
    "promote": "Promote the candidate",
    "keep_baseline": "Keep the baseline",
    "inconclusive": "Inconclusive",
    "do_not_fine_tune": "Do not fine-tune",
}
_NAMES: Final = {
    **{"zero_shot": "zero-shot", "few_shot": "few-shot", "retrieved": "retrieved few-shot", "optimised": "optimised prompt", "rag": "RAG"},
    **{"lora": "LoRA", "qlora": "QLoRA", "full": "full training"},
}
_NAMES_OF_METRICS: Final = {"macro_f1": "macro F1", "json_valid": "JSON valid", "rouge_l": "ROUGE-L", "chrf": "chrF", "bleu": "BLEU"}
_KEPT_CONTROLS: Final = "\n\t\u200c\u200d"
"""Line feed and tab lay text out; the two joiners are spelling in Persian and in emoji."""


def name_of(name: str) -> str:
    """Return a contestant's, a metric's or a figure's name as prose: ``few_shot`` → ``few-shot``."""
    return _NAMES.get(name) or _NAMES_OF_METRICS.get(name) or name.removeprefix("custom:").replace("_", " ").replace("json", "JSON")


def named(text: str, *names: str | None) -> str:
    """Return the text with the names of metrics and contestants in it, and ``names``, as prose; fields of the spec stay what they are."""
    known = {*BUILT_IN_METRICS, "zero_shot", "few_shot", "larger_model", *filter(None, names)}
    longest_first = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
    return re.sub(rf"(?<![\w.])(?:{longest_first})(?!\.?\w)", lambda found: name_of(found[0]), text)


def sentence(text: str, *names: str | None) -> str:
    """Return a reason as a sentence: names as prose, a capital at its start and a full stop at its end."""
    said = capitalize_first(named(text, *names).strip())
    return said if said.endswith((".", "?", "!", "…")) else f"{said}."


def reasons_of(decision: Decision) -> list[str]:
    """Return a decision's reasons for people."""
    return [sentence(reason, decision.metric, decision.baseline) for reason in decision.reasons]


def with_flags(text: str, flags: str) -> str:
    """Return the text with ``flags`` behind every command of ours in it: it then reaches the store that the text is about."""
    return re.sub(r"`(prooftune [^`]+)`", lambda command: f"`{command[1]}{flags}`", text)


def visible(text: str) -> str:
    """Return the text with a placeholder such as ``⟨U+202E⟩`` for each control, bidi, invisible or lone-surrogate character."""
    text = text.replace("\r\n", "\n")
    if text.isascii() and text.isprintable():
        return text
    return "".join(f"⟨U+{ord(char):04X}⟩" if _is_hidden(char) else char for char in text)


def _is_hidden(char: str) -> bool:
    # Control, format (bidi and zero-width), surrogate, private use; line and paragraph separators.
    return char not in _KEPT_CONTROLS and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def capitalize_first(text: str) -> str:
    """Return the text with a capital first letter and the rest as it is: ``JSON valid`` stays."""
    return text[:1].upper() + text[1:]


def points(share: float) -> str:
    """Return a difference in points with its sign, ``+27.6`` for 0.276."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "\N{MINUS SIGN}")


def percent(share: float | None) -> str:
    """Return a share in per cent, ``12.4 %``; nothing is a dash, never 0."""
    return "–" if share is None else f"{100 * share:.1f} %"


def p_value(value: float) -> str:
    """Return ``p = 0.013``, or ``p < 0.0001``."""
    return f"p = {value:.2g}" if value >= 0.0001 else "p < 0.0001"


def usd(amount: float) -> str:
    """Return an amount of USD: cents, from 1,000 on none, below a dollar two significant digits: ``$1,204``, ``$0.20``, ``$0.0083``."""
    sign, size = "\N{MINUS SIGN}" if amount < 0 else "", abs(amount)
    if size >= 1000 or size == round(size):
        return f"{sign}${size:,.0f}"
    if size >= 1:
        return f"{sign}${size:.2f}"
    decimals = 1 - math.floor(math.log10(size))
    shortest = max(len(f"{size:.{decimals}f}".rstrip("0")), len("0.00"))
    return f"{sign}${f'{size:.{decimals}f}'[:shortest]}"


def months(count: float) -> str:
    """Return a span of months in the unit that reads best: ``3 days``, ``1.4 months``, ``2.5 years``."""
    if count < 1:
        days = max(round(count * 30.4), 1)
        return counted(days, "day")
    return f"{count:.2g} months" if count < 24 else f"{count / 12:.3g} years"


def duration(seconds: float) -> str:
    """Return seconds in the unit that reads best: ``84 ms``, ``2.31 s``, ``17 min 29 s``, ``2 h 05 min``."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms" if seconds else "0 s"
    if seconds < 99.95:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def timing(seconds: float | None) -> str:
    """Return seconds as ``duration`` does, or that there was no measurement."""
    return "not measured" if seconds is None else duration(seconds)


def items_of(part: General) -> str:
    """Return how many items a part of the general suite rests on."""
    return f"n = {part.n:,}" + (f", {part.unscored:,} unscored" if part.unscored else "")


def number(value: object) -> str:
    """Return a figure as text: thousands separated, floats to four significant digits, yes and no for booleans, – for nothing."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{round(value):,}" if value == round(value) or abs(value) >= 10_000 else f"{value:.4g}"
    return str(value)


def batches(view: RunView) -> str:
    """Return how answers were timed: ``in batches of 32 on this machine``, ``with 8 requests under way``."""
    sizes = " or ".join(str(size) for size in sorted({evaluation.batch_size for evaluation in view.evaluations}))
    return f"with {sizes} requests under way" if view.spec.backend.managed else f"in batches of {sizes} on this machine"


def interval(metric: Metric) -> str:
    """Return a metric's interval, ``0.646 to 0.727``."""
    return f"{metric.ci_low:.3f} to {metric.ci_high:.3f}"


def headline(view: RunView) -> str:
    """Return the verdict's reason in one sentence."""
    decision, metric = view.decision, name_of(view.metric)
    if decision.difference is None:
        return _without_candidate(view)
    baseline, gain = name_of(decision.baseline or "the baseline"), points(decision.difference).lstrip("+")
    beats = f"The fine-tuned candidate beats {baseline}, the best prompt, by {gain} points of {metric}"
    if decision.verdict == "promote":
        return f"{beats}."
    enough = decision.difference >= view.spec.gate.min_effect and (decision.p_value or 0) < view.spec.gate.alpha
    wanting = [check.name for check in decision.checks if check.passed is (False if decision.verdict == "keep_baseline" else None)]
    if enough and wanting:
        return f"{beats}, but {'fails' if decision.verdict == 'keep_baseline' else 'does not settle'} {_listed(wanting)}."
    if decision.verdict == "inconclusive":
        return _inconclusive(view, baseline, gain)
    if decision.difference < 0:
        return f"The fine-tuned candidate is {gain[1:]} points of {metric} below {baseline}, the best prompt."
    required = f"{100 * view.spec.gate.min_effect:g}"
    return f"The fine-tuned candidate gains {gain} points of {metric} over {baseline}; a new model must bring {required}."


def _inconclusive(view: RunView, baseline: str, gain: str) -> str:
    decision, metric = view.decision, name_of(view.metric)
    enough = f"; about {decision.n_needed:,} would" if decision.n_needed else ""
    if (decision.difference or 0) > 0 and decision.p_value is not None and decision.p_value < view.spec.gate.alpha:
        required = f"{100 * view.spec.gate.min_effect:g}"
        open_question = f"the gain of {gain} points of {metric} over {baseline} is the {required} required"
    else:
        open_question = f"a difference of {points(decision.difference or 0)} points of {metric} to {baseline} is real"
    return f"{decision.n:,} held-out examples do not settle whether {open_question}{enough}."


def _listed(names: list[str], shown: int = 2) -> str:
    """Return ``a``, ``a and b`` or ``a, b and 3 more checks``."""
    if len(names) > shown:
        return f"{', '.join(names[:shown])} and {counted(len(names) - shown, 'more check')}"
    return " and ".join(names)


def _without_candidate(view: RunView) -> str:
    decision = view.decision
    if decision.baseline and decision.baseline_value is not None and decision.baseline_value >= view.spec.task.target:
        return (
            f"Prompting is enough: {name_of(decision.baseline)} reaches {name_of(view.metric)} {decision.baseline_value:.3f}, "
            f"and the target is {view.spec.task.target:g}."
        )
    return next(iter(reasons_of(decision)), "Training would not pay.")


def what_next(view: RunView) -> list[str]:
    """Return what to do about the verdict, most useful first."""
    decision = view.decision
    best = name_of(decision.baseline or "the best prompt")
    if decision.verdict == "promote":
        return [
            "Serve it with the code below; it needs no demonstrations in its prompt.",
            "Read the regressions before you switch.",
        ]
    if decision.verdict == "keep_baseline":
        return [
            f"Keep prompting {_prompted(view, view.baseline)} with {best}.",
            "Look at the regressions: they show what more or cleaner examples would have to teach.",
            "Another base model, more epochs or a lower learning rate is a new run of the same spec; the holdout stays the same.",
        ]
    if decision.verdict == "inconclusive":
        needed = f"about {decision.n_needed:,} held-out examples" if decision.n_needed else "more held-out examples"
        return [
            f"Collect {needed}, or raise data.split.holdout, and run again.",
            f"Until then keep {best}: an unproven model is not worth its upkeep.",
        ]
    return list(_instead_of_training(view))


def _prompted(view: RunView, contestant: Evaluation | None) -> str:
    """Return which model a rung prompts, as the spec calls it."""
    named = contestant.model if contestant is not None else ""
    return named or view.spec.baseline.model or view.spec.backend.model


def _instead_of_training(view: RunView) -> Iterator[str]:
    decision, counts = view.decision, view.figures.get("split", {}).get("counts", {})
    target = view.spec.task.target
    reached = [e for e in view.evaluations if view.metric in e.metrics and e.metrics[view.metric].value >= target]
    for evaluation in reached:
        yield f"Use the prompt: {name_of(evaluation.name)} on {_prompted(view, evaluation)} ({evaluation.description})."
    if not reached and view.advice is not None:
        yield view.advice.why
    if reached:
        yield "If the target is too modest, raise task.target and run again."
    if isinstance(counts, Mapping) and (missing := view.spec.data.min_examples - int(counts.get("train", view.spec.data.min_examples))) > 0:
        yield f"Collect at least {missing:,} more training examples."
    if (missing := view.spec.gate.min_holdout - decision.n) > 0:
        yield f"Put at least {missing:,} more examples into the holdout; without them no result could be told from luck."
    if not reached and decision.baseline:
        yield f"Meanwhile use {name_of(decision.baseline)}, the best prompt so far."


def split_order(name: str) -> int:
    """Return a key that sorts the splits as they are used and leaves other names behind them as they stand."""
    splits = get_args(SplitName)
    return splits.index(name) if name in splits else len(splits)


def flatten(figures: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield a stage's scalar figures by name, nested ones as ``train · examples``; lists and histograms are for plots."""
    for key, value in sorted(figures.items(), key=lambda item: split_order(item[0])):
        name = f"{prefix} · {name_of(key)}" if prefix else name_of(key)
        if isinstance(value, Mapping):
            if key != "histogram":
                yield from flatten(value, name)
        elif isinstance(value, str | int | float) or value is None:
            yield name, value
        elif isinstance(value, list | tuple) and len(value) <= 12 and all(isinstance(item, str | int | float) for item in value):
            yield name, ", ".join(number(item) for item in value)


FILTERS: Final = (name_of, sentence, reasons_of, capitalize_first, points, percent, p_value, usd, months, duration, number)
"""What templates call by name."""


def counted(count: int, name: str) -> str:
    """Return ``1 run``, ``2 runs``."""
    return f"{count:,} {name}{'' if count == 1 else 's'}"
