"""The spec as a whole."""

from __future__ import annotations

import yaml

from prooftune.spec.data import Data
from prooftune.spec.evaluation import Baseline, Gate, General, Judge, LearningCurve, Task
from prooftune.spec.fields import Name
from prooftune.spec.training import Backend, Store, Tracking
from prooftune.spec.use import Use
from prooftune.types import Frozen


class RunSpec(Frozen):
    """Everything a run depends on. Six lines are enough: ``name``, ``data.source`` and what differs from the defaults."""

    name: Name
    """Name of the task: lower case, digits, dashes. Champions are kept under it."""
    data: Data
    task: Task = Task()
    baseline: Baseline = Baseline()
    backend: Backend = Backend()
    gate: Gate = Gate()
    judge: Judge = Judge()
    general: General = General()
    learning_curve: LearningCurve = LearningCurve()
    use: Use = Use()
    store: Store = Store()
    tracking: Tracking = Tracking()

    def resolved_yaml(self) -> str:
        """The spec with every default filled in, as it is saved beside each artifact."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
