"""Tasks of lm-evaluation-harness, item by item, so that before and after can be paired."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from prooftune.errors import DataError, EnvironmentLacks
from prooftune.spec import General

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

COUNTED = ("acc", "exact_match")
"""Metrics that are 1 for a right answer and 0 for a wrong one."""
SAY_EVERY_S = 3600.0
"""lm-eval tells nobody how far it is, and a run that shows nothing for hours is taken for stuck."""
log = logging.getLogger(__name__)


def check_tasks(options: General) -> None:
    """Check that lm-eval is there and knows the tasks, before anything is run; their data sets are fetched later.

    Raises:
        EnvironmentLacks: lm-eval is not installed.
        DataError: there is no such task, it is a group of tasks, or it measures no accuracy.
    """
    if options.lm_eval:
        _tasks_of(options)


def run_tasks(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, options: General) -> dict[str, list[float]]:
    """Return 1.0 for right and 0.0 for wrong of each item, by task; zero-shot.

    Raises:
        EnvironmentLacks, DataError: as ``check_tasks``.
    """
    tasks = _tasks_of(options)
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    with _heard(model):
        found = simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8),
            tasks=list(options.lm_eval),
            num_fewshot=0,
            limit=options.limit,
            task_manager=tasks,
            log_samples=True,
            bootstrap_iters=0,
            verbosity="ERROR",
        )
    return {name: _items(name, found["samples"][name]) for name in options.lm_eval}


@contextmanager
def _heard(model: PreTrainedModel) -> Iterator[None]:
    """Log now and then, while the block works, that the model is asked."""
    asked, said = 0, time.monotonic()

    def note(*_: object) -> None:
        nonlocal asked, said
        asked += 1
        if time.monotonic() - said >= SAY_EVERY_S:
            log.info("lm-eval's tasks go on: the model was asked %d times", asked)
            said = time.monotonic()

    hook = model.register_forward_pre_hook(note)
    try:
        yield
    finally:
        hook.remove()


def _tasks_of(options: General) -> TaskManager:
    """Return an index that holds the tasks named."""
    if find_spec("lm_eval") is None:
        raise EnvironmentLacks(
            f"general.lm_eval names {', '.join(options.lm_eval)}, but the package lm-eval is not installed; "
            "run `pip install 'prooftune[lm-eval]'`, or leave the list empty"
        )
    tasks = _index(options)
    if groups := [name for name in options.lm_eval if name in tasks.all_tasks and name not in tasks.all_subtasks]:
        raise DataError(
            f"lm-eval's {', '.join(groups)} is a group of tasks, and forgetting is compared task by task; name tasks of it: "
            "`lm-eval ls subtasks` lists them"
        )
    if unknown := [name for name in options.lm_eval if name not in tasks.all_subtasks]:
        raise DataError(
            f"lm-eval knows no task {', '.join(unknown)}; `lm-eval ls subtasks` lists them, general.lm_eval_folder adds your own"
        )
    for name in options.lm_eval:
        metrics = (tasks.task_index[name].cfg or {}).get("metric_list")
        if metrics and not any(metric["metric"] in COUNTED for metric in metrics):
            raise _counts_nothing(name)
    return tasks


def _index(options: General) -> TaskManager:
    """Index the user's own tasks, and lm-eval's only where they are needed: reading those takes some ten seconds."""
    from lm_eval.tasks import TaskManager

    if options.lm_eval_folder is not None:
        own = TaskManager(include_path=options.lm_eval_folder, include_defaults=False)
        if set(options.lm_eval) <= set(own.all_tasks):
            return own
    return TaskManager(include_path=options.lm_eval_folder)


def _items(name: str, samples: list[dict[str, object]]) -> list[float]:
    """Return each item's accuracy in the order of the documents. A sample is logged for each of a task's filters: the first one counts."""
    measured = next((metric for metric in COUNTED if samples and metric in samples[0]), None)
    if measured is None:
        raise _counts_nothing(name)
    counted = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
    return [float(str(sample[measured])) for sample in sorted(counted, key=lambda sample: int(str(sample["doc_id"])))]


def _counts_nothing(name: str) -> DataError:
    return DataError(f"lm-eval's task {name} measures neither {' nor '.join(COUNTED)}; forgetting is counted in right answers")
