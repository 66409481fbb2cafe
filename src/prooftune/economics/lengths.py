"""How many tokens the examples of a plan have, without loading a model library: exact where the model's tokenizer is on this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prooftune.data.lines import read_lines
from prooftune.errors import DataError, Problem
from prooftune.spec import Task
from prooftune.training.encoding import with_system
from prooftune.types import Example, Message, SplitName

if TYPE_CHECKING:
    from jinja2 import Template

CHARACTERS_PER_TOKEN = 3.6
"""For byte-pair vocabularies on English; German has fewer, so the guess is then too low by a fifth or so."""
TOKENS_PER_TURN = 5
"""What a ChatML-like template puts around one message."""
_GENERATION = re.compile(r"(\{%-?)\s*(end)?generation\s*(-?%\})")

Encode = Callable[[Sequence[Message], bool], list[int]]
"""Messages, and whether to open the assistant's turn behind them → token ids."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of one split."""

    examples: int
    total: int
    """Prompts and targets, each example cut at ``max_length``."""
    prompts: int
    targets: int
    longest: int
    longest_target: int
    truncated: int
    """Examples longer than ``max_length``."""
    shared: int
    """Tokens that all prompts begin with: they are run once."""


def count_lengths(splits: Mapping[SplitName, Path], task: Task, max_length: int, encode: Encode) -> dict[SplitName, Lengths]:
    """Return the tokens of each split.

    Raises:
        DataError: the chat template refuses examples; with all of them.
    """
    problems: list[Problem] = []
    counted = {name: _count(path, task, max_length, encode, problems) for name, path in splits.items()}
    if problems:
        raise DataError(f"the model's chat template cannot render {len(problems)} examples:", tuple(problems))
    return counted


def _count(path: Path, task: Task, max_length: int, encode: Encode, problems: list[Problem]) -> Lengths:
    from jinja2 import TemplateError

    prompts: list[list[int]] = []
    wholes: list[int] = []
    for example in read_lines(path, Example):
        messages = with_system(example.messages, task.system)
        try:
            prompt, whole = encode(messages[:-1], True), encode(messages, False)
        except TemplateError as error:
            problems.append(Problem(example.source, str(error), "template"))
            continue
        prompts.append(prompt)
        wholes.append(len(whole))
    targets = [max(whole - len(prompt), 0) for whole, prompt in zip(wholes, prompts, strict=True)]
    return Lengths(
        examples=len(wholes),
        total=sum(min(whole, max_length) for whole in wholes),
        prompts=sum(map(len, prompts)),
        targets=sum(targets),
        longest=max(wholes, default=0),
        longest_target=max(targets, default=0),
        truncated=sum(whole > max_length for whole in wholes),
        shared=_shared(prompts),
    )


def _shared(prompts: Sequence[list[int]]) -> int:
    """Tokens that all prompts begin with: those of the first and the last in order."""
    if not prompts:
        return 0
    first, last = min(prompts), max(prompts)
    return next((index for index, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))


def exact_encoder(folder: Path) -> Encode | None:
    """Return the tokenizer and chat template of a model folder as one function, or None where the folder lacks either.

    It counts with ``tokenizer.json`` as it is. The run itself counts with the tokenizer as transformers loads it, which for a few model
    types exchanges the pre-tokenizer.
    """
    template = _chat_template(folder)
    if template is None or not (folder / "tokenizer.json").is_file():
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = {name: value for name, value in _config(folder).items() if name.endswith("_token")}
    texts = {name: value["content"] if isinstance(value, dict) else value for name, value in special.items()}

    def encode(messages: Sequence[Message], opens_turn: bool) -> list[int]:
        rows = [message.model_dump() for message in messages]
        text = template.render(messages=rows, add_generation_prompt=opens_turn, enable_thinking=False, **texts)
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    return encode


def guess(messages: Sequence[Message], opens_turn: bool) -> list[int]:
    """Stand in for a tokenizer that is not on this machine: a list as long as the tokens would about be, whose values mean nothing."""
    ids: list[int] = []
    for message in messages:
        size = TOKENS_PER_TURN + round(len(message.content) / CHARACTERS_PER_TOKEN)
        # Equal messages get equal values, so that what prompts have in common is found; others differ from their first token on.
        ids += [hash((message.role, message.content))] * size
    return ids + [0] * (TOKENS_PER_TURN - 1) * opens_turn


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def _chat_template(folder: Path) -> Template | None:
    """Compile the template in the sandbox and with the options that transformers uses: it comes with the model and is not trusted."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    path = folder / "chat_template.jinja"
    text = path.read_text(encoding="utf-8") if path.is_file() else _config(folder).get("chat_template")
    if not isinstance(text, str):
        return None
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _today
    # The mark around what the assistant generates is no tag of Jinja's; it changes nothing in the text.
    marked = _GENERATION.sub(lambda mark: f"{mark[1]} {'endif' if mark[2] else 'if true'} {mark[3]}", text)
    return environment.from_string(marked)


def _to_json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _today(form: str) -> str:
    from datetime import datetime

    return datetime.now().astimezone().strftime(form)
