"""Write the splits as the JSON lines that trainers take: OpenAI's chat shape and TRL's prompt/completion shape."""

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
    on it.

    Source: https://platform.openai.com/docs/guides/supervised-fine-tuning, https://huggingface.co/docs/trl/dataset_formats.
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
                openai.write(_line({"messages": _plain(messages)}))
                trl.write(_line({"prompt": _plain(messages[:-1]), "completion": _plain(messages[-1:])}))
                rows += 1
                added += len(messages) > len(example.messages)
        figures[name] = {"rows": rows, "system_added": added}
    return figures


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
