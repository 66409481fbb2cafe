"""Count tokens exactly, with the tokenizer of the model that will be trained."""

from __future__ import annotations

from typing import get_args

from prefect import task

from prooftune.spec import Store, Task
from prooftune.types import ModelRef, SplitName, StageOutput
from tasks.artifacts import show_table
from tasks.models import local_folder
from tasks.policies import policy
from tasks.stage import Stage


@task(**policy("tokens", version=1, timeout_minutes=30))
def count_tokens(store: Store, options: Task, max_length: int, model: ModelRef, splits: StageOutput) -> StageOutput:
    """Count prompt and target tokens of every example; hands on ``tokens.csv``."""
    from prooftune.data.tokens import count_tokens as count

    stage = Stage(store)
    files = {name: stage.path(splits, f"{name}.jsonl") for name in get_args(SplitName)}
    base = local_folder(model).path
    output = stage.perform(lambda out: count(files, base, options, max_length, out, trust_remote_code=model.trust_remote_code))
    show_table(
        [
            {"split": name, **{key: value for key, value in figures.items() if key != "histogram"}}
            for name, figures in output.figures.items()
        ],
        key="tokens",
        description="Tokens, counted with the target model's tokenizer and chat template",
    )
    return output
