"""Look at exactly what would be trained and measured, before anything is."""

from __future__ import annotations

from prefect import task

from prooftune.spec import Method, Store, Task
from prooftune.types import ModelRef, StageOutput
from tasks.artifacts import show_markdown
from tasks.models import local_folder
from tasks.policies import policy
from tasks.stage import Stage


@task(**policy("preflight", version=2, timeout_minutes=30))
def preflight(
    store: Store, options: Task, further_metrics: tuple[str, ...], method: Method, model: ModelRef, splits: StageOutput
) -> StageOutput:
    """Check what would be supervised and measured; hands on ``preflight.json`` and ``sample.txt``."""
    from prooftune.data.preflight import preflight as check
    from prooftune.evaluation.gate.slices import check_slices
    from prooftune.evaluation.metrics import check_metrics

    stage = Stage(store)
    train, validation = stage.path(splits, "train.jsonl"), stage.path(splits, "validation.jsonl")
    check_metrics((options.metric, *options.metrics, *further_metrics), options)
    check_slices(stage.path(splits, "holdout.jsonl"), options)
    base = local_folder(model).path
    output = stage.perform(lambda out: check(train, validation, base, options, method, out, trust_remote_code=model.trust_remote_code))
    rows = "\n".join(f"| {name} | {value} |" for name, value in output.figures.items())
    show_markdown(f"What will be trained\n\n| figure | value |\n|---|---|\n{rows}", key="preflight", description="What will be trained")
    return output
