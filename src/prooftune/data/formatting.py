"""Write the splits as the JSON lines that trainers take: conversations or preference pairs, in OpenAI's shape and in TRL's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from prooftune.data.lines import read_lines
from prooftune.training.encoding import with_system
from prooftune.types import Example, Message


def format_splits(train: Path, validation: Path, system: str, out: Path) -> dict[str, object]:
    """Write ``{train,validation}.openai.jsonl`` and ``{train,validation}.trl.jsonl``, a line an example, in the splits' order.

    ``system`` stands in front of each example that brings no system message of its own. The holdout is not formatted: nothing may train
    on it. An example with a rejected answer becomes a preference pair.

    Source: https://developers.openai.com/api/docs/guides/supervised-fine-tuning, …/direct-preference-optimization;
    https://huggingface.co/docs/trl/dataset_formats.
    """
    figures: dict[str, object] = {}
    for name, path in (("train", train), ("validation", validation)):
        rows = added = 0
        with (
            (out / f"{name}.openai.jsonl").open("w", encoding="utf-8", newline="\n") as openai,
            (out / f"{name}.trl.jsonl").open("w", encoding="utf-8", newline="\n") as trl,
        ):
            for example in read_lines(path, Example):
                messages = with_system(example.messages, system)
                openai.write(_line(_openai(messages, example.rejected)))
                trl.write(_line(_trl(messages, example.rejected)))
                rows += 1
                added += len(messages) > len(example.messages)
        figures[name] = {"rows": rows, "system_added": added}
    return figures


def _openai(messages: Sequence[Message], rejected: str | None) -> dict[str, object]:
    if rejected is None:
        return {"messages": _plain(messages)}
    prompt, chosen = _plain(messages[:-1]), _plain(messages[-1:])
    return {"input": {"messages": prompt}, "preferred_output": chosen, "non_preferred_output": _plain([_said(rejected)])}


def _trl(messages: Sequence[Message], rejected: str | None) -> dict[str, object]:
    prompt, chosen = _plain(messages[:-1]), _plain(messages[-1:])
    if rejected is None:
        return {"prompt": prompt, "completion": chosen}
    return {"prompt": prompt, "chosen": chosen, "rejected": _plain([_said(rejected)])}


def _said(text: str) -> Message:
    return Message(role="assistant", content=text)


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
