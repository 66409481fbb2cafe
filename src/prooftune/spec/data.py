"""The spec's block ``data``: what to learn from."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from prooftune.spec.fields import Address, Amount
from prooftune.types import Frozen


class Columns(Frozen):
    """Which columns of a table hold the prompt and the target (``shape: table``)."""

    prompt: str = "prompt"
    """Column with the user's text."""
    target: str = "target"
    """Column with the answer to learn. An object or list is written as JSON."""


class Split(Frozen):
    """How examples are divided. Near-duplicates always stay together."""

    holdout: Amount = 0.25
    """Sealed for evaluation: a share (0.25) or a number of examples (500)."""
    validation: Amount = 0.1
    """For validation loss and few-shot choices: a share or a number."""
    train: Annotated[int, Field(ge=1)] | None = None
    """At most this many training examples; null = all that are left."""
    seed: int = 7
    """The same seed and the same examples give the same split, on every machine."""
    group_by: str | None = None
    """Metadata column whose equal values must stay in one split, such as ``customer``."""
    stratify_by: str | None = None
    """Metadata column to keep in proportion; null = the target, where it has few values."""
    time_by: str | None = None
    """Metadata column to sort by, so that the holdout is the newest; null = random."""

    @model_validator(mode="after")
    def _shares_leave_training_data(self) -> Self:
        shares = [x for x in (self.holdout, self.validation) if isinstance(x, float)]
        if sum(shares) >= 1.0:
            raise ValueError(f"holdout {self.holdout} + validation {self.validation} leave nothing to train on; their sum must be below 1")
        return self


class Old(Frozen):
    """Examples of a published run that are learnt from again, beside the source's."""

    run: str | None = None
    """Its id; null = the source alone. What it held out is held out again, so that both runs can be compared on it."""
    keep: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the examples that it was trained on, drawn by their content: the same ones everywhere."""


class Data(Frozen):
    """What to learn from, and what to do about its flaws."""

    source: Address
    """A file (JSONL, JSON, CSV, Parquet; .gz too), a glob, a folder, ``s3://bucket/key``, or a hub data set as ``hf://owner/name``.

    A relative path starts at the spec's folder, one typed into a form at the worker's.
    """
    shape: Literal["auto", "chat", "alpaca", "sharegpt", "prompt_completion", "preference", "table"] = "auto"
    """Form of the records; ``auto`` decides by the fields of the first records and says so."""
    columns: Columns = Columns()
    """Only for ``shape: table``."""
    on_invalid: Literal["fail", "skip"] = "fail"
    """``fail`` stops with every problem listed; ``skip`` drops the invalid rows and lists them in the report."""
    pii: Literal["allow", "redact", "drop", "stop"] = "redact"
    """E-mail addresses, phone numbers, IBANs and card numbers: keep them, put ``[EMAIL]`` and the like in their place, drop the example, or
    stop the run."""
    residency: str | None = None
    """Region that the data must not leave, such as ``eu`` or ``us``; null = no such rule. Advice and providers keep to it."""
    max_retention_days: Annotated[int, Field(ge=0)] | None = None
    """Longest retention period, in days: a provider that keeps the data for longer, or for nobody knows how long, gets none;
    null = not asked."""
    contradictions: Literal["keep", "drop"] = "drop"
    """Same prompt, different targets: drop all of them, or keep them (they are listed either way)."""
    min_examples: Annotated[int, Field(ge=2)] = 50
    """Fewer training examples than this end in ``do_not_fine_tune``."""
    old: Old = Old()
    split: Split = Split()
