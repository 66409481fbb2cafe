"""What speaks for and against training, each with the figure it rests on.

=================  ==============================================================================================================
topic              speaks against training when
=================  ==============================================================================================================
examples           there are fewer than 50, or than ``data.min_examples`` (then it stops the run)
holdout            there are fewer held-out examples than ``gate.min_holdout`` (stops the run)
diversity          prompts are nearly copies of one another: below ``LOW_DIVERSITY``
contradictions     they cost a perfect model more than ``gate.min_effect``
baseline           a prompt reaches ``task.target`` (stops the run)
power              the holdout could not show even the gain from the best baseline to ``task.target``
lacks              the prompted model lacks facts or reasoning, not behaviour
stability          right answers change more often than every ``RETRAIN_DAYS``
volume             tuning is not paid back within a year even if the tuned model reached ``task.target``, better answers included
residency          the spec sends data to a provider that no source says can be confined to the region
=================  ==============================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prooftune.economics.break_even import YEAR
from prooftune.economics.policy import violations
from prooftune.evaluation.advice.case import Case
from prooftune.evidence import AdviceFinding

FEW, SOME, MANY = 50, 100, 500
"""Training examples. 50 to 100 is where OpenAI's guide to fine-tuning sees clear improvements, Google's for Gemini starts at 100, Predibase
asks for 500 to 1,000 (https://docs.predibase.com/guides/fine-tuning/datasets)."""
LOW_DIVERSITY = 0.25
"""``diversity_of`` 2,000 prompts: 0.36 for banking77, 0.54 for the example's support tickets, 0.09 to 0.11 for one to three templates with
names and numbers filled in."""
RETRAIN_DAYS = 30.0
"""Tuning again more often than this is a service to be run, not a model to be trained."""
UNKNOWN_BASELINE = 0.5
"""Score that power is stated at before a baseline has run: the one at which gains are hardest to see."""

Rule = Callable[[Case], Iterator[AdviceFinding]]


def examples(case: Case) -> Iterator[AdviceFinding]:
    """Whether there are enough training and held-out examples."""
    n, figure = case.n_train, f"{case.n_train:,} training examples"
    if n < (required := case.spec.data.min_examples):
        text = f"data.min_examples requires {required}. Collect more."
        yield AdviceFinding(topic="examples", figure=figure, text=text, speaks="against", stops=True)
    elif n < FEW:
        text = f"Below {FEW}, show them in the prompt instead."
        yield AdviceFinding(topic="examples", figure=figure, text=text, speaks="against")
    elif n < SOME:
        text = f"{FEW} to {SOME} can teach a format or a tone; more of them are likely to help."
        yield AdviceFinding(topic="examples", figure=figure, text=text, speaks="neutral")
    else:
        text = "Enough for most tasks." if n >= MANY else f"Enough to begin with; from {MANY} on, most tasks have enough."
        yield AdviceFinding(topic="examples", figure=figure, text=text, speaks="for")
    if case.n_holdout < (needed := case.spec.gate.min_holdout):
        figure = f"{case.n_holdout:,} held-out examples"
        text = f"gate.min_holdout requires {needed}: no result could be told from luck. Collect more, or raise data.split.holdout."
        yield AdviceFinding(topic="holdout", figure=figure, text=text, speaks="against", stops=True)


def diversity(case: Case) -> Iterator[AdviceFinding]:
    """Whether training prompts differ from one another."""
    if case.diversity is None:
        return
    figure = f"diversity {case.diversity:.2f}, {case.found('exact-duplicate'):,} copies dropped"
    if case.diversity < LOW_DIVERSITY:
        text = f"Prompts are nearly copies of one another (below {LOW_DIVERSITY:g}): more of the same teaches little. Collect other cases."
        yield AdviceFinding(topic="diversity", figure=figure, text=text, speaks="against")
    else:
        text = f"Prompts differ enough from their nearest neighbours ({LOW_DIVERSITY:g} or more)."
        yield AdviceFinding(topic="diversity", figure=figure, text=text, speaks="for")


def contradictions(case: Case) -> Iterator[AdviceFinding]:
    """Whether the same prompt has several targets: of two that contradict each other, no model gets both right."""
    lost = case.contradicting / 2
    figure = f"{case.found('contradiction'):,} contradicting examples ({100 * case.contradicting:.1f} %)"
    if lost > case.spec.gate.min_effect:
        text = (
            f"A perfect model would get {100 * lost:.1f} points of such data wrong, more than the {100 * case.spec.gate.min_effect:g} "
            "points that gate.min_effect looks for. Decide which targets are right."
        )
        yield AdviceFinding(topic="contradictions", figure=figure, text=text, speaks="against")
    elif "valid" in case.data:
        text = "Too few to matter." if lost else "The same prompt always has the same target."
        yield AdviceFinding(topic="contradictions", figure=figure, text=text, speaks="neutral" if lost else "for")


def baseline(case: Case) -> Iterator[AdviceFinding]:
    """Whether prompting is good enough already."""
    if (best := case.best) is None:
        return
    metric, target = best.metrics[case.spec.task.metric], case.spec.task.target
    figure = f"{best.name}: {metric.name} {metric.value:.3f} (95 % CI {metric.ci_low:.3f} to {metric.ci_high:.3f}, n = {metric.n})"
    if metric.value >= target:
        text = f"The best prompt reaches task.target {target:g}: training cannot gain what is not missing."
        yield AdviceFinding(topic="baseline", figure=figure, text=text, speaks="against", stops=True)
    else:
        text = f"The best prompt is {100 * (target - metric.value):.1f} points short of task.target {target:g}."
        yield AdviceFinding(topic="baseline", figure=figure, text=text, speaks="for")


def power(case: Case) -> Iterator[AdviceFinding]:
    """Whether the holdout could show the gain that is missing."""
    from prooftune.evaluation.gate.power import detectable_effect, power_text, tested_at

    gate, best = case.spec.gate, case.best
    value = UNKNOWN_BASELINE if best is None else case.value(best)
    missing = case.spec.task.target - value
    if case.n_holdout < 1 or missing <= 0:
        return
    text = power_text(case.n_holdout, value, gate)
    if best is None:
        text += f" No baseline has run yet; this supposes one at {value:g}, where gains are hardest to see."
    seen = detectable_effect(case.n_holdout, value, alpha=tested_at(gate), power=gate.power, min_effect=gate.min_effect)
    shown = seen is not None and seen <= missing
    figure = f"{case.n_holdout:,} held-out examples, {100 * missing:.1f} points to task.target"
    yield AdviceFinding(topic="power", figure=figure, text=text, speaks="neutral" if shown else "against")


def lacks(case: Case) -> Iterator[AdviceFinding]:
    """What the prompted model lacks, as the spec says."""
    figure = f"use.lacks: {case.spec.use.lacks}"
    if case.spec.use.lacks == "facts":
        text = "Tuning teaches how to answer, hardly what is true; let it look facts up (RAG), which also stays current."
        yield AdviceFinding(topic="lacks", figure=figure, text=text, speaks="against")
    elif case.spec.use.lacks == "reasoning":
        text = "Examples of answers do not teach a small model to reason; try a larger one first."
        yield AdviceFinding(topic="lacks", figure=figure, text=text, speaks="against")
    elif case.spec.use.lacks == "behaviour":
        text = "Format, tone and labels are what tuning teaches best."
        yield AdviceFinding(topic="lacks", figure=figure, text=text, speaks="for")


def stability(case: Case) -> Iterator[AdviceFinding]:
    """Whether right answers stay right long enough."""
    if (days := case.spec.use.answers_change_every_days) is None:
        return
    hours = case.training_hours
    again = "" if hours is None else f" Training takes about {_hours(hours)}, each time."
    figure = f"answers change every {days:g} days"
    if days < RETRAIN_DAYS:
        text = f"A tuned model is wrong from each change to the next training, and {RETRAIN_DAYS:g} days is as often as one tunes.{again}"
        yield AdviceFinding(topic="stability", figure=figure, text=text + " Keep what changes in the prompt (RAG).", speaks="against")
    else:
        yield AdviceFinding(topic="stability", figure=figure, text=f"Slow enough to tune again after each change.{again}", speaks="neutral")


def volume(case: Case) -> Iterator[AdviceFinding]:
    """Whether tuning can be paid back within a year."""
    requests = case.spec.use.requests_per_month
    if requests is None:
        return
    figure, plan = f"{requests:,} requests a month", case.plan()
    if plan is None:
        text = "What a request saves is known once a baseline has run on this machine."
        if case.spec.backend.managed:
            text = "What a request saves is known once the tuned model has answered: then the costs of the run say it."
        yield AdviceFinding(topic="volume", figure=figure, text=text, speaks="neutral")
        return
    estimate = f"tuning costs about {plan.tuning_usd:.2g} USD and saves at most {plan.saving_usd_per_request:.2g} USD a request"
    priced = "" if plan.corrections_priced else " What a wrong answer costs is not known, so better answers are worth nothing in this."
    if plan.months is not None and plan.months <= YEAR:
        text = f"Paid back within {plan.months:.2g} months, if the tuned model reaches task.target: {estimate}.{priced}"
        yield AdviceFinding(topic="volume", figure=figure, text=text, speaks="for")
    else:
        when = "never paid back" if plan.months is None else f"paid back after {plan.months:,.0f} months"
        text = f"Even if the tuned model reached task.target, tuning is {when}: {estimate}.{priced}"
        yield AdviceFinding(topic="volume", figure=figure, text=text, speaks="against" if too_small(case) else "neutral")


def too_small(case: Case) -> bool:
    """Return whether the plan, with what better answers are worth, is not paid back within a year."""
    plan = case.plan()
    return plan is not None and plan.corrections_priced and (plan.months is None or plan.months > YEAR)


def residency(case: Case) -> Iterator[AdviceFinding]:
    """Whether data stay where they must, at the backend, the judge and the larger model."""
    if (region := case.spec.data.residency) is None:
        return
    figure, backend = f"data.residency: {region}", case.spec.backend
    problems = [problem for problem in violations(case.spec, case.prices, {}) if problem.code == "residency"]
    if problems:
        why = problems[0].reason
        yield AdviceFinding(topic="residency", figure=figure, text=f"{why[0].upper()}{why[1:].rstrip('.')}.", speaks="against")
    elif backend.managed:
        text = f"Training at {backend.provider} keeps data there, as a source says, or at an address of yours that you vouch for."
        yield AdviceFinding(topic="residency", figure=figure, text=text, speaks="neutral")
    else:
        allowed = ", ".join(case.prices.confined_to(region)) or "none"
        text = f"Training here keeps data here; of the managed providers, {allowed} can be confined to {region}."
        yield AdviceFinding(topic="residency", figure=figure, text=text, speaks="neutral")


def regulated(case: Case) -> Iterator[AdviceFinding]:
    """What a regulated use asks for."""
    if case.spec.use.regulated is not None:
        text = "Fill in the technical file that comes with the report, and let a person oversee its use (EU AI Act, articles 11 and 14)."
        yield AdviceFinding(topic="regulated", figure=case.spec.use.regulated, text=text, speaks="neutral")


RULES: tuple[Rule, ...] = (
    examples,
    diversity,
    contradictions,
    baseline,
    power,
    lacks,
    stability,
    volume,
    residency,
    regulated,
)


def _hours(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"
