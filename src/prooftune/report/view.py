"""Everything that a report shows of a run, read from the files that its stages wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from prooftune.data.lines import read_lines
from prooftune.economics.approvals import Answer
from prooftune.economics.bill import Bill
from prooftune.economics.managed import Estimate
from prooftune.errors import IntegrityError
from prooftune.evaluation.ladder.shots import ShotsChoice
from prooftune.evidence import Advice, BreakEven, Champion, Costs, Curve, Failures, Forgetting, JudgeReport, JudgeVerdict, Option, Slice
from prooftune.providers.collection import JOB, MANAGED, JobFile, ManagedModel
from prooftune.report.reading import (
    Confusion,
    Histogram,
    Kind,
    read_confusions,
    read_list,
    read_log,
    read_looks,
    read_model,
    read_objects,
    read_token_lengths,
)
from prooftune.spec import RunSpec
from prooftune.types import Decision, Evaluation, Finding, Frozen, Prediction

CANDIDATE = "candidate"


class RunView(Frozen):
    """All that a report shows. What a run that stopped early did not produce is empty."""

    run_id: str
    spec: RunSpec
    decision: Decision
    evaluations: tuple[Evaluation, ...] = ()
    """The baseline rungs in ladder order, then the candidate, unless the run stopped before training."""
    predictions: dict[str, tuple[Prediction, ...]] = {}
    """By contestant."""
    confusions: dict[str, tuple[Confusion, ...]] = {}
    """By contestant, where the targets are labels."""
    choices: dict[str, ShotsChoice] = {}
    """By rung: how many demonstrations it shows, and why."""
    slices: tuple[Slice, ...] = ()
    forgetting: Forgetting | None = None
    judge: JudgeReport | None = None
    judged: dict[str, str] = {}
    """By example: ``candidate``, ``baseline`` or ``tie``."""
    champion: Champion | None = None
    advice: Advice | None = None
    costs: Costs | None = None
    curve: Curve | None = None
    failures: Failures | None = None
    labelling: tuple[dict[str, Any], ...] = ()
    """Rows of the labelling list for the next iteration."""
    looks: tuple[dict[str, Any], ...] = ()
    """Training's checkpoints that were tried on the holdout, in the order they were tried."""
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
    lineage: dict[str, Any] = {}
    """What the result was made from: nested names, with digests and versions as text."""
    managed: ManagedModel | None = None
    """The tuned model of a managed run; this and the four below are None for a run on this machine."""
    job: JobFile | None = None
    estimate: Estimate | None = None
    approval: Answer | None = None
    """What a person said to the estimate; None also where nobody had to be asked."""
    bill: Bill | None = None

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
        return f"{100 * (1 - (self.decision.alpha or self.spec.gate.alpha)):.4g}"

    @property
    def best_step(self) -> int | None:
        """Optimizer step of the checkpoint that became the candidate: what training says, else the lowest validation loss.

        None for a managed run: its candidate is the model that the job ended with.
        """
        if self.spec.backend.managed:
            return None
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

    @property
    def break_even(self) -> BreakEven | None:
        """When tuning is paid back, for the first tuned option: the candidate of this run."""
        return next(iter(self.costs.break_even), None) if self.costs else None

    def option(self, name: str) -> Option | None:
        """Return a way to serve the task by its name."""
        return next((option for option in self.costs.options if option.name == name), None) if self.costs else None

    def finished_share(self, contestant: str) -> float | None:
        """Share of a contestant's answers that ended with its own end of turn, not at the token limit."""
        answers = self.predictions.get(contestant, ())
        return sum(answer.finished for answer in answers) / len(answers) if answers else None


def load_view(
    run_id: str,
    spec: RunSpec,
    figures: Mapping[str, Mapping[str, Any]],
    files: Mapping[str, Path],
    seconds: Mapping[str, float],
    versions: Mapping[str, str] | None = None,
    digests: Mapping[str, str] | None = None,
    lineage: Mapping[str, Any] | None = None,
) -> RunView:
    """Read a run's files into a view; ``files`` maps names such as ``decision.json`` or ``few_shot.predictions.jsonl`` to paths.

    Only ``decision.json`` must be there: a run that stopped early has no other.

    Raises:
        IntegrityError: there is no decision, or a file is not what its stage wrote.
    """
    if "decision.json" not in files:
        raise IntegrityError(f"run {run_id} has no decision.json, so there is no verdict to report; run the gate first")
    who = (*spec.baseline.ladder, CANDIDATE)
    return RunView(
        run_id=run_id,
        spec=spec,
        decision=read_model(files["decision.json"], Decision),
        evaluations=tuple(read_model(files[name], Evaluation) for each in who if (name := f"{each}.evaluation.json") in files),
        predictions={each: tuple(read_lines(files[name], Prediction)) for each in who if (name := f"{each}.predictions.jsonl") in files},
        confusions={each: read_confusions(files[name]) for each in who if (name := f"{each}.confusion.csv") in files},
        choices={each: read_model(files[name], ShotsChoice) for each in who if (name := f"{each}.choice.json") in files},
        findings=tuple(read_lines(files["findings.jsonl"], Finding)) if "findings.jsonl" in files else (),
        figures={stage: dict(values) for stage, values in figures.items()},
        loss=tuple(read_log(files["log.jsonl"])) if "log.jsonl" in files else (),
        token_lengths=read_token_lengths(figures.get("tokens", {})),
        seconds=dict(seconds),
        versions=dict(versions or {}),
        digests=dict(digests or {}),
        lineage=dict(lineage or {}),
        **_evidence(files),
        **_managed(files),
    )


def _one(files: Mapping[str, Path], name: str, kind: type[Kind]) -> Kind | None:
    return read_model(files[name], kind) if name in files else None


def _managed(files: Mapping[str, Path]) -> dict[str, Any]:
    """Return what a managed run has besides, as far as it came."""
    return {
        "managed": _one(files, f"model/{MANAGED}", ManagedModel),
        "job": _one(files, JOB, JobFile),
        "estimate": _one(files, "estimate.json", Estimate),
        "approval": _one(files, "approval.json", Answer),
        "bill": _one(files, "bill.json", Bill),
    }


def _evidence(files: Mapping[str, Path]) -> dict[str, Any]:
    """Return what the decision rests on besides the answers, as far as the run has it."""
    one = partial(_one, files)
    verdicts = read_lines(files["judge.jsonl"], JudgeVerdict) if "judge.jsonl" in files else ()
    return {
        "slices": read_list(files["slices.json"], Slice) if "slices.json" in files else (),
        "forgetting": one("forgetting.json", Forgetting),
        "judge": one("judge.json", JudgeReport),
        "judged": {verdict.example_id: verdict.outcome for verdict in verdicts if verdict.outcome is not None},
        "champion": one("champion.json", Champion),
        "advice": one("advice.json", Advice),
        "costs": one("costs.json", Costs),
        "curve": one("learning_curve.json", Curve),
        "failures": one("failures.json", Failures),
        "labelling": tuple(read_objects(files["labelling.jsonl"])) if "labelling.jsonl" in files else (),
        "looks": tuple(read_looks(files["looks.json"])) if "looks.json" in files else (),
    }
