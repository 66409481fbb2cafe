"""Shapes: which records are examples, what they become, and why others are not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prooftune.data.shapes import convert, detect_shape, resolve_shape
from prooftune.errors import DataError
from prooftune.spec import Columns, Data
from prooftune.types import Example, Finding, Record


def data(shape: str = "auto", **more: object) -> Data:
    """A spec's data block."""
    return Data.model_validate({"source": "x.jsonl", "shape": shape, **more})


def one(fields: dict[str, object], block: Data | None = None) -> Example | Finding:
    """What a single record becomes."""
    return next(convert([Record(source="x.jsonl:1", fields=fields)], block or data()))


def turns(result: Example | Finding) -> list[tuple[str, str]]:
    """The conversation of an example as pairs."""
    assert isinstance(result, Example), result
    return [(message.role, message.content) for message in result.messages]


def chat(*pairs: tuple[object, object]) -> dict[str, object]:
    """A chat record."""
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


QA = [("user", "Q"), ("assistant", "A")]


@pytest.mark.parametrize(
    "fields",
    [
        chat(*QA),
        chat(("user", [{"type": "text", "text": "Q"}]), ("assistant", [{"type": "text", "text": "A"}])),
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
        {"instruction": "Q", "output": "A"},
        {"instruction": "Q", "input": " ", "output": "A"},
        {"prompt": "Q", "completion": "A"},
        {"prompt": [{"role": "user", "content": "Q"}], "completion": [{"role": "assistant", "content": "A"}]},
    ],
)
def test_every_shape_becomes_the_same_conversation(fields: dict[str, object]) -> None:
    """Equal content has equal messages and an equal id, whatever shape it came in."""
    example = one(fields)
    assert turns(example) == QA
    assert isinstance(example, Example)
    assert example.id == one(chat(*QA)).id  # type: ignore[union-attr]


def test_a_table_uses_the_named_columns_and_writes_objects_as_json() -> None:
    """An object is written as JSON with its characters as they are; what is left goes to the metadata."""
    fields = {"text": "Q", "label": {"category": "Gerät", "n": [1, 2]}, "customer": 7, "nested": {"a": 1}, "none": None}
    example = one(fields, data("table", columns={"prompt": "text", "target": "label"}))
    assert turns(example) == [("user", "Q"), ("assistant", '{"category": "Gerät", "n": [1, 2]}')]
    assert isinstance(example, Example)
    assert example.metadata == {"customer": 7, "none": None}


@pytest.mark.parametrize(("value", "text"), [(True, "true"), (3, "3"), (2.5, "2.5"), ([1], "[1]")])
def test_scalars_in_a_table_are_written_as_json(value: object, text: str) -> None:
    """Numbers and truth values have one spelling, that of JSON."""
    example = one({"prompt": "Q", "target": value}, data("table"))
    assert turns(example)[-1] == ("assistant", text)


def test_a_target_of_another_form_than_the_others_is_refused() -> None:
    """A list among objects is a slip in labelling; a number among texts is not."""
    targets = [{"a": 1}, ["a", 1], {"a": 2}, "a", None]
    records = [Record(source=f"x:{i}", fields={"prompt": f"Q{i}", "target": target}) for i, target in enumerate(targets)]
    codes = [result.code if isinstance(result, Finding) else "" for result in convert(records, data("table"))]
    assert codes == ["", "wrong-type", "", "wrong-type", "empty-target"]
    records = [Record(source=f"x:{i}", fields={"prompt": f"Q{i}", "target": target}) for i, target in enumerate(["a", 1, True])]
    assert all(isinstance(result, Example) for result in convert(records, data("table")))


def test_alpaca_joins_instruction_and_input_and_keeps_its_system() -> None:
    """The input follows the instruction after a blank line; a system column becomes the system message."""
    example = one({"instruction": "Do", "input": "this", "output": "A", "system": "S"})
    assert turns(example) == [("system", "S"), ("user", "Do\n\nthis"), ("assistant", "A")]


def test_longer_conversations_keep_all_turns_and_all_white_space() -> None:
    """The last assistant message is the target; tool turns, repeated roles and white space stay as they are."""
    pairs = [("system", "S"), ("user", "a"), ("user", " b\n"), ("assistant", "c"), ("tool", ""), ("assistant", " d ")]
    example = one(chat(*pairs))
    assert turns(example) == pairs
    assert isinstance(example, Example)
    assert example.target == " d "


def test_an_empty_system_message_is_as_good_as_none() -> None:
    """Exports often carry an empty system message; it is left out."""
    assert turns(one(chat(("system", " "), *QA))) == QA


@pytest.mark.parametrize(
    ("code", "fields"),
    [
        ("wrong-type", {"messages": "Q"}),
        ("wrong-type", {"messages": ["Q"]}),
        ("wrong-type", chat(("user", 3), ("assistant", "A"))),
        ("wrong-type", chat(("user", None), ("assistant", "A"))),
        ("missing-field", {"messages": [{"role": "user"}]}),
        ("missing-field", {"messages": [{"content": "Q"}]}),
        ("unknown-role", chat(("customer", "Q"), ("assistant", "A"))),
        ("unknown-role", chat((["user"], "Q"), ("assistant", "A"))),
        ("unsupported-content", chat(("user", [{"type": "image_url", "image_url": {}}]), ("assistant", "A"))),
        ("tool-calls", {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]}),
        ("no-assistant-turn", chat(("user", "Q"))),
        ("no-assistant-turn", {"messages": []}),
        ("ends-with-user", chat(*QA, ("user", "more"))),
        ("ends-with-tool", chat(*QA, ("tool", "more"))),
        ("no-user-turn", chat(("assistant", "A"))),
        ("system-not-first", chat(("user", "Q"), ("system", "S"), ("assistant", "A"))),
        ("empty-target", chat(("user", "Q"), ("assistant", " \n\t"))),
        ("empty-target", {"instruction": "Q", "output": ""}),
        ("empty-prompt", chat(("user", "\u00a0"), ("assistant", "A"))),
        ("empty-prompt", {"prompt": "", "completion": "A"}),
        ("empty-turn", chat(("user", "Q"), ("assistant", ""), ("user", "Q"), ("assistant", "A"))),
        ("lone-surrogate", chat(("user", "\ud800"), ("assistant", "A"))),
    ],
)
def test_what_is_no_example_becomes_a_finding(code: str, fields: dict[str, object]) -> None:
    """Each broken rule has its code, its place and a sentence that says what is required."""
    finding = one(fields)
    assert isinstance(finding, Finding)
    assert (finding.code, finding.where, finding.action) == (code, "x.jsonl:1", "dropped")


def test_auto_takes_the_shape_of_most_records_and_reports_the_others() -> None:
    """A stray first record does not decide, and is not learned from in another shape."""
    records = [Record(source="x:1", fields={"instruction": "Q", "output": "A"})]
    records += [Record(source=f"x:{i}", fields=chat(("user", f"Q{i}"), ("assistant", "A"))) for i in (2, 3)]
    assert resolve_shape(records, data()) == "chat"
    finding, *examples = convert(records, data())
    assert isinstance(finding, Finding)
    assert finding.code == "missing-field"
    assert "looks like alpaca" in finding.reason
    assert [example.source for example in examples] == ["x:2", "x:3"]


def test_records_of_no_known_shape_name_the_fields_and_the_shapes() -> None:
    """The error says which fields there are and which shapes are known."""
    with pytest.raises(DataError, match=r"fields frage fit no known shape .*instruction and output.*data.columns"):
        list(convert([Record(source="x.csv:2", fields={"frage": "?"})], data()))
    assert list(convert([], data())) == []
    with pytest.raises(DataError, match="no records"):
        resolve_shape([], data())


def test_a_table_is_recognised_by_the_columns_of_the_spec() -> None:
    """Under ``auto`` the named columns make a table."""
    assert detect_shape({"text": "a", "label": "b"}, Columns(prompt="text", target="label")) == "table"
    assert detect_shape({"text": "a", "label": "b"}, Columns()) is None


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters(), max_size=5),
        st.sampled_from(["user", "assistant", "text"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["role", "content", "from", "value", "type", "text", "tool_calls", "x"]), inner, max_size=4),
    ),
    max_leaves=12,
)
NAMES = ["messages", "conversations", "instruction", "input", "output", "prompt", "completion", "target", "system", "x"]


@given(st.dictionaries(st.sampled_from(NAMES), JSON), st.sampled_from(["chat", "sharegpt", "alpaca", "prompt_completion", "table"]))
def test_no_json_object_makes_conversion_raise(fields: dict[str, object], shape: str) -> None:
    """Any JSON object is an example or a finding, and an example survives the way to a file and back."""
    result = one(fields, data(shape))
    if isinstance(result, Example):
        assert result.target.strip()
        assert result.messages[-1].role == "assistant"
        assert json.loads(result.model_dump_json())["id"] == result.id
