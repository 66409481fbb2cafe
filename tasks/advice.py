"""Say whether training is worth it, before it costs anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task

from prooftune.report.markdown import escaped
from prooftune.report.wording import capitalize_first, name_of, named
from prooftune.spec import RunSpec
from prooftune.types import FileRef, StageOutput
from tasks.artifacts import show_markdown
from tasks.gate import decision_text, write_decision
from tasks.policies import policy
from tasks.scoring import read_evaluations
from tasks.stage import Stage


@task(**policy("advise", version=3, timeout_minutes=15))
def advise(
    spec: RunSpec, prices: FileRef, validated: StageOutput, tokens: StageOutput, splits: StageOutput, baselines: StageOutput
) -> StageOutput:
    """Weigh data, baselines, power, use and money; hands on ``advice.json``, and ``decision.json`` where training is not worth it.

    ``prices`` is the price list that the spec names; it is here for the stage's key.
    """
    from prooftune.evaluation.advice import advise as weigh

    stage = Stage(spec.store)
    train = stage.path(splits, "train.jsonl")
    rungs = read_evaluations(stage, baselines)
    shown = ""

    def work(out: Path) -> dict[str, Any]:
        nonlocal shown
        advice, decision = weigh(spec, train, splits.figures["counts"], validated.figures, tokens.figures, rungs)
        (out / "advice.json").write_text(advice.model_dump_json(indent=1) + "\n", encoding="utf-8")
        findings = "\n".join(
            f"- **{escaped(found.topic)}** ({escaped(named(found.figure))}): {escaped(named(found.text))}" for found in advice.findings
        )
        shown = f"# {capitalize_first(name_of(advice.recommendation))}\n\n{escaped(named(advice.why))}\n\n{findings}"
        if decision is not None:
            shown = f"{decision_text(decision)}\n\n{shown}"
        return {"recommendation": advice.recommendation, "why": advice.why, **write_decision(decision, out)}

    output = stage.perform(work)
    show_markdown(shown or output.figures["why"], key="advise", description="Before anything is trained: is it worth it?")
    return output
