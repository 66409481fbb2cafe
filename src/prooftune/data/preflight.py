"""Look at exactly what will be trained, before a minute of training is spent on it.

A run on nothing is not an error to a trainer: with every target cut off or masked it finishes, with a loss of zero or NaN.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prooftune.data.counting import Counter
from prooftune.data.tokens import Counted, count_examples, encode_examples
from prooftune.errors import DataError, Problem
from prooftune.models.loading import load_tokenizer
from prooftune.spec import Method, Task
from prooftune.training.encoding import Encoded, with_system
from prooftune.types import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GENERATION_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True, slots=True)
class _Checked:
    """What the loss sees of one example."""

    source: str
    supervised: int
    total: int
    truncated: bool
    ends_turn: bool


def preflight(
    train: Path, validation: Path, model_folder: Path, task: Task, method: Method, out: Path, *, trust_remote_code: bool = False
) -> dict[str, object]:
    """Write ``preflight.json`` and ``sample.txt``, which shows one example with its supervised part marked, and return the figures.

    An answer cut at ``method.max_length`` is counted, not refused, as long as something of it is left to learn. The prompt of every example
    was checked to be a token prefix of the whole: what is trained is what will be served.

    Raises:
        DataError: an example has no supervised token, a whole answer does not end its turn, or the template cannot render an example.
    """
    tokenizer = load_tokenizer(model_folder, trust_remote_code=trust_remote_code)
    checked: dict[str, list[_Checked]] = {}
    sample = ""
    for name, path in (("train", train), ("validation", validation)):
        rows = checked[name] = []
        for example, encoded in encode_examples(path, tokenizer, task, method.max_length):
            sample = sample or _sample(example, encoded, tokenizer)
            rows.append(_check(example, encoded))
        if not rows:
            raise _empty(path)
    (out / "sample.txt").write_text(sample, encoding="utf-8", newline="\n")
    template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
    figures: dict[str, object] = {
        **{name: _figures(rows) for name, rows in checked.items()},
        "max_length": method.max_length,
        "template_has_generation_mask": bool(GENERATION_MARK.search(template)),
        "prompt_is_token_prefix": True,  # encode refuses an example for which it is not
    }
    (out / "preflight.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8", newline="\n")
    _require_something_to_learn([row for rows in checked.values() for row in rows], method)
    return figures


def preflight_managed(train: Path, validation: Path, counter: Counter, max_length: int | None, task: Task, out: Path) -> dict[str, object]:
    """Write ``preflight.json`` and ``sample.txt`` for a training at a provider, and return the figures.

    The provider alone sees its tokens: figures are by its count, and the sample shows messages. ``max_length`` is the longest example that
    it takes; None = not known. Whether it takes each row is for its adapter to check.

    Raises:
        DataError: a split is empty.
    """
    checked: dict[str, list[Counted]] = {}
    for name, path in (("train", train), ("validation", validation)):
        checked[name] = list(count_examples(path, counter, task))
        if not checked[name]:
            raise _empty(path)
    first = checked["train"][0]
    (out / "sample.txt").write_text(_sample_messages(first, task), encoding="utf-8", newline="\n")
    figures: dict[str, object] = {
        **{name: _managed_figures(rows, max_length) for name, rows in checked.items()},
        "max_length": max_length,
        "exact": counter.exact,
    }
    (out / "preflight.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8", newline="\n")
    return figures


def _managed_figures(rows: Sequence[Counted], max_length: int | None) -> dict[str, object]:
    supervised = [row.target for row in rows]
    return {
        "examples": len(rows),
        "tokens": sum(row.total for row in rows),
        "supervised": sum(supervised),
        "supervised_min": min(supervised),
        "supervised_mean": round(sum(supervised) / len(rows), 2),
        "supervised_max": max(supervised),
        "too_long": 0 if max_length is None else sum(row.total > max_length for row in rows),
    }


def _sample_messages(counted: Counted, task: Task) -> str:
    """One example as its provider gets it, what is learnt between ⟦ and ⟧."""
    example = counted.example
    turns = [f"{message.role}: {message.content}" for message in with_system(example.prompt, task.system)]
    lines = [
        f"example {example.id}: {counted.total} tokens, {counted.target} of them in the answer (between ⟦ and ⟧)",
        "",
        *turns,
        f"assistant: ⟦{example.target}⟧",
        *([] if example.rejected is None else [f"rejected: {example.rejected}"]),
    ]
    return "\n".join(lines) + "\n"


def _empty(path: Path) -> DataError:
    return DataError(f"{path.name} is empty, so there is nothing to train or to stop on; bring more data or change data.split")


def _check(example: Example, encoded: Encoded) -> _Checked:
    return _Checked(example.source, sum(encoded.supervised), len(encoded.input_ids), encoded.truncated, encoded.ends_turn)


def _figures(rows: Sequence[_Checked]) -> dict[str, object]:
    supervised = [row.supervised for row in rows]
    return {
        "examples": len(rows),
        "tokens": sum(row.total for row in rows),
        "supervised": sum(supervised),
        "supervised_min": min(supervised),
        "supervised_mean": round(sum(supervised) / len(rows), 2),
        "supervised_max": max(supervised),
        "zero_supervised": supervised.count(0),
        "truncated": sum(row.truncated for row in rows),
        "ends_turn_share": round(sum(row.ends_turn for row in rows) / len(rows), 4),
    }


def _require_something_to_learn(rows: Sequence[_Checked], method: Method) -> None:
    empty = [row for row in rows if row.supervised == 0]
    if empty:
        cause = f"the prompt alone fills max_length {method.max_length}"
        raise DataError(
            f"{len(empty)} of {len(rows)} examples have no supervised token, so nothing would be learnt from them; raise "
            "backend.method.max_length, or shorten or drop them:",
            tuple(Problem(row.source, cause if row.truncated else "the target is empty", "zero-supervised") for row in empty),
        )
    endless = [row for row in rows if not row.ends_turn and not row.truncated]
    if endless:
        raise DataError(
            f"{len(endless)} of {len(rows)} answers do not end with an end-of-turn token, so the model would not learn to stop; "
            "use a model whose chat template ends each turn with a special token, or correct its chat_template.jinja:",
            tuple(Problem(row.source, "the answer does not end its turn", "no-end-of-turn") for row in endless),
        )
    if not any(row.ends_turn for row in rows):
        raise DataError(
            f"all {len(rows)} answers are cut at max_length {method.max_length}, so no end-of-turn token is supervised and the model would "
            "not learn to stop; raise backend.method.max_length"
        )


def _sample(example: Example, encoded: Encoded, tokenizer: PreTrainedTokenizerBase) -> str:
    """One example as the model sees it, what the loss counts between ⟦ and ⟧, and those tokens one by one."""
    start = encoded.supervised.index(True) if any(encoded.supervised) else len(encoded.input_ids)
    learnt = encoded.input_ids[start:]
    lines = [
        f"example {example.id}: {len(encoded.input_ids)} tokens, {len(learnt)} of them supervised (between ⟦ and ⟧)",
        "",
        f"{tokenizer.decode(encoded.input_ids[:start])}⟦{tokenizer.decode(learnt)}⟧",
        "",
        "supervised tokens:",
        *(f"{token:>8}  {tokenizer.decode([token])!r}" for token in learnt),
    ]
    return "\n".join(lines) + "\n"
