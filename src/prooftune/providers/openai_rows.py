"""Training rows in OpenAI's form, which Azure takes too, and what is refused in them; ``method`` puts an order's hyperparameters in it.

Source: https://developers.openai.com/api/docs/guides/supervised-fine-tuning, …/direct-preference-optimization and
…/reinforcement-fine-tuning.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from prooftune.errors import Problem, SpecError
from prooftune.providers.rows import Unfit, check_lines, pair_of, plain, write_lines_of
from prooftune.providers.tuning import Order
from prooftune.spec import Objective
from prooftune.training.encoding import with_system
from prooftune.types import Example

METHODS: dict[Objective, str] = {"supervised": "supervised", "preference": "dpo", "reinforcement": "reinforcement"}
GRADERS = ("string_check", "text_similarity", "python", "score_model", "multi")
REFERENCE = "reference_answer"
"""Field of a reinforcement row with the target; a grader reads it as ``{{item.reference_answer}}``."""
ROLES = ("system", "developer", "user", "assistant", "tool")
BATCH_MAX, BETA_MAX, SEED_MAX = 256, 2.0, 2**31 - 1
_ITEM = re.compile(r"\{\{\s*item\.(\w+)")
_ROWS: dict[Objective, tuple[frozenset[str], frozenset[str]]] = {
    "supervised": (frozenset({"messages"}), frozenset({"messages", "tools", "parallel_tool_calls"})),
    "preference": (frozenset({"input", "preferred_output", "non_preferred_output"}),) * 2,
    "reinforcement": (frozenset({"messages"}), frozenset()),
}
"""Fields that a row must have, and may have; a reinforcement row may have any, for its grader."""


@dataclass(frozen=True)
class Rules:
    """What is asked of a file, as far as OpenAI and Azure may differ."""

    rows_min: int = 10
    file_bytes: int = 8 * 2**30
    tokens_per_example: int = 65_536
    """Told by the probe, and kept by ``probing.py``."""
    byte_order_mark: bool = False


def write_rows(examples: Path, system: str, objective: Objective, out: Path, rules: Rules) -> None:
    """Write examples in the provider's form, one line an example, in their order.

    Raises:
        DataError: a preference tuning is to learn from an example without a rejected answer.
    """
    write_lines_of(examples, lambda example: _row(example, system, objective), out, codecs.BOM_UTF8 if rules.byte_order_mark else b"")


def _row(example: Example, system: str, objective: Objective) -> dict[str, Any]:
    messages = plain(with_system(example.messages, system))
    if objective == "supervised":
        return {"messages": messages}
    if objective == "reinforcement":
        return {"messages": messages[:-1], REFERENCE: example.target}
    return pair_of(example, messages[:-1])


def check_rows(path: Path, order: Order, role: Literal["train", "validation"], rules: Rules) -> list[Problem]:
    """Return what would be refused in a file of rows, each problem with its line."""
    problems: list[Problem] = []
    if (size := path.stat().st_size) > rules.file_bytes:
        problems.append(Problem(path.name, f"has {size:,} bytes; a file may have {rules.file_bytes:,}", "file-too-large"))
    read = _items(order.grader) if order.objective == "reinforcement" else ()
    rows, found = check_lines(_lines(path, rules, problems), path.name, lambda row, _: _check_row(row, order.objective, read))
    problems += found
    least = rules.rows_min if role == "train" else 1
    if rows < least:
        problems.append(Problem(f"{path.name}:{rows or 1}", f"ends after {rows} rows; a {role} file has at least {least}", "too-few-rows"))
    return problems


def _lines(path: Path, rules: Rules, problems: list[Problem]) -> Iterator[bytes]:
    """Yield each line, the byte-order mark taken off where it belongs."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            marked = number == 1 and line.startswith(codecs.BOM_UTF8)
            if number == 1 and marked != rules.byte_order_mark:
                wanted = "begins without a UTF-8 byte-order mark, and the provider asks for one"
                unwanted = "begins with a UTF-8 byte-order mark, and the provider takes none"
                reason = wanted if rules.byte_order_mark else unwanted
                problems.append(Problem(f"{path.name}:1", reason, "byte-order-mark"))
            yield line.removeprefix(codecs.BOM_UTF8) if marked else line


def _check_row(row: dict[str, Any], objective: Objective, read: Sequence[str]) -> tuple[()]:
    """Return nothing; the first thing that is wrong is raised."""
    required, allowed = _ROWS[objective]
    if missing := sorted({*required, *read} - row.keys()):
        raise Unfit("missing-field", f"has no {', '.join(missing)}; a {objective} row has {', '.join(sorted({*required, *read}))}")
    if allowed and (unknown := sorted(row.keys() - allowed)):
        raise Unfit("unknown-field", f"has the fields {', '.join(unknown)}; a {objective} row may have {', '.join(sorted(allowed))}")
    if objective == "preference":
        _check_pair(row)
    else:
        _check_turns(_messages(row["messages"], "messages"), objective)
    return ()


def _check_turns(said: list[dict[str, Any]], objective: Objective) -> None:
    last = said[-1]["role"]
    wanted = "assistant" if objective == "supervised" else "user"
    if last != wanted:
        raise Unfit("wrong-last-role", f"ends with role {last!r}; a {objective} row ends with {wanted!r}")
    if objective == "supervised" and all(message.get("weight") == 0 for message in said if message["role"] == "assistant"):
        raise Unfit("nothing-to-learn", "gives each assistant message the weight 0; at least one has to count")


def _check_pair(row: dict[str, Any]) -> None:
    if not isinstance(row["input"], dict) or not {"messages"} <= row["input"].keys() <= {"messages", "tools", "parallel_tool_calls"}:
        raise Unfit("bad-input", "has an input that is no object of messages, tools and parallel_tool_calls")
    prompt = _messages(row["input"]["messages"], "input.messages")
    if prompt[-1]["role"] not in ("user", "tool"):
        raise Unfit("wrong-last-role", f"has an input that ends with role {prompt[-1]['role']!r}; it ends with 'user'")
    answers = [_messages(row[name], name) for name in ("preferred_output", "non_preferred_output")]
    for name, answer in zip(("preferred_output", "non_preferred_output"), answers, strict=True):
        if len(answer) != 1 or answer[0]["role"] != "assistant":
            raise Unfit("bad-output", f"has a {name} that is not one message of the assistant")


def _messages(found: object, field: str) -> list[dict[str, Any]]:
    if not isinstance(found, list) or not found:
        raise Unfit("no-messages", f"has {field} that are no list of messages, or none")
    for number, message in enumerate(found, start=1):
        where = f"{field} {number}"
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise Unfit("bad-role", f"{where} has no role, or none of {', '.join(ROLES)}")
        _check_content(message, where)
    return found


def _check_content(message: dict[str, Any], where: str) -> None:
    content, role = message.get("content"), message["role"]
    calls = role == "assistant" and bool(message.get("tool_calls"))
    if not (content and isinstance(content, str | list)) and not (calls and content is None):
        raise Unfit("no-content", f"{where} has no content")
    if role == "tool" and not message.get("tool_call_id"):
        raise Unfit("tool-without-call", f"{where} is the result of a tool call and does not name the call (tool_call_id)")
    if "weight" in message and (role != "assistant" or message["weight"] not in (0, 1)):
        raise Unfit("bad-weight", f"{where} has a weight that is not 0 or 1, or is not the assistant's")


def openai_tokens(messages: Sequence[dict[str, Any]]) -> int:
    """Return the tokens of a conversation: 3 a message, its role and its text, and 3 for the example.

    Source: https://cookbook.openai.com/examples/chat_finetuning_data_prep.
    """
    encoding = _encoding()
    texts = [part for message in messages for part in (message["role"], message.get("content")) if isinstance(part, str)]
    return 3 + 3 * len(messages) + sum(len(encoding.encode_ordinary(text)) for text in texts)


@cache
def _encoding() -> Any:
    """Return OpenAI's encoding; made once, since making it takes as long as thousands of texts."""
    from bpe_openai import get_encoding

    return get_encoding("o200k_base")


def method(order: Order) -> dict[str, Any]:
    """Return the field ``method`` of a request that creates a job.

    Raises:
        SpecError: a hyperparameter or the grader is none that the provider takes; the message names the field.
    """
    chosen, kind = order.hyperparameters, METHODS[order.objective]
    for name in ("learning_rate", "adapter_rank", "adapter_alpha"):
        if getattr(chosen, name) is not None:
            advice = "; set learning_rate_multiplier" if name == "learning_rate" else "; the provider chooses it"
            raise SpecError(f"provider.hyperparameters.{name} is set, and {order.provider} does not take it{advice}")
    if chosen.beta is not None and (kind != "dpo" or chosen.beta > BETA_MAX):
        raise SpecError(
            f"provider.hyperparameters.beta is {chosen.beta:g} with backend.objective {order.objective}; {order.provider} takes one up to "
            f"{BETA_MAX:g}, with the objective preference alone"
        )
    if chosen.batch_size is not None and chosen.batch_size > BATCH_MAX:
        raise SpecError(f"provider.hyperparameters.batch_size is {chosen.batch_size}; {order.provider} takes up to {BATCH_MAX}")
    if not 0 <= order.seed <= SEED_MAX:
        raise SpecError(f"the seed is {order.seed}; {order.provider} takes 0 to {SEED_MAX}")
    given = {"batch_size": chosen.batch_size, "learning_rate_multiplier": chosen.learning_rate_multiplier, "beta": chosen.beta}
    settings: dict[str, Any] = {"n_epochs": chosen.epochs} | {name: value for name, value in given.items() if value is not None}
    grader = {"grader": _grader(order.grader)} if kind == "reinforcement" else {}
    return {"type": kind, kind: {"hyperparameters": settings, **grader}}


def _grader(text: str | None) -> dict[str, Any]:
    grader = json.loads(text) if text else None
    if not isinstance(grader, dict) or grader.get("type") not in GRADERS:
        raise SpecError(f"provider.grader has no type, or none of {', '.join(GRADERS)}; backend.objective reinforcement needs a grader")
    return grader


def _items(grader: str | None) -> tuple[str, ...]:
    """Return the fields of a row that a grader reads."""
    return tuple(sorted(set(_ITEM.findall(grader or ""))))
