"""Divide the examples and seal the holdout."""

from __future__ import annotations

from prefect import task

from prooftune.spec import Split, Store
from prooftune.types import FileRef, StageOutput
from tasks.artifacts import show_markdown
from tasks.policies import policy
from tasks.stage import Stage


@task(**policy("split", version=1, timeout_minutes=10))
def split(store: Store, options: Split, validated: StageOutput, old: FileRef | None = None) -> StageOutput:
    """Split by near-duplicate group; hands on ``train.jsonl``, ``validation.jsonl`` and the sealed ``holdout.jsonl``.

    ``old`` is the run whose examples are learnt from again, or whose weights are gone on from: what it held out stays held out, and what it
    has learnt is not held out.
    """
    from prooftune.data.old import read_old_run
    from prooftune.data.splitting import split as split_examples

    stage = Stage(store)
    examples = stage.path(validated, "examples.jsonl")
    known = None if old is None else read_old_run(stage.objects, old.path)
    output = stage.perform(lambda out: split_examples(examples, options, out, known))
    counts = output.figures["counts"]
    show_markdown(
        f"**{counts['train']}** train · **{counts['validation']}** validation · **{counts['holdout']}** held out\n\n"
        f"Seal of the holdout (SHA-256): `{output.figures['holdout_sha256']}`",
        key="split",
        description="The examples were divided, and the holdout sealed.",
    )
    return output
