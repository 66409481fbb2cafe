"""How often the gate errs: the real ``decide`` on simulated answers whose truth is known.

Each world says how good baselines and candidates truly are. Many holdouts are drawn from it, and the gate decides on each. With no true
difference it must promote at most ``gate.alpha`` of the time, and its test must reject, in whatever direction, no more often than that.
With the difference that ``power`` calls detectable, and with the minimum effect on the holdout that is said to show it, it must *promote*
at least as often as the stated power. And the interval must hold the true difference as often as it says.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from typing import Any, Literal

import numpy as np
from banking77 import circumstances
from numpy.typing import NDArray

from prooftune.evaluation.gate.looks import look_in_turn
from prooftune.evaluation.gate.power import detectable_effect, examples_for, tested_at
from prooftune.evaluation.statistics import wilson
from prooftune.spec import Gate, Task
from prooftune.types import Decision, Prediction

FURTHER = ("label_accuracy", "json_valid")
CHECKPOINTS_AGREE = 0.8
"""Share of examples that a further checkpoint answers as the first does."""
METRICS_AGREE = 0.5
"""Share of examples on which a further metric is decided by the same luck as the main one."""
LABELS = 77
"""Of the worlds that are judged by macro F1: those of banking77, so many have two examples or three."""
METRIC = {"right/wrong": "exact_match", "graded": "rouge_l", "skewed": "rouge_l", "macro F1": "macro_f1"}


@dataclass(frozen=True)
class World:
    """The truth that answers are drawn from."""

    n: int
    baseline: float
    """Chance of every rung to be right; mean score where scores are graded."""
    effect: float = 0.0
    """What every candidate's chance is above that."""
    agreement: float = 0.0
    """Share of examples on which all contestants share their luck; at 0, as many pairs are discordant as the power reckons with."""
    rungs: int = 1
    looks: int = 1
    metrics: int = 1
    """The main one and further ones, which have no true difference."""
    scores: Literal["right/wrong", "graded", "skewed", "macro F1"] = "right/wrong"
    """Right and wrong are tested by McNemar, scores between 0 and 1 and macro F1 by permutation. Of skewed scores most are near 1."""
    min_effect: float = 0.02

    @property
    def gate(self) -> Gate:
        """The rules it is judged by."""
        return Gate(min_effect=self.min_effect, looks=self.looks, metrics=FURTHER[: self.metrics - 1], min_holdout=2)

    @property
    def is_quick(self) -> bool:
        """Whether a decision takes some milliseconds."""
        return self.is_single and self.scores == "right/wrong"

    @property
    def is_single(self) -> bool:
        """Whether there is one test: elsewhere what is tested, and at which level, depends on the data."""
        return self.rungs == self.looks == self.metrics == 1

    def detectable(self) -> World:
        """Return the same world with the effect that the gate is said to promote with its stated power."""
        gate = self.gate
        effect = detectable_effect(self.n, self.baseline, alpha=tested_at(gate), power=gate.power, min_effect=gate.min_effect)
        if effect is None:
            raise ValueError(f"{self} has no effect that could be detected")
        return replace(self, effect=effect)

    def large_enough(self) -> World:
        """Return the same world with the minimum effect, and the holdout that is said to show it."""
        gate = self.gate
        n = examples_for(gate.min_effect, self.baseline, alpha=tested_at(gate), power=gate.power, min_effect=gate.min_effect)
        if n is None:
            raise ValueError(f"{self} has a minimum effect that no number of examples shows")
        return replace(self, effect=gate.min_effect, n=n)


SINGLE = [World(n, score, agreement=agree) for n in (60, 120, 300) for score in (0.3, 0.6, 0.9) for agree in (0.0, 0.7)]
NO_DIFFERENCE = [
    *SINGLE,
    *[World(n, 0.6, **kind) for n in (60, 120, 300) for kind in ({"rungs": 4}, {"looks": 3}, {"metrics": 3})],  # type: ignore[arg-type]
    *[World(n, 0.6, agreement=0.7, rungs=4, looks=3, metrics=3) for n in (60, 300)],
    *[World(n, 0.6, scores="graded") for n in (60, 120)],
    *[World(n, 0.9, scores="skewed") for n in (20, 60)],
    World(200, 0.7, scores="macro F1"),
]
POWERED = [world for world in SINGLE if (world.n, world.baseline) != (60, 0.9)] + [
    *[World(n, 0.6, **kind) for n in (120, 300) for kind in ({"looks": 3}, {"metrics": 3})],  # type: ignore[arg-type]
    World(120, 0.6, scores="graded"),
]
"""The holdout of 60 shows no gain over 0.9: not even perfect answers."""
AT_MINIMUM = [
    *[World(2, score, min_effect=0.05, agreement=agree) for score in (0.6, 0.8) for agree in (0.0, 0.7)],
    World(2, 0.6, min_effect=0.1, looks=3),
    World(2, 0.9, min_effect=0.02),
]
"""Their n is that of ``large_enough``."""


def run(studies: int = 800) -> dict[str, Any]:
    """Return the gate's error rates, power and coverage by world; worlds that take long get half as many studies."""
    started = time.monotonic()
    worlds = {
        "no_difference": NO_DIFFERENCE,
        "detectable_difference": [world.detectable() for world in POWERED],
        "minimum_difference": [world.large_enough() for world in AT_MINIMUM],
    }
    with ProcessPoolExecutor() as pool:
        found = {
            name: [pool.submit(simulate, world, studies if world.is_quick else studies // 2, seed) for seed, world in enumerate(kind)]
            for name, kind in worlds.items()
        }
        results = {name: [future.result() for future in futures] for name, futures in found.items()}
    return circumstances() | {"seconds": round(time.monotonic() - started, 1)} | results


def simulate(world: World, studies: int, seed: int) -> dict[str, Any]:
    """Let the gate decide on many holdouts from one world; return how often it promotes, rejects and covers the truth."""
    rng = np.random.default_rng(seed)
    last = [study(world, rng)[-1] for _ in range(studies)]
    shares = {"promoted": sum(decision.verdict == "promote" for decision in last)}
    if world.is_single:
        shares["rejected"] = sum(bool(d.p_value < d.alpha) for d in last)  # type: ignore[operator]
        shares["covered"] = sum(bool(d.ci_low <= world.effect <= d.ci_high) for d in last)  # type: ignore[operator]
    return {**asdict(world), "studies": studies, **{name: [count / studies, *wilson(count, studies)] for name, count in shares.items()}}


def study(world: World, rng: np.random.Generator) -> tuple[Decision, ...]:
    """Draw a holdout and everyone's answers to it; return the gate's decisions, look by look."""
    drawn = list(draw(world, rng))
    baselines = {f"rung_{number}": answers for number, answers in enumerate(drawn[: world.rungs])}
    contenders = [partial(list[Prediction], answers) for answers in drawn[world.rungs :]]
    return look_in_turn(contenders, baselines, Task(metric=METRIC[world.scores]), world.gate, seed=0)


def draw(world: World, rng: np.random.Generator) -> Iterator[list[Prediction]]:
    """Yield each contestant's scored answers, the rungs' first.

    An answer is right where its luck, uniform between 0 and 1, is below the contestant's chance. Contestants share the luck of an example
    with probability ``agreement``, checkpoints that of the first one with ``CHECKPOINTS_AGREE``.
    """
    shape = (world.metrics, world.n)
    common, shared = _lucks(rng, shape), rng.random(world.n) < world.agreement
    first: NDArray[np.float64] | None = None
    for contestant in range(world.rungs + world.looks):
        luck = np.where(shared, common, _lucks(rng, shape))
        chance = np.full((world.metrics, 1), world.baseline)
        if contestant >= world.rungs:
            chance[0] += world.effect
            first = luck if first is None else first
            luck = np.where(rng.random(world.n) < CHECKPOINTS_AGREE, first, luck)
        scores = (luck < chance).astype(float)
        if world.scores == "graded":  # keeps the mean, and leaves hardly any two scores equal
            scores = scores + (rng.random(shape) / 2) * np.where(scores == 1, -(1 - chance), chance)
        elif world.scores == "skewed":
            scores = luck ** (1 / chance - 1)  # with the mean that is the chance
        yield [_answer(world, number, tuple(column)) for number, column in enumerate(scores.T.tolist())]


def _lucks(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return uniform numbers by metric and example; a further metric often has the main one's."""
    own = rng.random(shape)
    return np.where(rng.random(shape) < METRICS_AGREE, own[0], own)


def _answer(world: World, number: int, scores: tuple[float, ...]) -> Prediction:
    if world.scores == "macro F1":
        return _labelled(number, scores[0])
    return _right_or_wrong(number, scores) if set(scores) <= {0.0, 1.0} else _scored(number, {"rouge_l": scores[0]})


@cache
def _labelled(number: int, right: float) -> Prediction:
    """Return an answer that is the example's label, or the next one."""
    target = number % LABELS
    texts = {"target": f"label {target}", "answer": f"label {target if right else (target + 1) % LABELS}"}
    return _scored(number, {"macro_f1": right}).model_copy(update=texts)


@cache
def _right_or_wrong(number: int, scores: tuple[float, ...]) -> Prediction:
    return _scored(number, dict(zip(("exact_match", *FURTHER), scores, strict=False)))


def _scored(number: int, scores: dict[str, float]) -> Prediction:
    texts = {"example_id": str(number), "prompt": "", "target": "", "answer": ""}
    return Prediction(**texts, prompt_tokens=0, answer_tokens=0, finished=True, latency_s=0.0, scores=dict(scores))


def table(figures: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    titles = {
        "no_difference": "No true difference: promoted at most 5 %, rejected in either direction at most 5 %",
        "detectable_difference": "The difference that `power` calls detectable: promoted at least 80 %",
        "minimum_difference": "The minimum effect itself, on the holdout said to show it: promoted at least 80 %",
    }
    columns = [
        "n",
        "baseline",
        "effect",
        "agreement",
        "rungs",
        "looks",
        "metrics",
        "scores",
        "holdouts",
        "promoted",
        "rejected",
        "covered",
    ]
    head = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines = [f"{figures['date']}, {figures['machine']}, {figures['seconds']} s; shares of holdouts, with 95 % Monte-Carlo intervals"]
    for key, title in titles.items():
        lines += ["", title, "", *head, *(_row(found) for found in figures[key])]
    return "\n".join(lines)


def _row(found: dict[str, Any]) -> str:
    world = [f"{found[name]:.4g}" for name in ("n", "baseline", "effect", "agreement", "rungs", "looks", "metrics")]
    shares = [_percent(found.get(name)) for name in ("promoted", "rejected", "covered")]
    return f"| {' | '.join([*world, found['scores'], str(found['studies']), *shares])} |"


def _percent(share: Sequence[float] | None) -> str:
    return "" if share is None else "{:.1f} % ({:.1f} to {:.1f})".format(*(100 * value for value in share))
