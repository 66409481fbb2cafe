"""Count tokens: exactly, with the tokenizer and the chat template of the model that will be trained, or as its provider counts."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from prooftune.data.counting import Counter
from prooftune.data.lines import read_lines
from prooftune.errors import DataError, Problem
from prooftune.models.loading import load_tokenizer
from prooftune.spec import Task
from prooftune.training.encoding import Encoded, encode, with_system
from prooftune.types import Example, Message, SplitName

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COLUMNS = ("example_id", "split", "prompt_tokens", "target_tokens", "total", "truncated")
UNCUT = 1 << 40
"""A length that no example reaches: the whole example is counted."""
BINS = 24


def count_tokens(
    splits: Mapping[SplitName, Path], model_folder: Path, task: Task, max_length: int, out: Path, *, trust_remote_code: bool = False
) -> dict[str, object]:
    """Write ``tokens.csv``, a row an example, and return figures in tokens by split.

    ``target_tokens`` and ``supervised`` count what the loss sees of the whole example: the target and its end-of-turn token. ``truncated``
    says that the example is longer than ``max_length`` and would lose its end in training.

    Raises:
        DataError: the chat template cannot render an example; with all such examples.
    """
    tokenizer = load_tokenizer(model_folder, trust_remote_code=trust_remote_code)

    def counted(path: Path) -> Iterator[Counted]:
        for example, encoded in encode_examples(path, tokenizer, task, UNCUT):
            yield Counted(example, encoded.prompt_tokens, sum(encoded.supervised), len(encoded.input_ids))

    return {**_write(splits, counted, max_length, out)}


def count_managed_tokens(
    splits: Mapping[SplitName, Path], counter: Counter, task: Task, max_length: int | None, out: Path
) -> dict[str, object]:
    """Write ``tokens.csv`` and return figures as ``count_tokens``, by a provider's count; each split's ``exact`` says whether it is one.

    ``max_length`` is the longest example that the provider takes; None = not known. Of a preference pair the longer answer counts.
    """
    figures = _write(splits, lambda path: count_examples(path, counter, task), UNCUT if max_length is None else max_length, out)
    return {name: {**counted, "exact": counter.exact} for name, counted in figures.items()}


@dataclass(frozen=True, slots=True)
class Counted:
    """An example and its tokens."""

    example: Example
    prompt: int
    target: int
    """What is learnt: the target, with the end of its turn where that is a token of its own."""
    total: int


def count_examples(path: Path, counter: Counter, task: Task) -> Iterator[Counted]:
    """Yield each example of a split with its tokens by a provider's count, the task's system message included."""
    for example in read_lines(path, Example):
        messages = with_system(example.messages, task.system)
        answers = [example.target, *([] if example.rejected is None else [example.rejected])]
        wholes = [counter.conversation_tokens((*messages[:-1], Message(role="assistant", content=answer))) for answer in answers]
        yield Counted(example, counter.prompt_tokens(messages[:-1]), max(counter.text_tokens(answers)), max(wholes))


def _write(
    splits: Mapping[SplitName, Path], counted: Callable[[Path], Iterator[Counted]], max_length: int, out: Path
) -> dict[str, dict[str, object]]:
    figures: dict[str, dict[str, object]] = {}
    with (out / "tokens.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for name in (name for name in get_args(SplitName) if name in splits):
            lengths, targets = [], []
            for one in counted(splits[name]):
                lengths.append(one.total)
                targets.append(one.target)
                table.writerow((one.example.id, name, one.prompt, one.target, one.total, str(one.total > max_length).lower()))
            figures[name] = _figures(lengths, targets, max_length)
    return figures


def encode_examples(path: Path, tokenizer: PreTrainedTokenizerBase, task: Task, max_length: int) -> Iterator[tuple[Example, Encoded]]:
    """Yield each example of a split with its tokens, the task's system message included.

    Raises:
        DataError: after the last example, with every example that the chat template cannot render.
    """
    problems: list[Problem] = []
    for example in read_lines(path, Example):
        try:
            yield example, encode(with_system(example.messages, task.system), tokenizer, max_length)
        except DataError as error:
            problems.append(Problem(example.source, error.message, "template"))
    if problems:
        raise DataError(f"the model's chat template cannot render {len(problems)} examples of {path.name}:", tuple(problems))


def _figures(lengths: Sequence[int], targets: Sequence[int], max_length: int) -> dict[str, object]:
    if not lengths:
        return {"examples": 0, "total": 0, "supervised": 0, "truncated": 0}
    # Edges are whole tokens, so that no bin is empty only because it lies between two integers.
    edges = np.unique(np.linspace(min(lengths), max(lengths) + 1, BINS + 1).round())
    counts, _ = np.histogram(lengths, bins=edges)
    middle, high = np.percentile(lengths, [50, 95], method="inverted_cdf")
    return {
        "examples": len(lengths),
        "total": sum(lengths),
        "supervised": sum(targets),
        "truncated": sum(length > max_length for length in lengths),
        "mean": round(sum(lengths) / len(lengths), 2),
        "p50": int(middle),
        "p95": int(high),
        "max": max(lengths),
        "target_max": max(targets),
        "histogram": {"edges": [int(edge) for edge in edges], "counts": counts.tolist()},
    }
