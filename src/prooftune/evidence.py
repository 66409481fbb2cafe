"""What the decision rests on besides the answers to the holdout. Light: pydantic and the standard library only.

Each class is the content of one file that a stage hands on, or a part of it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from prooftune.types import Frozen

Recommendation = Literal["prompt", "few_shot", "rag", "larger_model", "managed", "lora", "qlora", "full", "collect_data"]


class Slice(Frozen):
    """How the best baseline and the candidate did where a metadata column has one value."""

    column: str
    value: str
    n: int
    baseline: float
    baseline_low: float
    baseline_high: float
    candidate: float
    candidate_low: float
    candidate_high: float
    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    """Of "no difference", not corrected."""
    guarded: bool
    """Whether ``gate.max_slice_drop`` applies: it has at least ``gate.min_slice`` examples."""


class General(Frozen):
    """One part of the general suite, before and after tuning."""

    name: str
    """``multiple choice: science``, ``perplexity: prose``, ``lm-eval: arc_easy`` …"""
    unit: Literal["accuracy", "nats_per_token"]
    before: float
    after: float
    change: float
    """After minus before for accuracy; for perplexity, its relative rise with the sign turned, so that negative is worse for both."""
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    """Exact McNemar for accuracy, paired bootstrap for perplexity; None where the part gives no values by item."""
    n: int
    """Questions that both answered, or texts."""
    unscored: int = Field(default=0, exclude_if=lambda count: count == 0)
    """Questions that one of the two answered with no choice: they count on neither side. Its JSON holds it only where there are any."""


class Forgetting(Frozen):
    """``forgetting.json``: what the candidate forgot."""

    parts: tuple[General, ...]
    """``multiple choice`` and ``perplexity`` as wholes come first; then their topics and lm-eval's tasks."""
    not_measured: dict[str, str] = Field(default={}, exclude_if=lambda reasons: not reasons)
    """Why a part as a whole is missing, by its name. Its JSON holds it only where one is."""


class JudgeVerdict(Frozen):
    """A line of ``judge.jsonl``: one pair, judged in both orders."""

    example_id: str
    candidate_first: str | None
    """``candidate``, ``baseline`` or ``tie``, with the candidate's answer shown first; None = the judge's answer could not be parsed."""
    baseline_first: str | None
    outcome: Literal["candidate", "baseline", "tie"] | None
    """Both orders agree, or ``tie`` where they contradict each other; None = unscored."""
    answers: str = ""
    """Digest of both answers: a human label that names it counts for these answers only."""


class JudgeReport(Frozen):
    """``judge.json``: what the judge said over all pairs."""

    judge: str
    """Provider and model."""
    rubric: str
    baseline: str
    """Rung that the candidate's answers were compared with."""
    wins: int
    """Pairs in which the candidate's answer is better."""
    losses: int
    ties: int
    unscored: int
    contradictions: int
    """Ties because the two orders contradict each other: the judge's position bias."""
    win_rate: float | None
    """(wins + ties / 2) / scored pairs; None = not one pair was scored."""
    ci_low: float | None
    ci_high: float | None
    """95 %, paired bootstrap over the scored pairs."""
    p_value: float
    """Exact sign test of wins against losses."""
    kappa: float | None = None
    """Cohen's kappa with the human labels, over pairs that the judge was asked about; None = not defined."""
    kappa_n: int = 0
    kappa_skipped: int = 0
    """Human labels that count nowhere: on other answers, or on pairs that were not judged or left unscored."""
    batched: bool = False
    """Whether the provider's batch API was used, which costs half."""
    prompt_tokens: int = 0
    answer_tokens: int = 0
    cost_usd: float | None = None
    """By the price list; None = the list has no price for the judge."""


class AdviceFinding(Frozen):
    """One thing that speaks for or against training, with the figure it rests on."""

    topic: str
    """``examples``, ``diversity``, ``contradictions``, ``baseline``, ``power``, ``lacks``, ``volume``, ``stability``, ``residency`` …"""
    figure: str
    """``420 training examples``."""
    text: str
    speaks: Literal["for", "against", "neutral"]
    stops: bool = False
    """Whether it ends the run in ``do_not_fine_tune``."""


class Advice(Frozen):
    """``advice.json``: what to do, before any money is spent."""

    recommendation: Recommendation
    why: str
    """One sentence."""
    findings: tuple[AdviceFinding, ...]


class Option(Frozen):
    """One way to serve the task, with its money."""

    name: str
    """``few-shot, this machine``, ``candidate, this machine``, ``candidate, openai gpt-4.1-mini`` …"""
    tuned: bool
    tuning_usd: float | None
    """Once; None = nobody tells what the training cost."""
    tuning_estimated: bool = False
    """Whether that is what the training was estimated to cost, since its provider does not say what it did."""
    hosting_usd_per_month: float
    usd_per_1000_requests: float
    prompt_tokens: float
    """Mean, as measured on the holdout."""
    answer_tokens: float
    assumption: str = ""
    """What was assumed rather than measured, in one sentence."""
    measured: bool = True
    """False: nothing was run there; tokens and quality are those measured here."""


class BreakEven(Frozen):
    """A tuned option against the option in use now (the best baseline)."""

    option: str
    against: str
    saving_usd_per_request: float
    """Answers and corrections together; negative = the tuned option costs more."""
    saving_usd_per_month: float | None
    """With hosting, at the spec's volume; None = no volume known."""
    requests: int | None
    """Requests until tuning is paid back; None = never, or nobody tells what tuning cost."""
    months: float | None
    """The same at the spec's volume; None = never, no volume known, or nobody tells what tuning cost."""


class Costs(Frozen):
    """``costs.json``: what each way to serve the task costs, and when tuning pays."""

    options: tuple[Option, ...]
    break_even: tuple[BreakEven, ...]
    requests_per_month: int | None
    training_usd: float | None
    """Of the candidate; None = nobody tells."""
    training_hours: float
    priced_at: str
    """Date of the oldest price used, ISO 8601."""
    warnings: tuple[str, ...] = ()


class CurvePoint(Frozen):
    """A training on a part of the training split."""

    share: float
    examples: int
    validation_loss: float
    """Nats per supervised token, at the best checkpoint."""
    metric: float
    """``task.metric`` on the validation split."""
    n: int


class Curve(Frozen):
    """``learning_curve.json``: whether more examples would help."""

    points: tuple[CurvePoint, ...]
    """By examples; the last is the candidate."""
    more_helps: bool | None
    """None = the points do not tell."""
    text: str
    """One sentence with the figures."""
    doubled_loss: float | None = None
    """Validation loss to expect with twice the examples, by the fitted power law."""
    doubled_low: float | None = None
    doubled_high: float | None = None


class FailureCluster(Frozen):
    """Failures of the candidate that have something in common."""

    name: str
    """What they share: words of their prompts, or a confusion such as ``billing → account``."""
    failures: int
    share: float
    """Of all failures."""
    example_ids: tuple[str, ...]
    confusion: str | None = None
    """Most frequent ``target → answer``, for short answers."""
    nearest: tuple[str, ...] = ()
    """Where the training examples nearest to the cluster's middle were read, as in ``tickets.jsonl:417``, nearest first."""
    nearest_similarity: float = 0.0
    """Mean cosine similarity of those; a low one says that training has nothing like it."""
    advice: str = ""
    """What to label next, in one sentence."""


class Failures(Frozen):
    """``failures.json``: the candidate's failures by what they share. ``labelling.jsonl`` is the list for the next iteration."""

    failures: int
    scored: int
    clusters: tuple[FailureCluster, ...]


class Rival(Frozen):
    """The candidate against the champion on one holdout."""

    holdout: Literal["old", "new"]
    """``old``: the one that the champion was promoted on."""
    holdout_sha256: str
    metric: str
    champion_value: float
    candidate_value: float
    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    n: int
    seen: int
    """Examples left out because one of the two was trained on them, or had its checkpoint chosen by them."""


class Champion(Frozen):
    """``champion.json``: the candidate against the champion in use; without one, ``run_id`` is None."""

    run_id: str | None
    rivals: tuple[Rival, ...] = ()
    same_holdout: bool = False
    """Whether the champion was promoted on the candidate's own holdout: then there is one comparison, on the ``new`` one."""
    reason: str = ""
    """Why the champion could not be met: a file of its run is gone or damaged, or its base model. Then there are no comparisons."""
