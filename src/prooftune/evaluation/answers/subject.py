"""A model as it is put to the ladder or to a contest: who answers, who counts its tokens, and how long a prompt may be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prooftune.data.counting import Counter, TokenizerCounter
from prooftune.evaluation.answers.answering import Answerer, LocalAnswerer
from prooftune.models.loading import Kind, load_base, load_candidate, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Subject:
    """A base model, opened."""

    answerer: Answerer
    counter: Counter
    context: int | None = None
    """Tokens of prompt and answer that the model can attend to; None = any number."""
    direct: Answerer | None = None
    """The same model where one answer decides what is asked next, and a batch would take a day each time; None = ``answerer``."""
    least_answer_tokens: int = 0
    """A lower limit on an answer's tokens is raised to this one: of the context, so much is the answer's in any case."""

    @property
    def searcher(self) -> Answerer:
        """Who is asked while a prompt is being looked for."""
        return self.direct or self.answerer


def open_local(folder: Path, name: str = "", *, trust_remote_code: bool = False) -> Subject:
    """Load the base model in a folder of this machine.

    Raises:
        ModelUnavailable: it cannot be loaded safely.
    """
    tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
    model = load_base(folder, trust_remote_code=trust_remote_code)
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return Subject(LocalAnswerer(model, tokenizer, name), TokenizerCounter(tokenizer), context)


def open_candidate(
    folder: Path, weights: Path, tokenizer: PreTrainedTokenizerBase, *, kind: Kind = "lora", trust_remote_code: bool = False
) -> Answerer:
    """Load what training wrote into ``weights``, on the base model in ``folder``.

    Raises:
        ModelUnavailable: the model or adapter cannot be loaded safely.
    """
    return LocalAnswerer(load_candidate(folder, weights, kind=kind, trust_remote_code=trust_remote_code), tokenizer)
