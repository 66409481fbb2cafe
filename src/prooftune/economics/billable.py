"""How many tokens a provider bills for an epoch over training rows: exactly where its tokenizer is public, else an estimate from above.

==================================  =====  =====================================================================================
provider, model                     exact  how
==================================  =====  =====================================================================================
OpenAI and Azure, GPT-4o and later  yes    ``o200k_base``; 3 tokens a message, its role and its text, and 3 a row [1]
Together, Fireworks; Llama 3.2 and  yes    the open model's own tokenizer and chat template, which ``provider.tokenizer`` names
3.3 on Bedrock
Llama 3.1 on Bedrock                no     the same on prompt and completion as one turn; what Bedrock puts around them is not published
all others                          no     ``UpperCounter``: from characters
==================================  =====  =====================================================================================

Of a preference pair both conversations are trained on, and count.

[1] OpenAI's cookbook, ``num_tokens_from_messages``: https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken and
https://cookbook.openai.com/examples/chat_finetuning_data_prep.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prooftune.data.counting import Counter, OpenAICounter, TokenizerCounter
from prooftune.economics.lengths import TOKENS_PER_TURN
from prooftune.training.encoding import with_system
from prooftune.types import Example, Frozen, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from prooftune.providers.bedrock_models import Form

LETTERS_PER_TOKEN = 3.0
"""Letters and spaces of English that make a token, at least. Google says 4 for Gemini (https://ai.google.dev/gemini-api/docs/tokens),
Anthropic 3.5 for Claude (https://docs.claude.com/en/docs/about-claude/glossary); AWS publishes no figure for Nova."""
BYTES_PER_TOKEN = 2
"""UTF-8 bytes of a character outside ASCII that make a token, at least: ``é`` counts as one, a Chinese character as two."""
_O200K = re.compile(r"(ft:)?(gpt-(4o|4\.1|4\.5|5|oss)|o\d)")
"""Names of the models that read ``o200k_base``, at OpenAI and Azure."""


class Billable(Frozen):
    """The tokens of an epoch."""

    tokens: int
    exact: bool
    """False = an estimate, meant to be too high; of rows of prompt and completion one that nobody can compare."""
    how: str
    """How they were counted, in a few words."""


class UpperCounter:
    """Estimates the tokens of a model without a public tokenizer from above.

    Letters and white space of ASCII count ``LETTERS_PER_TOKEN`` to a token, digits and signs one each, and every other character by its
    bytes, ``BYTES_PER_TOKEN`` to a token. On prose in six languages, code and JSON that is above what every public vocabulary at hand
    counts; it is no proven bound.
    """

    exact = False

    def text_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens that each text has at most."""
        return [_upper(text) for text in texts]

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Return the tokens that the model sees at most before it answers; the opening of its turn counts as a turn."""
        return TOKENS_PER_TURN * (len(messages) + 1) + sum(_upper(message.content) for message in messages)

    conversation_tokens = prompt_tokens
    """The same estimate."""


class BedrockCounter(TokenizerCounter):
    """Counts a row as it is sent to Bedrock, with an open model's own tokenizer and chat template.

    Of a row of prompt and completion no source says how it is put to the model and counted, and Bedrock tells no billed tokens: it is
    counted as one turn, and that is no exact count.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, form: Form) -> None:
        super().__init__(tokenizer)
        self._form = form
        self.exact = form != "completion"

    def conversation_tokens(self, messages: Sequence[Message]) -> int:
        """Return how many tokens the chat template makes of the turns that the row holds."""
        from prooftune.providers.bedrock_rows import as_written

        return super().conversation_tokens(as_written(messages, self._form))


def openai_tokens(messages: Sequence[Message]) -> int:
    """Return what OpenAI and Azure bill for a conversation: 3 tokens a message, its role and its text, and 3 for the row [1]."""
    return OpenAICounter().conversation_tokens(messages)


def billable_counter(provider: str, model: str, tokenizer_folder: Path | None) -> Counter:
    """Return who counts what a provider bills for a base model.

    A tokenizer is used where the model is open and for no other: a folder cannot make OpenAI's or Google's count another one.

    Raises:
        ModelUnavailable: the folder has no usable tokenizer.
    """
    if provider in ("openai", "azure") and _O200K.match(model.lower()):
        return OpenAICounter()
    if tokenizer_folder is not None and is_open(provider, model):
        from prooftune.models.loading import load_tokenizer

        tokenizer = load_tokenizer(tokenizer_folder)
        return BedrockCounter(tokenizer, _bedrock_form(model)) if provider == "bedrock" else TokenizerCounter(tokenizer)
    return UpperCounter()


def _bedrock_form(model: str) -> Form:
    from prooftune.providers.bedrock_models import family_of

    family = family_of(model)
    return family.form if family is not None else "conversation"


def is_open(provider: str, model: str) -> bool:
    """Whether the model's tokenizer is published with its weights: all of Together's and Fireworks' are, at Bedrock Llama's."""
    return provider in ("together", "fireworks") or (provider == "bedrock" and "llama" in model.lower())


def billable_tokens(provider: str, model: str, rows: Iterable[Example], system: str, tokenizer_folder: Path | None) -> Billable:
    """Return the tokens that a provider bills for one epoch over the rows, ``system`` put in front of those without a system message.

    Raises:
        ModelUnavailable: ``tokenizer_folder`` has no usable tokenizer or no chat template.
        DataError: its chat template refuses a row.
    """
    counter = billable_counter(provider, model, tokenizer_folder)
    return Billable(
        tokens=sum(counter.conversation_tokens(messages) for row in rows for messages in conversations(row, system)),
        exact=counter.exact,
        how=how_of(counter),
    )


def conversations(row: Example, system: str) -> Iterator[tuple[Message, ...]]:
    """Yield the conversations that are trained on: the example's, and of a preference pair also the one with the rejected answer."""
    yield with_system(row.messages, system)
    if row.rejected is not None:
        yield with_system((*row.prompt, Message(role="assistant", content=row.rejected)), system)


def how_of(counter: Counter) -> str:
    """Return how a counter counts, in a few words."""
    if isinstance(counter, OpenAICounter):
        return "o200k_base, 3 tokens a message and 3 a row"
    if counter.exact:
        return "the base model's own tokenizer and chat template"
    if isinstance(counter, BedrockCounter):
        return "the base model's own tokenizer, prompt and completion as one turn; Bedrock does not publish what it puts around them"
    return f"an upper estimate: {LETTERS_PER_TOKEN:g} letters or a sign to a token, {TOKENS_PER_TURN} tokens a message"


def _upper(text: str) -> int:
    letters = sum(map(len, re.findall(r"[A-Za-z\s]+", text, re.ASCII)))
    others = "".join(character for character in text if character > "\x7f")
    signs = len(text) - letters - len(others)
    size = sum(math.ceil(len(character.encode("utf-8", "surrogatepass")) / BYTES_PER_TOKEN) for character in others)
    return math.ceil(letters / LETTERS_PER_TOKEN) + signs + size
