"""The trainer's files: two shapes of the same conversations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prooftune.data import shapes
from prooftune.data.formatting import format_splits
from prooftune.data.lines import write_lines
from prooftune.spec import Data
from prooftune.training.encoding import with_system
from prooftune.types import Example, Message, Record

TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30).filter(lambda text: text.strip() != "")


@st.composite
def examples(draw: st.DrawFn) -> list[Example]:
    """Conversations of one or two turns, some with a system message."""
    rows = []
    for number in range(draw(st.integers(1, 5))):
        messages = [Message(role="system", content=draw(TEXT))] if draw(st.booleans()) else []
        for _ in range(draw(st.integers(1, 2))):
            messages += [Message(role="user", content=draw(TEXT)), Message(role="assistant", content=draw(TEXT))]
        rows.append(Example(id=f"{number:016x}", source=f"t.jsonl:{number}", messages=tuple(messages)))
    return rows


@given(rows=examples(), system=st.sampled_from(["", "Answer with JSON."]))
@settings(max_examples=40, deadline=None)
def test_both_shapes_read_back_as_the_same_conversations(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Example], system: str
) -> None:
    """Our own reader turns each shape back into the messages that went in, system message added."""
    out = tmp_path_factory.mktemp("format")
    write_lines(out / "t.jsonl", rows)
    figures = format_splits(out / "t.jsonl", out / "t.jsonl", system, out)
    wanted = [with_system(row.messages, system) for row in rows]
    for name in ("train.openai", "train.trl", "validation.openai", "validation.trl"):
        lines = (out / f"{name}.jsonl").read_bytes().splitlines()
        records = [Record(source=f"x:{number}", fields=json.loads(line)) for number, line in enumerate(lines)]
        read = list(shapes.convert(records, Data(source="x")))
        assert [one.messages for one in read if isinstance(one, Example)] == wanted
    added = sum(bool(system) and row.messages[0].role != "system" for row in rows)
    assert figures["train"] == {"rows": len(rows), "system_added": added}


def test_the_wire_shapes_hold_role_and_content_alone(tmp_path: Path) -> None:
    """Field for field what OpenAI and TRL document, with nothing of ours in it."""
    row = Example(
        id="0" * 16,
        source="t:1",
        messages=(Message(role="user", content="Grüße"), Message(role="assistant", content="Hi")),
        group="g",
        metadata={"customer": "secret"},
    )
    write_lines(tmp_path / "t.jsonl", [row])
    format_splits(tmp_path / "t.jsonl", tmp_path / "t.jsonl", "Be brief.", tmp_path)
    system, user, assistant = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Grüße"},
        {"role": "assistant", "content": "Hi"},
    )
    assert json.loads((tmp_path / "train.openai.jsonl").read_text()) == {"messages": [system, user, assistant]}
    assert json.loads((tmp_path / "train.trl.jsonl").read_text()) == {"prompt": [system, user], "completion": [assistant]}
    assert "Grüße" in (tmp_path / "train.trl.jsonl").read_text(encoding="utf-8")
