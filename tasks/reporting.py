"""Write the report, the model card and the technical file."""

from __future__ import annotations

from typing import Any

from prefect import task

from prooftune.environment import library_versions
from prooftune.spec import RunSpec
from prooftune.types import ModelRef, StageOutput
from tasks.artifacts import show_link
from tasks.policies import policy
from tasks.stage import Stage
from tasks.upload import published

TUNED = "model/managed.json"
"""Where a managed training says what it made."""


@task(**policy("report", version=3, timeout_minutes=15))
def report(spec: RunSpec, run_id: str, model: ModelRef, made_from: dict[str, Any], outputs: tuple[StageOutput, ...]) -> StageOutput:
    """Put all that the stages handed on into ``report.html``, ``model_card.md`` and ``technical_file.md``."""
    from prooftune.report.html import write_report
    from prooftune.report.view import load_view

    stage = Stage(spec.store)
    wanted = (".json", ".jsonl", ".csv", ".txt")
    skipped = ("records.jsonl", "examples.jsonl", "train.jsonl", "validation.jsonl", "holdout.jsonl")
    files = {
        name: stage.path(output, name)
        for output in outputs
        for name in output.artifacts
        if ("/" not in name or name == TUNED) and name.endswith(wanted) and name not in skipped
    }
    view = load_view(
        run_id,
        spec,
        figures={output.stage: output.figures for output in outputs},
        files=files,
        seconds={output.stage: output.seconds for output in outputs},
        versions=library_versions(),
        digests={"base model": model.sha256} | {name: ref.sha256 for name, ref in sorted(published(outputs).items())},
        lineage=made_from,
    )
    output = stage.perform(lambda out: write_report(view, out))
    link = f"{stage.objects.uri}/{output.artifacts['report.html'].key}"
    show_link(link, key="report", description="The report: the verdict and all its evidence on one page.")
    return output
