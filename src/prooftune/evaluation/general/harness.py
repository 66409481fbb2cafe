"""Tasks of lm-evaluation-harness, item by item, so that before and after can be paired."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from prooftune.errors import DataError, EnvironmentLacks
from prooftune.spec import General

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def run_tasks(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, options: General) -> dict[str, list[float]]:
    """Return 1.0 for right and 0.0 for wrong of each item, by task; zero-shot.

    Raises:
        EnvironmentLacks: lm-eval is not installed.
        DataError: there is no such task, or it measures no accuracy.
    """
    if find_spec("lm_eval") is None:
        raise EnvironmentLacks(
            f"general.lm_eval names {', '.join(options.lm_eval)}, but the package lm-eval is not installed; "
            "run `pip install 'prooftune[lm-eval]'`, or leave the list empty"
        )
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    tasks = TaskManager(include_path=options.lm_eval_folder)
    if unknown := [name for name in options.lm_eval if name not in tasks.all_tasks]:
        raise DataError(f"lm-eval knows no task {', '.join(unknown)}; `lm-eval ls tasks` lists them, general.lm_eval_folder adds your own")
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


def _items(name: str, samples: list[dict[str, object]]) -> list[float]:
    """Return each item's accuracy in the order of the documents."""
    measured = next((metric for metric in ("acc", "exact_match") if samples and metric in samples[0]), None)
    if measured is None:
        raise DataError(f"lm-eval's task {name} measures neither acc nor exact_match; forgetting is counted in right answers")
    return [float(str(sample[measured])) for sample in sorted(samples, key=lambda sample: int(str(sample["doc_id"])))]
