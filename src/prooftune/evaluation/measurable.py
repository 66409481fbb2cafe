"""Whether all that a spec wants measured can be measured, found out before anything is prompted or trained."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path

from prooftune.data.lines import read_lines
from prooftune.economics.policy import check_policy
from prooftune.economics.prices import load_prices
from prooftune.evaluation.gate import check_gate_metrics
from prooftune.evaluation.gate.slices import check_slices
from prooftune.evaluation.general import check_askable
from prooftune.evaluation.general.harness import check_tasks
from prooftune.evaluation.judge.agreement import read_labels
from prooftune.evaluation.metrics import check_metrics
from prooftune.providers.chat import read_key
from prooftune.spec import RunSpec
from prooftune.types import Example


def check_measurable(spec: RunSpec, holdout: Path, findings: Mapping[str, int]) -> None:
    """Check metrics, slices, judge, human labels, lm-eval tasks, keys, and that the data may go where they would.

    ``findings`` counts what validation found, by code.

    Raises:
        SpecError: a metric lacks its option, a provider may not get the data, or lm-eval's tasks are wanted of a managed model.
        DataError: a metric scores no held-out target, a column to slice by is not there, human labels cannot be read, or lm-eval knows no
            such task.
        EnvironmentLacks: a custom metric, a key or the package lm-eval is missing.
    """
    check_policy(spec, load_prices(Path(spec.use.prices) if spec.use.prices else None, date.today()), findings)
    check_metrics((spec.task.metric, *spec.task.metrics, *spec.gate.metrics), spec.task)
    check_slices(holdout, spec.task)
    targets = [example.target for example in read_lines(holdout, Example)]
    check_gate_metrics(targets, spec.task, spec.gate)
    if spec.backend.managed:
        check_askable(spec.general)
    else:
        check_tasks(spec.general)
    if spec.judge.model is not None:
        read_key(spec.judge.provider)
        if spec.judge.human_labels is not None:
            read_labels(Path(spec.judge.human_labels))
    if "larger_model" in spec.baseline.ladder and spec.baseline.larger.provider != "local":
        read_key(spec.baseline.larger.provider)
