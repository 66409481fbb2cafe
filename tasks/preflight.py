"""Look at exactly what would be trained and measured, before anything is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task
from prefect.logging import get_run_logger

from prooftune.evaluation.answers.managed import ManagedBase
from prooftune.spec import RunSpec
from prooftune.types import FileRef, ModelRef, StageOutput
from tasks.artifacts import show_figures
from tasks.models import local_folder
from tasks.policies import policy
from tasks.stage import Stage


@task(**policy("preflight", version=2, timeout_minutes=30))
def preflight(
    spec: RunSpec, files: dict[str, FileRef], model: ModelRef | ManagedBase, splits: StageOutput, validated: StageOutput
) -> StageOutput:
    """Check what would be supervised, and that all that would be measured can be; hands on ``preflight.json`` and ``sample.txt``.

    Here, before anything is sent, a provider, judge or larger model is refused that may not get the data. ``files`` are those that the
    spec names besides its source.
    """
    from prooftune.data.preflight import preflight as check
    from prooftune.data.preflight import preflight_managed
    from prooftune.economics.policy import by_code
    from prooftune.evaluation.champion_files import check_champion
    from prooftune.evaluation.measurable import check_measurable

    stage = Stage(spec.store)
    train, validation, holdout = (stage.path(splits, f"{name}.jsonl") for name in ("train", "validation", "holdout"))
    check_measurable(spec, holdout, by_code(validated.figures["findings"]))
    if warning := check_champion(stage.objects, spec.name):
        get_run_logger().warning("%s", warning)

    def work(out: Path) -> dict[str, Any]:
        if isinstance(model, ManagedBase):
            return preflight_managed(train, validation, model.counter, model.longest_example, spec.task, out)
        base, trust = local_folder(model).path, model.trust_remote_code
        return check(train, validation, base, spec.task, spec.backend.method, out, trust_remote_code=trust)

    output = stage.perform(work)
    show_figures(output.figures, key="preflight", description="This is exactly what would be supervised and measured.")
    return output
