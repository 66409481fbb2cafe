"""The nouns that stages hand to each other. Light: pydantic and the standard library only.

They live here and not in flow files, because a class defined in a flow file pickles under a module name that no other process can import.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Scalar = str | int | float | bool | None
"""A JSON scalar: what figures and metadata hold."""

Role = Literal["system", "user", "assistant", "tool"]
SplitName = Literal["train", "validation", "holdout"]
Verdict = Literal["promote", "keep_baseline", "inconclusive", "do_not_fine_tune"]


class Frozen(BaseModel):
    """Immutable and strict about its fields, with field docstrings as descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True)


class Message(Frozen):
    """One turn of a conversation."""

    role: Role
    content: str


class Record(Frozen):
    """A raw row as read, with where it came from."""

    source: str
    """File name and 1-based line or row, as in ``tickets.jsonl:417``."""
    fields: dict[str, object]
    """The row's fields, unchanged."""


class Example(Frozen):
    """A valid conversation with a target: the last message, whose role is ``assistant``."""

    id: str
    """First 16 hex digits of the SHA-256 of the messages, and of ``rejected``: the same content has the same id everywhere."""
    source: str
    """Where the record was read, as in ``tickets.jsonl:417``."""
    messages: tuple[Message, ...] = Field(min_length=2)
    """Of a preference pair the last one is the chosen answer."""
    rejected: str | None = Field(default=None, exclude_if=lambda text: text is None)
    """The answer of a preference pair that is worse than the target; None = the example is no pair, and its JSON has no such field."""
    group: str = ""
    """Near-duplicate cluster: examples of one group never stand in different splits. Empty = a group of its own."""
    metadata: dict[str, Scalar] = {}
    """The record's other columns, for grouping, stratifying and slicing."""

    @property
    def prompt(self) -> tuple[Message, ...]:
        """All messages before the target."""
        return self.messages[:-1]

    @property
    def target(self) -> str:
        """The text that the model is to answer with."""
        return self.messages[-1].content


class Prediction(Frozen):
    """A model's answer to one held-out example, with its scores."""

    example_id: str
    prompt: str
    """The last user message, for reading (the whole prompt is rebuilt from the example)."""
    target: str
    answer: str
    prompt_tokens: int
    answer_tokens: int
    """Tokens generated, the end-of-turn token included."""
    finished: bool
    """True when the model ended its turn; False when it was cut at the token limit."""
    latency_s: float | None
    """Seconds from the start of the row's batch to the row's last token, or of the request; None = not measured: it came through a
    provider's batch API."""
    scores: dict[str, float | None] = {}
    """Score by metric; None = unscored, never 0."""


class Metric(Frozen):
    """An aggregate of scores, never without its count and interval."""

    name: str
    value: float
    ci_low: float
    ci_high: float
    n: int
    """Scored examples."""
    unscored: int = 0


class Evaluation(Frozen):
    """How one contestant (a baseline rung or the candidate) did on the sealed holdout."""

    name: str
    """``zero_shot``, ``few_shot`` or ``candidate``."""
    description: str
    """How it was prompted, in one line."""
    metrics: dict[str, Metric]
    model: str = ""
    """Base model that answered, as the spec calls it; empty = the candidate's own."""
    answer_tokens_mean: float
    answer_tokens_p50: float
    answer_tokens_p95: float
    prompt_tokens_mean: float
    latency_p50_s: float | None
    """None = not measured: answers came through a provider's batch API."""
    latency_p95_s: float | None
    batch_size: int
    tokens_per_second: float | None
    """Generated tokens per wall second, over all batches; None = not measured, as ``seconds``."""
    seconds: float | None
    """Wall seconds for all answers; None = not measured: answers came through a provider's batch API, or some were kept from before."""
    refusals: float
    """Share of answers that refuse or beg off where the target does not."""
    empty: float
    """Share of answers without a visible character."""
    holdout_sha256: str
    """Digest of the sealed holdout that was scored."""


class Check(Frozen):
    """One condition of the gate besides the gain itself: a slice, forgetting, the champion, the judge, a further metric, the cost."""

    name: str
    """``slice product=pay``, ``forgetting``, ``perplexity``, ``champion, new holdout``, ``judge``, ``metric json_valid`` …"""
    passed: bool | None
    """False: shown to be violated. None: neither shown nor excluded, so no promotion on this evidence."""
    text: str
    """One sentence with the figures."""
    difference: float | None = None
    """Candidate minus what it is compared with; positive is better."""
    ci_low: float | None = None
    ci_high: float | None = None
    p_value: float | None = None
    """Holm-adjusted where several checks of one kind are tested together."""
    limit: float | None = None
    """What the spec allows, as a difference."""
    n: int = 0


class Decision(Frozen):
    """What the gate decided and the evidence it rests on."""

    verdict: Verdict
    reasons: tuple[str, ...]
    metric: str | None = None
    baseline: str | None = None
    """Name of the best rung, the one the candidate had to beat."""
    baseline_value: float | None = None
    candidate_value: float | None = None
    difference: float | None = None
    """Candidate minus baseline, on the examples that both were scored on."""
    ci_low: float | None = None
    ci_high: float | None = None
    p_value: float | None = None
    test: str | None = None
    """``exact McNemar`` or ``paired permutation``."""
    n: int = 0
    unscored: int = 0
    n_needed: int | None = None
    """Held-out examples that would settle an inconclusive result, at the observed effect."""
    checks: tuple[Check, ...] = ()
    """What else the gate weighed."""
    alpha: float | None = None
    """Level that the main comparison was tested at, after its share for further metrics or looks."""
    look: int = 1
    """Which of training's checkpoints was promoted or judged last, counted from the best by validation loss."""


class ArtifactRef(Frozen):
    """A file in the object store: what a stage hands on instead of the data itself."""

    key: str
    """Key below the store's URI, ``stages/split/3f…/holdout.jsonl``."""
    sha256: str
    size: int
    """Bytes."""


class StageOutput(Frozen):
    """What one stage hands on: references and a few figures, never the data."""

    stage: str
    key: str
    """Digest of everything the stage's result depends on; the same key is the same work."""
    artifacts: dict[str, ArtifactRef]
    """By path relative to the stage's output folder."""
    figures: dict[str, Any]
    """JSON-able figures for the report and the next stages."""
    seconds: float
    """Wall time of the stage's own work, when it was really done."""
    done_at: str = ""
    """When that was, UTC, ISO 8601: a stage that was done again has the same key and another moment. Empty = it was not written down."""


class FileRef(Frozen):
    """Files that the spec names, by content: wherever they lie, the same content is the same input."""

    path: str
    sha256: str


class ModelRef(Frozen):
    """A base model by content: which one it is, on whatever machine its folder lies."""

    name: str
    """As the spec calls it: the demo model, a hub id or a folder."""
    revision: str
    sha256: str
    """Digest over the names and contents of all files that loading may read."""
    trust_remote_code: bool = False


class StageTime(Frozen):
    """How long a stage's own work took, and whether this run did it or found it done."""

    name: str
    seconds: float
    cached: bool


class RunResult(Frozen):
    """How a run ended: the verdict, its evidence and where everything is."""

    run_id: str
    """Name and digest of everything the result depends on: the same inputs are the same run."""
    verdict: Verdict
    reasons: tuple[str, ...]
    decision: Decision
    evaluations: tuple[Evaluation, ...]
    report: str
    """URI of the HTML report."""
    manifest: str
    """URI of the manifest that lists every file with its digest."""
    stages: tuple[StageTime, ...] = ()
    ui_url: str | None = None
    """Where the Prefect UI shows the flow run."""
    note: str = ""
    """Why a run with the verdict ``promote`` is not in use, and what to do; empty = nothing to say."""


class RunWaiting(Frozen):
    """A run that has ended for now, with nothing lost: running it again goes on."""

    run_key: str
    """Task and digest of everything the result depends on."""
    waits_for: Literal["job", "approval"]
    text: str
    """What is waited for, in one sentence."""
    key: str
    """Run key of the job, as `prooftune jobs` lists it."""
    ui_url: str | None = None


class Finding(Frozen):
    """One flaw that the data stages found, and what they did about it."""

    where: str
    """``tickets.jsonl:417``."""
    code: str
    """Kebab-case kind: ``broken-line``, ``exact-duplicate``, ``contradiction``, ``pii-email`` …"""
    reason: str
    """What was found and what is required, in one sentence; no example text."""
    action: Literal["dropped", "kept", "redacted", "grouped"]


class Progress(Frozen):
    """How far a long piece of work is."""

    done: int
    total: int
    unit: str
    """What is counted: ``steps``, ``answers``, ``rows``."""
    text: str = ""
    """The latest figures in words, ``loss 1.23, validation 1.31``."""


Report = Callable[[Progress], None]
"""What long library functions call now and then; tasks turn it into terminal bars and Prefect progress artifacts."""


def no_report(progress: Progress) -> None:
    """Ignore progress."""
