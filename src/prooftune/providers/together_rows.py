"""Training rows in Together's form, what is refused in them, and the request that creates a job of them.

Source: https://docs.together.ai/docs/fine-tuning/data-preparation, …/preference-tuning and …/reference/post-fine-tunes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from prooftune.errors import Problem, SpecError
from prooftune.providers.rows import Found, check_lines, pair_of, plain, write_lines_of
from prooftune.providers.tuning import Files, Order, suffix_of
from prooftune.spec import Objective
from prooftune.training.encoding import with_system
from prooftune.types import Example

FILE_BYTES = 5 * 2**30
"""Together takes more, in parts; no row form of ours comes near, and a file in parts is not found again by its digest."""
SUFFIX_MAX = 40
LEARNING_RATE = 1e-5
"""Together's own default; its API asks for one."""
ROLES = ("system", "user", "assistant", "tool")
_FIELDS: Mapping[Objective, tuple[frozenset[str], frozenset[str]]] = {
    "supervised": (frozenset({"messages"}), frozenset({"messages", "tools"})),
    "preference": (frozenset({"input", "preferred_output", "non_preferred_output"}),) * 2,
}
"""Fields that a row must have, and may have. One with the fields of two forms is refused."""


def write_rows(examples: Path, system: str, objective: Objective, out: Path) -> None:
    """Write examples as rows, one line an example, in their order; ``system`` stands in front of those without a system message.

    Raises:
        DataError: the objective is ``preference``, and examples have no rejected answer.
    """
    write_lines_of(examples, lambda example: _row(example, system, objective), out)


def _row(example: Example, system: str, objective: Objective) -> dict[str, Any]:
    messages = plain(with_system(example.messages, system))
    return {"messages": messages} if objective == "supervised" else pair_of(example, messages[:-1])


def check_rows(path: Path, order: Order, role: Literal["train", "validation"]) -> list[Problem]:
    """Return what Together would refuse in a file of rows, each with ``FILE:LINE``.

    Raises:
        SpecError: it would refuse the order whatever the rows are.
    """
    require_settings(order)
    problems: list[Problem] = []
    if (size := path.stat().st_size) > FILE_BYTES:
        problems.append(Problem(path.name, f"the file has {size:,} bytes; {FILE_BYTES:,} can be uploaded at once", "file-too-large"))
    with path.open("rb") as lines:
        rows, found = check_lines(lines, path.name, lambda row, _: _wrong(row, order.objective))
    problems += found
    if rows == 0:
        problems.append(Problem(f"{path.name}:1", f"the {role} file is empty; Together requires a row", "too-few-rows"))
    return problems


def _wrong(row: Mapping[str, Any], objective: Objective) -> Found:
    required, allowed = _FIELDS[objective]
    if missing := sorted(required - row.keys()):
        yield "missing-field", f"the row has no {', '.join(missing)}; a {objective} row has {', '.join(sorted(required))}"
    elif unknown := sorted(row.keys() - allowed):
        yield "unknown-field", f"the row has the fields {', '.join(unknown)}; a {objective} row has {', '.join(sorted(allowed))} alone"
    elif objective == "supervised":
        yield from _conversation(row["messages"], "messages", ends=("assistant",), starts=("user",))
    else:
        yield from _pair(row)


def _pair(row: Mapping[str, Any]) -> Found:
    given = row["input"]
    if not isinstance(given, dict) or not {"messages"} <= given.keys() <= {"messages", "tools"}:
        yield "bad-input", "the row's input is no object with messages, and at most tools besides"
    else:
        yield from _conversation(given["messages"], "input.messages", ends=("user", "tool"), starts=("user", "assistant"))
    for name in ("preferred_output", "non_preferred_output"):
        answer = row[name]
        if not isinstance(answer, list) or len(answer) != 1 or _role(answer[0]) != "assistant":
            yield "bad-output", f"{name} is not a list of one message of the assistant"
        else:
            yield from _content(answer[0], name)


def _conversation(messages: object, field: str, ends: Sequence[str], starts: Sequence[str]) -> Found:
    """Find what is wrong with a conversation: a system message, then user and assistant by turns."""
    if not isinstance(messages, list) or not messages:
        yield "no-messages", f"{field} is no list of messages, or an empty one"
        return
    if any(_role(message) not in ROLES for message in messages):
        yield "bad-role", f"a message in {field} has no role, or none of {', '.join(ROLES)}"
        return
    turns = messages[1:] if _role(messages[0]) == "system" else messages
    for number, message in enumerate(messages, start=1):
        yield from _content(message, f"{field} {number}")
    if any(_role(message) == "system" for message in turns):
        yield "system-not-first", f"{field} has a system message behind the first message; it must be the first"
        return
    said = [message for message in turns if _role(message) != "tool" and not message.get("tool_calls")]
    roles = [_role(message) for message in said]
    if any(one == other for one, other in pairwise(roles)):
        yield "roles-not-alternating", f"{field} has two messages of one role in a row; user and assistant must alternate"
    if turns and _role(turns[0]) not in starts:
        yield "wrong-first-role", f"{field} starts with role {_role(turns[0])!r}; it must start with {' or '.join(starts)}"
    if _role(messages[-1]) not in ends:
        yield "wrong-last-role", f"{field} ends with role {_role(messages[-1])!r}; it must end with {' or '.join(ends)}"


def _content(message: Mapping[str, Any], where: str) -> Found:
    content, calls = message.get("content"), _role(message) == "assistant" and bool(message.get("tool_calls"))
    if not (isinstance(content, str) and content) and not (calls and content is None):
        yield "no-content", f"{where} has no text"
    if _role(message) == "tool" and not message.get("tool_call_id"):
        yield "tool-without-call", f"{where} is the result of a tool call and does not name the call (tool_call_id)"
    if "weight" in message and (_role(message) != "assistant" or message["weight"] not in (0, 1)):
        yield "bad-weight", f"{where} has a weight that is not 0 or 1, or is not the assistant's"


def _role(message: object) -> str:
    role = message.get("role") if isinstance(message, dict) else None
    return role if isinstance(role, str) else ""


def require_settings(order: Order) -> None:
    """Check that Together takes what an order asks for; limits that differ by model are the probe's, which ``probing.py`` keeps.

    Raises:
        SpecError: it does not; the message names the field.
    """
    chosen = order.hyperparameters
    if order.objective not in _FIELDS:
        raise SpecError(f"backend.objective is {order.objective}; Together's fine-tuning API takes {' and '.join(_FIELDS)}")
    if chosen.learning_rate_multiplier is not None:
        raise SpecError("provider.hyperparameters.learning_rate_multiplier is set, and Together does not take it; set learning_rate")
    if chosen.adapter_alpha is not None and chosen.adapter_rank is None:
        raise SpecError(
            "provider.hyperparameters.adapter_alpha is set without adapter_rank, and Together takes it only with the rank; set both"
        )
    if chosen.beta is not None and order.objective != "preference":
        raise SpecError(
            f"provider.hyperparameters.beta is {chosen.beta:g} with backend.objective {order.objective}; Together takes it with the "
            "objective preference alone"
        )


def request_of(order: Order, files: Files) -> dict[str, Any]:
    """Return the body of the request that creates the job.

    Without a rank Together chooses it by model; without an alpha it is twice the rank, as in the SDK. Validation rows are evaluated after
    each epoch, and Together bills each evaluation.

    Raises:
        SpecError: the order holds what Together cannot take.
    """
    require_settings(order)
    chosen = order.hyperparameters
    body: dict[str, Any] = {
        "model": order.model,
        "training_file": files.train,
        "n_epochs": chosen.epochs,
        "n_checkpoints": 1,
        "n_evals": chosen.epochs if files.validation else 0,
        "batch_size": chosen.batch_size or "max",
        "learning_rate": LEARNING_RATE if chosen.learning_rate is None else chosen.learning_rate,
        "lr_scheduler": {"lr_scheduler_type": "cosine", "lr_scheduler_args": {"min_lr_ratio": 0.0, "num_cycles": 0.5}},
        "warmup_ratio": 0.0,
        "max_grad_norm": 1.0,
        "weight_decay": 0.0,
        "random_seed": order.seed,
        "suffix": suffix_of(order, SUFFIX_MAX),
        "training_method": _method(order),
    }
    if files.validation:
        body["validation_file"] = files.validation
    return body | _adapter(order)


def estimate_of(order: Order, files: Files) -> dict[str, Any]:
    """Return the arguments of the SDK's ``estimate_price`` for the job that ``request_of`` orders."""
    body = request_of(order, files)
    names = ("model", "training_file", "validation_file", "n_epochs", "n_evals", "training_method", "training_type")
    return {name: body[name] for name in names if name in body}


def _method(order: Order) -> dict[str, Any]:
    if order.objective == "preference":
        beta = order.hyperparameters.beta
        return {"method": "dpo", **({} if beta is None else {"dpo_beta": beta})}
    return {"method": "sft", "train_on_inputs": "auto"}


def _adapter(order: Order) -> dict[str, Any]:
    rank = order.hyperparameters.adapter_rank
    if rank is None:
        return {}
    return {"training_type": {"type": "Lora", "lora_r": rank, "lora_alpha": order.hyperparameters.adapter_alpha or 2 * rank}}
