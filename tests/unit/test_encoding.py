"""Prompt tokens and loss mask come from one rendering of the chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fixtures_models import TEMPLATE, make_model
from hypothesis import given
from hypothesis import strategies as st

from prooftune.errors import DataError, ModelUnavailable
from prooftune.models.loading import load_tokenizer
from prooftune.training.encoding import encode, prompt_ids, stop_ids, with_system
from prooftune.types import Message

QUESTION = Message(role="user", content="red cat")
ANSWER = Message(role="assistant", content="RED")
content = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
turns = st.lists(st.tuples(content, content), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tiny model's tokenizer."""
    return load_tokenizer(make_model(tmp_path_factory.mktemp("model")))


def test_supervises_exactly_the_target_and_its_end_of_turn(tokenizer: Any) -> None:
    """The mask covers the answer's text and <|im_end|>, and the newline that ChatML puts behind it is dropped."""
    encoded = encode((QUESTION, ANSWER), tokenizer, 1000)
    supervised = [token for token, counts in zip(encoded.input_ids, encoded.supervised, strict=True) if counts]
    assert tokenizer.decode(supervised) == "RED<|im_end|>"
    assert encoded.ends_turn
    assert not encoded.truncated
    assert encoded.input_ids[: encoded.prompt_tokens] == prompt_ids((QUESTION,), tokenizer)


@given(turns)
def test_only_the_last_answer_counts_and_the_prompt_is_what_is_served(tokenizer: Any, pairs: list[tuple[str, str]]) -> None:
    """Whatever the conversation: its prompt is the served prompt, and the rest decodes to the last answer."""
    messages = [Message(role=role, content=text) for pair in pairs for role, text in zip(("user", "assistant"), pair, strict=True)]
    encoded = encode(messages, tokenizer, 10_000)
    start = encoded.prompt_tokens
    assert encoded.input_ids[:start] == prompt_ids(messages[:-1], tokenizer)
    assert encoded.supervised == [False] * start + [True] * (len(encoded.input_ids) - start)
    assert tokenizer.decode(encoded.input_ids[start:], clean_up_tokenization_spaces=False) == pairs[-1][1] + "<|im_end|>"


@given(st.integers(min_value=1, max_value=80))
def test_truncation_keeps_the_front_and_says_so(tokenizer: Any, max_length: int) -> None:
    """A cut example is the front of the whole one; a lost end of turn is reported."""
    whole, cut = encode((QUESTION, ANSWER), tokenizer, 1000), encode((QUESTION, ANSWER), tokenizer, max_length)
    assert cut.input_ids == whole.input_ids[:max_length]
    assert cut.supervised == whole.supervised[:max_length]
    assert cut.truncated == (max_length < len(whole.input_ids)) == (not cut.ends_turn)
    assert cut.prompt_tokens == whole.prompt_tokens


def test_a_template_that_rewrites_the_prompt_is_refused(tmp_path: Path) -> None:
    """A template that drops the question once it is answered would train on a prompt that is never served."""
    template = "{% if messages[-1]['role'] == 'assistant' %}{{ messages[-1]['content'] }}{% else %}" + TEMPLATE + "{% endif %}"
    with pytest.raises(DataError, match="renders the prompt differently"):
        encode((QUESTION, ANSWER), load_tokenizer(make_model(tmp_path, template=template)), 1000)


def test_a_template_that_refuses_a_role_is_a_data_error(tmp_path: Path) -> None:
    """Some templates know no system message."""
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE
    tokenizer = load_tokenizer(make_model(tmp_path, template=template))
    with pytest.raises(DataError, match="roles system, user: no system"):
        prompt_ids(with_system((QUESTION,), "Be brief."), tokenizer)


def test_an_example_must_end_with_the_assistant(tokenizer: Any) -> None:
    """Without a target there is nothing to learn."""
    with pytest.raises(DataError, match="role 'user'"):
        encode((QUESTION,), tokenizer, 1000)


def test_a_tokenizer_without_chat_template_is_refused(tmp_path: Path) -> None:
    """A pure base model has no conversations."""
    folder = make_model(tmp_path)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelUnavailable, match="no chat template"):
        prompt_ids((QUESTION,), load_tokenizer(folder))


def test_a_template_without_end_of_turn_is_noticed(tmp_path: Path) -> None:
    """A model trained on it would not learn to stop."""
    template = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    prompt = "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    assert not encode((QUESTION, ANSWER), load_tokenizer(make_model(tmp_path, template=template + prompt)), 1000).ends_turn


def test_system_message_goes_in_front_only_where_there_is_none() -> None:
    """Examples that bring their own system message keep it; an empty one adds nothing."""
    own = (Message(role="system", content="mine"), QUESTION)
    assert with_system((QUESTION,), "Be brief.") == (Message(role="system", content="Be brief."), QUESTION)
    assert with_system(own, "Be brief.") == own
    assert with_system((QUESTION,), "") == (QUESTION,)


def test_generation_stops_where_training_ends_the_turn(tokenizer: Any) -> None:
    """The trained end-of-turn token is among the tokens that end an answer."""
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in stop_ids(tokenizer)
