"""Count tokens: exactly, with the tokenizer of the model that will be trained, or as its provider counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from prefect import task

from prooftune.evaluation.answers.managed import ManagedBase
from prooftune.spec import Store, Task
from prooftune.types import ModelRef, SplitName, StageOutput
from tasks.artifacts import show_table
from tasks.models import local_folder
from tasks.policies import policy
from tasks.stage import Stage


@task(**policy("tokens", version=1, timeout_minutes=30))
def count_tokens(store: Store, options: Task, max_length: int | None, model: ModelRef | ManagedBase, splits: StageOutput) -> StageOutput:
    """Count prompt and target tokens of every example; hands on ``tokens.csv``.

    ``max_length`` is the longest example that is trained on whole; None = as far as it is known, the provider takes any.
    """
    from prooftune.data.tokens import count_managed_tokens
    from prooftune.data.tokens import count_tokens as count

    stage = Stage(store)
    files = {name: stage.path(splits, f"{name}.jsonl") for name in get_args(SplitName)}

    def work(out: Path) -> dict[str, Any]:
        if isinstance(model, ManagedBase):
            return count_managed_tokens(files, model.counter, options, max_length, out)
        if max_length is None:
            raise ValueError("a training on this machine cuts its examples somewhere; pass method.max_length")
        return count(files, local_folder(model).path, options, max_length, out, trust_remote_code=model.trust_remote_code)

    output = stage.perform(work)
    show_table(
        [
            {"split": name, **{key: value for key, value in figures.items() if key != "histogram"}}
            for name, figures in output.figures.items()
        ],
        key="tokens",
        description="Tokens were counted with the target model's tokenizer and chat template, or as its provider counts.",
    )
    return output
