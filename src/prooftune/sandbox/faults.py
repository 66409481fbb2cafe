"""Faults on request: what happens to a stand-in's next answers, so that a client's behaviour can be seen before money depends on it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Literal, get_args

from prooftune.errors import SpecError

Kind = Literal[
    "rate_limit",  # 429 with Retry-After: nothing was done
    "error_before",  # 500: nothing was done
    "error_after",  # 500, but the work was done
    "reset_before",  # the connection is reset before anything was done
    "reset_after",  # the connection is reset, but the work was done
    "timeout_after",  # the work was done, and no answer comes while the client waits
    "cut",  # half of the answer, then the connection ends
    "quota",  # the account's limit is reached: nothing was done, and waiting does not help
    "stale",  # a list as it was before the newest object, as of a slow replica
    "lost_id",  # the work was done, and the answer does not name what was made
    "refuse",  # the request is refused as unusable: nothing was done
    "duplicate",  # the request is refused since its name is taken: nothing was done
    "status",  # the object is shown with the status word `value`
]
WORKS: frozenset[Kind] = frozenset({"error_after", "reset_after", "timeout_after", "cut", "stale", "lost_id", "status"})
"""Faults whose request does its work all the same."""


@dataclass
class Fault:
    """What to do to the next ``times`` requests of an operation."""

    kind: Kind
    operation: str
    """Such as ``create_job``; ``*`` = any."""
    times: int = 1
    after: int = 0
    """Requests of the operation to let through first."""
    value: str = ""
    """Seconds of Retry-After (``rate_limit``, default 1), seconds of silence (``timeout_after``, default 30), the word (``status``)."""
    fired: int = 0
    """Requests that met it: an answer that holds nothing to cut, or to leave out, does not count."""


@dataclass
class Faults:
    """The faults that are ordered, and how often each has happened: a fault test fails if its fault never did."""

    ordered: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def order(self, kind: Kind, operation: str = "*", times: int = 1, after: int = 0, value: str = "") -> Fault:
        """Add a fault to those to come and return it; ``fired`` counts up.

        Raises:
            SpecError: there is no such kind.
        """
        if kind not in get_args(Kind):
            raise SpecError(f"there is no fault {kind!r}; there are {', '.join(get_args(Kind))}")
        fault = Fault(kind, operation, times, after, value)
        with self._lock:
            self.ordered.append(fault)
        return fault

    def due(self, operation: str) -> Fault | None:
        """Return the fault that this request meets, if any: the first ordered one that fits, and one fault a request."""
        with self._lock:
            for fault in self.ordered:
                if fault.operation not in ("*", operation) or fault.fired >= fault.times:
                    continue
                if fault.after:
                    fault.after -= 1
                    continue
                fault.fired += 1
                return fault
        return None

    def spare(self, fault: Fault) -> None:
        """Take back that a request met the fault: its answer held nothing that could be taken from it. The next one meets it instead."""
        with self._lock:
            fault.fired -= 1

    def clear(self) -> None:
        """Forget every fault."""
        with self._lock:
            self.ordered.clear()


def parse_fault(text: str) -> Fault:
    """Read a fault as the command line takes it: ``KIND[:VALUE]@OPERATION[*TIMES][+AFTER]``, such as ``reset_after@create_job*2``.

    Raises:
        SpecError: it is not of that form.
    """
    what, sign, where = text.partition("@")
    kind, _, value = what.partition(":")
    where, _, after = where.partition("+")
    operation, _, times = where.partition("*")
    if not sign or kind not in get_args(Kind) or not (times or "1").isdigit() or not (after or "0").isdigit():
        raise SpecError(
            f"{text!r} is no fault; it is of the form KIND[:VALUE]@OPERATION[*TIMES][+AFTER], such as reset_after@create_job*2, "
            f"with a kind of {', '.join(get_args(Kind))}"
        )
    return Fault(kind, operation or "*", int(times or 1), int(after or 0), value)  # type: ignore[arg-type]  # kind was checked
