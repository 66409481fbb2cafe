"""Metrics of the user's own: ``custom:NAME`` is the entry point NAME of the group ``prooftune.metrics``.

An entry point is a function ``(answer: str, target: str) -> float | None``: a score between 0 and 1, or None where the metric does not
apply to the target, whatever the answer. The metric is the mean of the scores. It is declared in the package that offers it::

    [project.entry-points."prooftune.metrics"]
    politeness = "my_package.metrics:politeness"
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import entry_points

from prooftune.errors import DataError, EnvironmentLacks
from prooftune.evaluation.metrics.definition import Definition
from prooftune.spec import Task

GROUP = "prooftune.metrics"
PREFIX = "custom:"


@lru_cache(maxsize=32)
def custom_metric(name: str) -> Definition:
    """Return the metric ``custom:NAME``.

    Raises:
        EnvironmentLacks: no installed package offers it, several do, or what they offer cannot be loaded.
    """
    scorer = _load(name)

    def score(answer: str, target: str, task: Task) -> float | None:
        value = scorer(answer, target)
        if value is None:
            if answer != target and scorer(target, target) is not None:
                raise DataError(
                    f"the metric {name} returned None for an answer to a target that it scores; a metric may leave a question unscored by "
                    "its target only; return 0 for a bad answer"
                )
            return None
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise DataError(
                f"the metric {name} returned {value!r}; a score is a number from 0 to 1, or None where the metric does not apply"
            )
        return float(value)

    return Definition(score)


def _load(name: str) -> Callable[[str, str], object]:
    offered = entry_points(group=GROUP)
    found = offered.select(name=name.removeprefix(PREFIX))
    if len(found) != 1:
        names = ", ".join(sorted({PREFIX + entry.name for entry in offered})) or "no custom metric"
        how_many = "several packages offer" if found else "no installed package offers"
        raise EnvironmentLacks(f"{how_many} the metric {name}; installed: {names}. A metric is an entry point of the group {GROUP}")
    (entry,) = found
    try:
        scorer = entry.load()
    except (ImportError, AttributeError) as error:
        raise EnvironmentLacks(f"the metric {name} cannot be loaded from {entry.value}: {error}") from error
    if not callable(scorer):
        raise EnvironmentLacks(f"the metric {name} is {entry.value}, which is no function (answer, target) -> score")
    loaded: Callable[[str, str], object] = scorer
    return loaded
