"""What advice rests on: the figures that are known before training, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prooftune.economics import break_even
from prooftune.economics.estimate import DEMO_SIZE
from prooftune.economics.machine import Machine, machine_hour
from prooftune.economics.managed import BILLS_VALIDATION, training_usd
from prooftune.economics.offers import offer_of
from prooftune.economics.prices import PriceList
from prooftune.errors import SpecError
from prooftune.evaluation.metrics import definition_of
from prooftune.spec import RunSpec
from prooftune.types import Evaluation

REFERENCE_TOKENS_PER_S, REFERENCE_THREADS = 100.0, 2
"""LoRA training of the demo model on CPU, as measured (docs/measured.md)."""
FORWARD_PASSES = 3.0
"""Work of training on a token, in forward passes: the backward pass costs two (Kaplan et al., 2020, https://arxiv.org/abs/2001.08361)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What tuning would cost and save, if the tuned model reached ``task.target``: the best that can be hoped for."""

    tuning_usd: float
    saving_usd_per_request: float
    months: float | None
    """Until it is paid back at the spec's volume; None = never."""
    corrections_priced: bool
    """Whether better answers count: the metric says which answers are wrong, and the spec what a wrong one costs."""


@dataclass(frozen=True, slots=True)
class Case:
    """A task for which training is considered."""

    spec: RunSpec
    n_train: int
    n_holdout: int
    data: Mapping[str, Any]
    """Figures of the stage validate: ``valid``, ``kept``, ``findings``."""
    tokens: Mapping[str, Any]
    """Figures of the stage tokens by split: ``examples``, ``total``, ``supervised``."""
    baselines: Sequence[Evaluation]
    """Empty before any model has run."""
    diversity: float | None
    """``diversity_of`` the training split; None = not measured."""
    machine: Machine
    parameters: int | None
    """Of the base model; None = it is not on this machine."""
    prices: PriceList

    @property
    def best(self) -> Evaluation | None:
        """The best baseline, the earlier one where two are equal."""
        return max(self.baselines, key=self.value, default=None)

    def value(self, baseline: Evaluation) -> float:
        """Value of the metric that the gate decides on."""
        return baseline.metrics[self.spec.task.metric].value

    def found(self, code: str) -> int:
        """How many rows have a finding of this code, whatever was done about it."""
        return int(sum(self.data.get("findings", {}).get(code, {}).values()))

    @property
    def contradicting(self) -> float:
        """Share of distinct examples whose prompt has another target elsewhere."""
        distinct = self.data.get("valid", 0) - self.found("exact-duplicate")
        return self.found("contradiction") / distinct if distinct > 0 else 0.0

    @property
    def trained_tokens(self) -> float:
        """Tokens that training would read, over all epochs."""
        managed = self.spec.backend.managed
        epochs = self.spec.provider.hyperparameters.epochs if managed else self.spec.backend.method.epochs
        return float(self.tokens.get("train", {}).get("total", 0) * epochs)

    @property
    def managed_usd(self) -> float | None:
        """What training would cost at the spec's provider, by the tokens that were counted; None = the price list does not say."""
        backend, tokens = self.spec.backend, self.trained_tokens
        if backend.provider in BILLS_VALIDATION:
            tokens += self.tokens.get("validation", {}).get("total", 0) * self.spec.provider.hyperparameters.epochs
        try:
            return training_usd(self.spec, offer_of(backend.provider, backend.model, self.prices), round(tokens), self.prices)
        except SpecError:
            return None

    @property
    def training_hours(self) -> float | None:
        """Hours that training would take here: by the speed at which the baselines ran, else by a measured CPU run; None = not known."""
        if self.spec.backend.managed:
            return None
        speeds = [speed for one in self._local if (speed := _tokens_per_second(one, self._asked(one))) is not None]
        if speeds:
            return float(self.trained_tokens * FORWARD_PASSES / min(speeds) / 3600)
        if self.machine.cuda or self.parameters is None:
            return None
        speed = REFERENCE_TOKENS_PER_S * DEMO_SIZE.parameters / self.parameters * self.machine.threads / REFERENCE_THREADS
        return float(self.trained_tokens / speed / 3600)

    @property
    def _local(self) -> list[Evaluation]:
        """Baselines that the candidate's own base model answered, on this machine."""
        if self.spec.backend.managed:
            return []
        return [one for one in self.baselines if one.name != "larger_model" and one.model in ("", self.spec.backend.model)]

    def _asked(self, baseline: Evaluation) -> int:
        metric = baseline.metrics[self.spec.task.metric]
        return metric.n + metric.unscored

    def plan(self) -> Plan | None:
        """Return when tuning would be paid back at best; None before a baseline has run here, or without a volume.

        A request to the tuned model has the holdout's prompt without demonstrations and the target's length, and costs in proportion to
        its tokens.
        """
        best, hours, volume = self.best, self.training_hours, self.spec.use.requests_per_month
        if best is None or best not in self._local or best.seconds is None or hours is None or volume is None:
            return None
        usd_per_hour = machine_hour(self.spec.use, self.machine, self.prices).usd
        answering = 0.0
        if self.spec.use.hosting_hours_per_month is None:  # else the machine is paid for whoever is prompted on it
            now = best.seconds / max(self._asked(best), 1) / 3600 * usd_per_hour
            answering = now * (1 - min(self._tuned_tokens() / max(best.prompt_tokens_mean + best.answer_tokens_mean, 1.0), 1.0))
        use, tuning = self.spec.use, hours * usd_per_hour
        right_or_wrong = definition_of(self.spec.task.metric).right_or_wrong
        per_wrong = use.minutes_per_wrong_answer / 60 * use.usd_per_hour_of_work if right_or_wrong else 0.0
        saving = answering + max(self.spec.task.target - self.value(best), 0.0) * per_wrong
        return Plan(tuning, saving, break_even.months_until_paid(tuning, saving, 0.0, volume), per_wrong > 0)

    def _tuned_tokens(self) -> float:
        holdout = self.tokens.get("holdout", {})
        return float(holdout.get("total", 0) / max(holdout.get("examples", 0), 1))


def _tokens_per_second(baseline: Evaluation, asked: int) -> float | None:
    tokens = asked * (baseline.prompt_tokens_mean + baseline.answer_tokens_mean)
    return tokens / baseline.seconds if baseline.seconds and tokens > 0 else None
