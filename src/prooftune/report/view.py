"""Everything that a report shows of a run, read from the files that its stages wrote."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from prooftune.data.lines import read_lines
from prooftune.errors import IntegrityError
from prooftune.spec import RunSpec
from prooftune.types import Decision, Evaluation, Finding, Frozen, Prediction, SplitName

CANDIDATE = "candidate"
Kind = TypeVar("Kind", bound=BaseModel)


class Histogram(Frozen):
    """Counts of integer lengths; bin ``i`` holds ``edges[i] ≤ length < edges[i + 1]``."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    p50: float | None = None
    p95: float | None = None


class RunView(Frozen):
    """All that a report shows. What a run that stopped early did not produce is empty."""

    run_id: str
    spec: RunSpec
    decision: Decision
    evaluations: tuple[Evaluation, ...] = ()
    """The baseline rungs in ladder order, then the candidate, unless the run stopped before training."""
    predictions: dict[str, tuple[Prediction, ...]] = {}
    """By contestant."""
    findings: tuple[Finding, ...] = ()
    figures: dict[str, dict[str, Any]] = {}
    """By stage, in the order of the stages."""
    loss: tuple[dict[str, int | float | None], ...] = ()
    """Rows of training's log: ``step, epoch, loss, validation_loss, learning_rate, tokens``; losses in nats per supervised token."""
    token_lengths: dict[str, Histogram] = {}
    """Tokens per example, by split."""
    seconds: dict[str, float] = {}
    """Wall seconds by stage, in the order of the stages."""
    versions: dict[str, str] = {}
    digests: dict[str, str] = {}
    """SHA-256 by what it seals: the base model, and each published file by its name."""

    @property
    def candidate(self) -> Evaluation | None:
        """The candidate's evaluation, or None where the run stopped before training."""
        return next((evaluation for evaluation in self.evaluations if evaluation.name == CANDIDATE), None)

    @property
    def baseline(self) -> Evaluation | None:
        """The best rung's evaluation: the one that the candidate had to beat."""
        return next((evaluation for evaluation in self.evaluations if evaluation.name == self.decision.baseline), None)

    @property
    def metric(self) -> str:
        """Name of the metric that the gate decided on."""
        return self.decision.metric or self.spec.task.metric

    @property
    def confidence(self) -> str:
        """Level of the difference's interval, in per cent, as in ``95``; each contestant's own intervals are always 95 %."""
        return f"{100 * (1 - self.spec.gate.alpha):g}"

    @property
    def best_step(self) -> int | None:
        """Optimizer step of the checkpoint that became the candidate: what training says, else the lowest validation loss."""
        if (chosen := self.figures.get("train", {}).get("best_step")) is not None:
            return int(chosen)
        checks = [(loss, row["step"]) for row in self.loss if (loss := row.get("validation_loss")) is not None]
        step = min(checks)[1] if checks else None
        return None if step is None else int(step)

    @property
    def finding_counts(self) -> list[tuple[str, str, int]]:
        """``(code, action, count)``, most frequent first."""
        counts = Counter((finding.code, finding.action) for finding in self.findings)
        return [(code, action, count) for (code, action), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]

    def finished_share(self, contestant: str) -> float | None:
        """Share of a contestant's answers that ended with its own end of turn, not at the token limit."""
        answers = self.predictions.get(contestant, ())
        return sum(answer.finished for answer in answers) / len(answers) if answers else None


@dataclass(frozen=True, slots=True)
class Change:
    """One held-out example on which the best baseline and the candidate scored differently."""

    baseline: Prediction
    candidate: Prediction
    difference: float
    """Candidate's score minus the baseline's."""


@dataclass(frozen=True, slots=True)
class Changes:
    """How the candidate's answers differ from the best baseline's, example by example."""

    regressions: tuple[Change, ...]
    """Worst first."""
    improvements: tuple[Change, ...]
    """Best first."""
    both_right: int
    """Same full score."""
    same: int
    """Same score below the full one."""
    unscored: int


def compare_answers(view: RunView) -> Changes:
    """Pair the best baseline's answers with the candidate's and sort them by what changed, ties by example id."""
    baseline = {prediction.example_id: prediction for prediction in view.predictions.get(view.decision.baseline or "", ())}
    changes, both_right, same, unscored = [], 0, 0, 0
    for after in view.predictions.get(CANDIDATE, ()):
        before = baseline.get(after.example_id)
        old, new = (None if answer is None else answer.scores.get(view.metric) for answer in (before, after))
        if before is None or old is None or new is None:
            unscored += 1
        elif old != new:
            changes.append(Change(before, after, new - old))
        elif new == 1:
            both_right += 1
        else:
            same += 1
    changes.sort(key=lambda change: (-abs(change.difference), change.candidate.example_id))
    worse = tuple(change for change in changes if change.difference < 0)
    better = tuple(change for change in changes if change.difference > 0)
    return Changes(worse, better, both_right, same, unscored)


def load_view(
    run_id: str,
    spec: RunSpec,
    figures: Mapping[str, Mapping[str, Any]],
    files: Mapping[str, Path],
    seconds: Mapping[str, float],
    versions: Mapping[str, str] | None = None,
    digests: Mapping[str, str] | None = None,
) -> RunView:
    """Read a run's files into a view; ``files`` maps names such as ``decision.json`` or ``few_shot.predictions.jsonl`` to paths.

    Only ``decision.json`` must be there: a run that stopped early has no other.

    Raises:
        IntegrityError: there is no decision, or a file is not what its stage wrote.
    """
    if "decision.json" not in files:
        raise IntegrityError(f"run {run_id} has no decision.json, so there is no verdict to report; run the gate first")
    contestants = (*spec.baseline.ladder, CANDIDATE)
    return RunView(
        run_id=run_id,
        spec=spec,
        decision=_read(files["decision.json"], Decision),
        evaluations=tuple(_read(files[name], Evaluation) for who in contestants if (name := f"{who}.evaluation.json") in files),
        predictions={
            who: tuple(read_lines(files[name], Prediction)) for who in contestants if (name := f"{who}.predictions.jsonl") in files
        },
        findings=tuple(read_lines(files["findings.jsonl"], Finding)) if "findings.jsonl" in files else (),
        figures={stage: dict(values) for stage, values in figures.items()},
        loss=tuple(_log_rows(files["log.jsonl"])) if "log.jsonl" in files else (),
        token_lengths=_token_lengths(figures.get("tokens", {})),
        seconds=dict(seconds),
        versions=dict(versions or {}),
        digests=dict(digests or {}),
    )


def _read(path: Path, kind: type[Kind]) -> Kind:
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        reason = error.errors(include_input=False, include_url=False)[0]["msg"]
        raise IntegrityError(f"{path.name} holds no {kind.__name__} ({reason}), although a stage wrote it; run that stage again") from None


def _log_rows(path: Path) -> Iterator[dict[str, int | float | None]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise IntegrityError(f"{path.name}:{number} is not JSON ({error.msg}), although training wrote it; run train again") from None
        if not isinstance(row, dict) or "step" not in row:
            raise IntegrityError(f"{path.name}:{number} has no step, although training wrote it; run train again")
        yield row


def _token_lengths(figures: Mapping[str, Any]) -> dict[str, Histogram]:
    found = {name: figures[name] for name in get_args(SplitName) if "histogram" in figures.get(name, {})}
    return {name: Histogram(**split["histogram"], p50=split.get("p50"), p95=split.get("p95")) for name, split in found.items()}
