"""Whether the looks at several checkpoints are those that the spec allows, each at its share of alpha."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prooftune.evaluation.gate.looks import alpha_by_look
from prooftune.spec import Gate
from prooftune.types import Decision, Frozen
from prooftune.verification.audit import NOTHING, Audit

FILE = "looks.json"
WHOLE: dict[str, Any] = {"look": 1, "alpha": None}
"""A single look, at all of alpha."""
_OF_THE_LOOK = {"verdict", "share"}
"""What a look's figures hold that its decision need not: the other conditions come later and may take a promotion back."""


class Looks(Frozen):
    """What is in ``looks.json``: how many looks were planned before the first, and the figures of those that were taken."""

    planned: int
    looks: tuple[dict[str, Any], ...]


def check_looks(audit: Audit, gate: Gate, written: Decision) -> dict[str, Any]:
    """Return which look at the holdout the decision has to be, and its share of alpha, by ``looks.json`` where there could be several.

    A number of looks that the spec does not allow is noted, and the decision is then held against a single look.
    """
    told = audit.document(FILE, Looks)
    if told is None or not _possible(audit, told, gate.looks):
        return WHOLE
    shares = alpha_by_look(gate.alpha, told.planned)
    numbered = [{"look": number, "share": share} for number, share in enumerate(shares, start=1)][: len(told.looks)]
    found = [{name: look.get(name, NOTHING) for name in ("look", "share")} for look in told.looks]
    audit.same("looks", FILE, "looks", found, numbered)
    taken = _taken(audit, told.looks, told.planned)
    figures = {name: value for name, value in told.looks[taken - 1].items() if name not in _OF_THE_LOOK}
    decided = written.model_dump(mode="json")
    audit.same("looks", FILE, f"looks[{taken - 1}]", figures, {name: decided.get(name, NOTHING) for name in figures})
    return {"look": taken, "alpha": shares[taken - 1]}


def _possible(audit: Audit, told: Looks, allowed: int) -> bool:
    if not 1 <= told.planned <= allowed:
        audit.note(FILE, "planned", told.planned, f"1 to {allowed}, by gate.looks")
        return False
    if not 1 <= len(told.looks) <= told.planned:
        audit.note(FILE, "looks", f"{len(told.looks)} looks", f"1 to {told.planned}, by planned")
        return False
    return True


def _taken(audit: Audit, looks: Sequence[dict[str, Any]], planned: int) -> int:
    """Return the look that counts: the one that was promoted, which is the last, or else the first of all."""
    promoted = [number for number, look in enumerate(looks, start=1) if look.get("verdict") == "promote"]
    last = promoted[0] if promoted else planned
    if len(looks) != last:
        audit.note(FILE, "looks", f"{len(looks)} looks", f"{last}: up to the first promotion, or else all that were planned")
    return promoted[0] if promoted else 1
