"""Write the examples as the trainer and the managed APIs read them."""

from __future__ import annotations

from prefect import task

from prooftune.spec import Store, Task
from prooftune.types import StageOutput
from tasks.artifacts import show_markdown
from tasks.policies import policy
from tasks.stage import Stage


@task(**policy("format", version=1, timeout_minutes=10))
def format_splits(store: Store, options: Task, splits: StageOutput) -> StageOutput:
    """Format the training and validation splits; hands on ``*.openai.jsonl`` (chat) and ``*.trl.jsonl`` (prompt and completion)."""
    from prooftune.data.formatting import format_splits as write

    stage = Stage(store)
    train, validation = stage.path(splits, "train.jsonl"), stage.path(splits, "validation.jsonl")
    output = stage.perform(lambda out: write(train, validation, options.system, out))
    files = "\n".join(f"- `{ref.key}`: {ref.size} bytes, SHA-256 `{ref.sha256[:16]}`" for ref in output.artifacts.values())
    show_markdown(
        f"Training files\n\n{files}", key="format", description="The training files were written for the trainer and for the managed APIs."
    )
    return output
