"""Compare the candidates of several backends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task

from prooftune.spec import Store
from prooftune.types import StageOutput
from tasks.artifacts import show_link, show_table
from tasks.policies import policy
from tasks.stage import Stage


@task(**policy("compare", 2, 60, of_run=False))
def compare_results(store: Store, name: str, runs: dict[str, str]) -> StageOutput:
    """Compare published runs of one spec, by backend; hands on ``comparison.json`` and ``comparison.html``."""
    from prooftune.evaluation.backends import compare_backends
    from prooftune.report.comparison import render_comparison

    stage = Stage(store)

    def work(out: Path) -> dict[str, Any]:
        found = compare_backends(stage.objects, runs)
        (out / "comparison.json").write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
        (out / "comparison.html").write_text(render_comparison(found), encoding="utf-8", newline="\n")
        return found.model_dump(mode="json")

    output = stage.perform(work)
    show_table(
        output.figures["contenders"], key="comparison", description=f"{name} was tuned on {len(runs)} backends and measured on one holdout."
    )
    show_link(
        f"{stage.objects.uri}/{output.artifacts['comparison.html'].key}",
        key="comparison-page",
        description="The page that compares the backends.",
    )
    return output
