"""The rows that Fireworks trains on, and its rules for them, so that what it would refuse after the upload is found before.

Source: https://docs.fireworks.ai/fine-tuning/fine-tuning-models, https://docs.fireworks.ai/fine-tuning/dpo-fine-tuning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from prooftune.errors import Problem
from prooftune.providers.fireworks_jobs import ROWS_MAX, ROWS_MIN, require_settings
from prooftune.providers.rows import Found, check_lines, pair_of, plain, write_lines_of
from prooftune.providers.tuning import Order
from prooftune.spec import Objective
from prooftune.training.encoding import with_system
from prooftune.types import Example

ROLES = ("system", "user", "assistant")
_FIELDS: Mapping[Objective, frozenset[str]] = {
    "supervised": frozenset({"messages", "tools", "weight"}),
    "preference": frozenset({"input", "preferred_output", "non_preferred_output"}),
    "reinforcement": frozenset({"messages", "tools", "ground_truth"}),
}


def write_rows(examples: Path, system: str, objective: Objective, out: Path) -> None:
    """Write examples as rows, one line an example, in their order; ``system`` stands in front of those without a system message.

    Raises:
        DataError: the objective is ``preference``, and examples have no rejected answer.
    """
    write_lines_of(examples, lambda example: _row(example, system, objective), out)


def _row(example: Example, system: str, objective: Objective) -> dict[str, Any]:
    messages = plain(with_system(example.messages, system))
    if objective == "supervised":
        return {"messages": messages}
    if objective == "reinforcement":
        return {"messages": messages[:-1], "ground_truth": example.target}
    return pair_of(example, messages[:-1])


def check_rows(path: Path, order: Order, role: Literal["train", "validation"]) -> list[Problem]:
    """Return what Fireworks would refuse in a file of rows, each with ``FILE:LINE``.

    Raises:
        SpecError: it would refuse the order whatever the rows are.
    """
    require_settings(order)
    weighted: dict[int, bool] = {}

    def found_in(row: dict[str, Any], number: int) -> Found:
        weighted[number] = "weight" in row
        return _RULES[order.objective](row)

    with path.open("rb") as lines:
        rows, problems = check_lines(lines, path.name, found_in)
    if len(set(weighted.values())) > 1:
        first = min(number for number, has in weighted.items() if not has)
        reason = f"it has no weight, and {sum(weighted.values())} rows of the file have one; give every row a weight, or none"
        problems.append(Problem(f"{path.name}:{first}", reason, "weight-partly"))
    return problems + list(_counts(path, rows, order, role))


def _counts(path: Path, rows: int, order: Order, role: Literal["train", "validation"]) -> Iterator[Problem]:
    epochs = order.hyperparameters.epochs
    where = f"{path.name}:{rows}"
    if rows < ROWS_MIN:
        yield Problem(where, f"the file has {rows} rows; Fireworks requires {ROWS_MIN}", "too-few-rows")
    elif rows > ROWS_MAX:
        yield Problem(where, f"the file has {rows:,} rows; Fireworks takes {ROWS_MAX:,}", "too-many-rows")
    elif role == "train" and rows * epochs > ROWS_MAX:
        reason = f"{rows:,} rows × {epochs} epochs are {rows * epochs:,}; Fireworks takes {ROWS_MAX:,}"
        yield Problem(where, f"{reason}. Lower provider.hyperparameters.epochs", "too-many-rows-times-epochs")


def _supervised(row: Mapping[str, Any]) -> Found:
    yield from _unknown(row, "supervised")
    weight = row.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        yield "row-weight", "the row's weight is no number"
    messages: Any = row.get("messages")
    yield from _conversation(messages, "messages")
    if _is_conversation(messages):
        if messages[-1].get("role") != "assistant":
            yield "last-not-assistant", f"the last message has the role {messages[-1].get('role')!r}; it must be 'assistant', the target"
        if not any(message.get("role") == "assistant" and message.get("weight", 1) == 1 for message in messages):
            yield "nothing-to-learn", "no message of the assistant has the weight 1, so that there is nothing to learn"


def _preference(row: Mapping[str, Any]) -> Found:
    yield from _unknown(row, "preference")
    given = row.get("input")
    if isinstance(given, dict):
        messages: Any = given.get("messages")
        yield from _conversation(messages, "input.messages")
        if _is_conversation(messages) and messages[-1].get("role") == "assistant":
            yield "prompt-ends-with-answer", "input.messages ends with a message of the assistant; the answers belong into the two outputs"
    else:
        yield "no-input", "there is no input; it must be an object with messages"
    outputs: list[Any] = [row.get("preferred_output"), row.get("non_preferred_output")]
    for name, output in zip(("preferred_output", "non_preferred_output"), outputs, strict=True):
        if not (_is_conversation(output) and len(output) == 1 and output[0].get("role") == "assistant"):
            yield "bad-output", f"{name} must be a list of one message, of the role 'assistant'"
        else:
            yield from _conversation(output, name)
    if all(map(_is_conversation, outputs)) and outputs[0] == outputs[1]:
        yield "same-outputs", "the preferred and the other output are the same, so that there is nothing to prefer"


def _reinforcement(row: Mapping[str, Any]) -> Found:
    yield from _unknown(row, "reinforcement")
    messages: Any = row.get("messages")
    yield from _conversation(messages, "messages")
    if _is_conversation(messages) and messages[-1].get("role") == "assistant":
        yield "prompt-ends-with-answer", "messages ends with a message of the assistant; the expected answer belongs into ground_truth"


def _unknown(row: Mapping[str, Any], objective: Objective) -> Found:
    if unknown := sorted(set(row) - _FIELDS[objective]):
        names = ", ".join(repr(name[:40]) for name in unknown[:5])
        yield "unknown-field", f"the row holds {names}; a {objective} row may hold {', '.join(sorted(_FIELDS[objective]))}"


def _is_conversation(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(message, dict) for message in value)


def _conversation(messages: Any, name: str) -> Found:
    """Check the messages by themselves: roles, contents and weights."""
    if not _is_conversation(messages):
        yield "no-messages", f"{name} must be a list of messages, at least one"
        return
    for number, message in enumerate(messages):
        role = message.get("role")
        if role not in ROLES:
            # `[:40]`: a role comes from the data, and may be anything.
            yield "role", f"{name}[{number}] has the role {str(role)[:40]!r}; Fireworks takes {', '.join(ROLES)}"
        elif role == "system" and number:
            yield "system-not-first", f"{name}[{number}] is a system message; one may only be the first"
        if not isinstance(message.get("content"), str) and not (role == "assistant" and message.get("tool_calls")):
            yield "content", f"{name}[{number}] has no text as its content"
        weight = message.get("weight", 1)
        if isinstance(weight, bool) or weight not in (0, 1):
            yield "message-weight", f"{name}[{number}] has a weight that is neither 0 nor 1"


_RULES: Mapping[Objective, Callable[[Mapping[str, Any]], Found]] = {
    "supervised": _supervised,
    "preference": _preference,
    "reinforcement": _reinforcement,
}
