"""Let the gate decide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task

from prooftune.evidence import Champion, Costs, Forgetting, JudgeReport
from prooftune.report.markdown import escaped
from prooftune.report.wording import TITLES, named, reasons_of, sentence
from prooftune.spec import RunSpec
from prooftune.types import Decision, Frozen, StageOutput
from tasks.artifacts import show_markdown
from tasks.policies import policy
from tasks.scoring import read_predictions, read_rungs
from tasks.stage import Stage

WEIGHED: dict[str, type[Frozen]] = {
    "forgetting.json": Forgetting,
    "judge.json": JudgeReport,
    "champion.json": Champion,
    "costs.json": Costs,
}
"""Files of evidence that the gate reads, where a stage wrote them."""


@task(**policy("gate", version=3, timeout_minutes=30))
def gate(
    spec: RunSpec, splits: StageOutput, baselines: StageOutput, candidate: StageOutput, weighed: tuple[StageOutput, ...]
) -> StageOutput:
    """Decide on the paired evidence; hands on ``decision.json`` and ``slices.json``."""
    from prooftune.evaluation.gate import decide_and_write

    stage = Stage(spec.store)
    rungs = read_rungs(stage, baselines)
    answers = read_predictions(stage, candidate, "candidate.predictions.jsonl")
    holdout = stage.path(splits, "holdout.jsonl")
    evidence = {
        name.removesuffix(".json"): WEIGHED[name].model_validate_json(stage.path(output, name).read_bytes())
        for output in weighed
        for name in output.artifacts
        if name in WEIGHED
    }
    look = {"look": candidate.figures.get("look", 1), "alpha": candidate.figures.get("alpha")}
    output = stage.perform(lambda out: decide_and_write(rungs, answers, holdout, spec, evidence | look, out))
    show_markdown(
        decision_text(Decision.model_validate(output.figures["decision"])),
        key="gate",
        description="The gate decided on the paired evidence.",
    )
    return output


def decision_text(decision: Decision) -> str:
    """Return the verdict, its reasons and conditions as Markdown."""
    marks = {True: "✓", False: "✗", None: "?"}
    checks = [f"- {marks[check.passed]} **{escaped(named(check.name))}**: {escaped(sentence(check.text))}" for check in decision.checks]
    reasons = [f"- {escaped(reason)}" for reason in reasons_of(decision)]
    return "\n".join([f"# {TITLES[decision.verdict]}", "", *reasons, "", *checks])


def write_decision(decision: Decision | None, out: Path) -> dict[str, Any]:
    """Write ``decision.json`` where there is a decision; the figures carry it too, since the flow branches on it."""
    if decision is None:
        return {"decision": None}
    (out / "decision.json").write_text(decision.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return {"decision": decision.model_dump(mode="json")}
