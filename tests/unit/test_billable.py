"""Tokens that a provider bills: exactly as its own tokenizer counts, or from above where there is none."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fixtures_tokenizer import write_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from prooftune.economics.billable import UpperCounter, billable_counter, billable_tokens, openai_tokens
from prooftune.errors import ModelUnavailable
from prooftune.models.resolve import resolve_tokenizer
from prooftune.types import Example, Message

if TYPE_CHECKING:
    import tiktoken

TEXTS = {
    "English": "My order of 12 March 2026 has not arrived, and nobody answers the phone. Could you please look into it today?",
    "German": "Die Rechnung für März wurde zweimal abgebucht. Könnten Sie bitte prüfen, weshalb die Überweisung fehlgeschlagen ist?",
    "French": "Ma commande n'est toujours pas arrivée ; pourriez-vous vérifier où se trouve le colis et me répondre aujourd'hui ?",
    "Russian": "Мой заказ ещё не пришёл, и никто не отвечает на телефон.",
    "Chinese": "我的订单还没有到,请问什么时候可以收到货物?我已经等了两个星期了。",
    "Hindi": "मेरा ऑर्डर अभी तक नहीं आया है और कोई फोन का जवाब नहीं देता",
    "JSON": '{"category": "billing", "priority": 3, "tags": ["refund", "double-charge"], "amount": 129.99}',
    "code": "def f(x):\n    return [y for y in x if y > 0 and y != 12345]\n",
}


@pytest.fixture(scope="module")
def reference() -> tiktoken.Encoding:
    """OpenAI's own implementation, on the ranks that the package ships: its vocabulary file need not be fetched."""
    import bpe_openai
    import tiktoken

    ours = bpe_openai.get_encoding("o200k_base")
    return tiktoken.Encoding("o200k_base", pat_str=ours._pat_str, mergeable_ranks=ours._mergeable_ranks, special_tokens={})


def cookbook(messages: list[Message], encoding: tiktoken.Encoding) -> int:
    """``num_tokens_from_messages`` of OpenAI's cookbook, for models from GPT-4o on."""
    return 3 + sum(3 + sum(len(encoding.encode_ordinary(value)) for value in message.model_dump().values()) for message in messages)


def example(*turns: tuple[str, str], rejected: str | None = None) -> Example:
    """A conversation."""
    messages = tuple(Message.model_validate({"role": role, "content": content}) for role, content in turns)
    return Example(id="0" * 16, source="made:1", messages=messages, rejected=rejected)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text(st.characters(exclude_categories=["Cs"]))), max_size=4))
def test_the_count_is_openais(reference: tiktoken.Encoding, turns: list[tuple[str, str]]) -> None:
    """Whatever the text, the count is that of the cookbook with tiktoken; text that looks like a special token is text."""
    messages = [Message.model_validate({"role": role, "content": content}) for role, content in turns]
    assert openai_tokens(messages) == cookbook(messages, reference)


def test_known_counts() -> None:
    """Three tokens a message, its role, its text, and three a row."""
    assert openai_tokens([Message(role="user", content="hello world")]) == 3 + 3 + 1 + 2
    assert openai_tokens([]) == 3
    assert openai_tokens([Message(role="user", content="<|endoftext|>")]) > 3 + 3 + 1 + 1


@pytest.mark.parametrize(
    ("provider", "model"),
    [("openai", "gpt-4.1-mini-2025-04-14"), ("azure", "gpt-4o"), ("openai", "ft:gpt-4o-mini-2024-07-18:org::id"), ("openai", "o4-mini")],
)
def test_openai_and_azure_are_exact(provider: str, model: str) -> None:
    """Both bill by o200k_base; the system message counts in every row that brings none."""
    rows = [example(("user", "hi"), ("assistant", "ho")), example(("system", "S"), ("user", "hi"), ("assistant", "ho"))]
    found = billable_tokens(provider, model, rows, "Shout.", None)
    system = Message(role="system", content="Shout.")
    assert found.exact
    assert "o200k_base" in found.how
    assert found.tokens == openai_tokens([system, *rows[0].messages]) + openai_tokens(rows[1].messages)


def test_of_a_pair_both_conversations_count() -> None:
    """A preference pair is trained on twice: with the chosen answer and with the rejected one."""
    pair = example(("user", "hi"), ("assistant", "good"), rejected="much worse")
    worse = [pair.messages[0], Message(role="assistant", content="much worse")]
    assert billable_tokens("openai", "gpt-4.1", [pair], "", None).tokens == openai_tokens(pair.messages) + openai_tokens(worse)


@pytest.mark.parametrize(
    ("provider", "model", "exact"),
    [
        ("together", "meta-llama/Meta-Llama-3.1-8B-Instruct-Reference", True),
        ("fireworks", "accounts/fireworks/models/qwen3-8b", True),
        ("bedrock", "meta.llama3-2-3b-instruct-v1:0:128k", True),
        ("bedrock", "amazon.nova-micro-v1:0:128k", False),
        ("vertex", "gemini-2.5-flash", False),
        ("azure", "Ministral-3B", False),
    ],
)
def test_a_tokenizer_makes_the_count_of_an_open_model_exact_and_of_no_other(tmp_path: Path, provider: str, model: str, exact: bool) -> None:
    """Through the tokenizer's own chat template, byte by byte here; a folder cannot make another provider's count."""
    folder = write_tokenizer(tmp_path / "tokenizer")
    found = billable_tokens(provider, model, [example(("user", "hi"), ("assistant", "ho"))], "", folder)
    assert found.exact == exact
    if exact:
        # <|im_start|> and <|im_end|> are a token each; everything else is a byte.
        assert found.tokens == len("_user\nhi_\n") + len("_assistant\nho_\n")
        assert not billable_tokens(provider, model, [], "", None).exact


def test_a_row_of_prompt_and_completion_is_counted_as_it_is_written_and_called_no_exact_count(tmp_path: Path) -> None:
    """Llama 3.1 at Bedrock: system text and question are one prompt. What Bedrock puts around it nobody knows, and ``how`` says so."""
    folder, model = write_tokenizer(tmp_path / "tokenizer"), "meta.llama3-1-8b-instruct-v1:0:128k"
    found = billable_tokens("bedrock", model, [example(("user", "hi"), ("assistant", "ho"))], "Shout.", folder)
    assert found.tokens == len("_user\nShout.\n\nhi_\n") + len("_assistant\nho_\n")
    assert not found.exact
    assert "does not publish" in found.how


def test_a_row_of_turns_is_counted_as_it_is_written(tmp_path: Path) -> None:
    """Llama 3.2 at Bedrock: messages of one role in a row are sent as one turn, and count as one."""
    folder, model = write_tokenizer(tmp_path / "tokenizer"), "meta.llama3-2-3b-instruct-v1:0:128k"
    found = billable_tokens("bedrock", model, [example(("user", "hi"), ("user", "you"), ("assistant", "ho"))], "", folder)
    assert found.tokens == len("_user\nhi\n\nyou_\n") + len("_assistant\nho_\n")
    assert found.exact


@pytest.mark.parametrize("name", TEXTS)
def test_the_estimate_is_from_above(name: str) -> None:
    """On prose, JSON and code it is above what every public vocabulary at hand counts, and below four times the largest."""
    import bpe_openai

    counts = [len(bpe_openai.get_encoding(one).encode_ordinary(TEXTS[name])) for one in ("o200k_base", "cl100k_base", "voyage3_base")]
    (estimate,) = UpperCounter().text_tokens([TEXTS[name]])
    assert max(counts) <= estimate <= 4 * max(counts)


@given(st.text(), st.text())
def test_the_estimate_grows_with_the_text(one: str, other: str) -> None:
    """More text never counts less, and any text counts at least one token for three of its bytes."""
    counter = UpperCounter()
    (first,), (both,) = counter.text_tokens([one]), counter.text_tokens([one + other])
    assert first <= both
    assert len(one.encode("utf-8", "surrogatepass")) <= 3 * first


def test_counting_as_openai_loads_no_model_library() -> None:
    """An estimate for OpenAI needs neither torch nor transformers."""
    before = set(sys.modules)
    billable_counter("openai", "gpt-4.1", None).text_tokens(["hi"])
    assert not {"torch", "transformers"} & (set(sys.modules) - before)


def test_a_tokenizer_needs_no_weights(tmp_path: Path) -> None:
    """A folder is taken as it is; what is neither a folder nor a hub id is refused by name."""
    assert resolve_tokenizer(str(write_tokenizer(tmp_path / "tokenizer"))) == tmp_path / "tokenizer"
    with pytest.raises(ModelUnavailable, match="nothing here"):
        resolve_tokenizer("nothing here")
    with pytest.raises(ModelUnavailable, match="no usable tokenizer"):
        billable_counter("together", "m-8b", tmp_path / "empty")
