"""``verify`` on several looks: their number, order and shares of alpha are those that the spec allows, and the right one counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prooftune.spec import Gate
from prooftune.storage.local import LocalStore
from prooftune.storage.manifest import publish, read_manifest
from prooftune.types import Decision
from prooftune.verification.audit import Audit
from prooftune.verification.evidence import by_rung
from prooftune.verification.looks import WHOLE, check_looks

GATE = Gate(looks=3)
DECISION = Decision(verdict="promote", reasons=(), difference=0.2, p_value=0.001, alpha=0.0125, look=2)


def look(number: int, verdict: str, share: float, **figures: Any) -> dict[str, Any]:
    """A look as the stage writes it."""
    return {"look": number, "verdict": verdict, "share": share, "difference": 0.01, "p_value": 0.5, "alpha": share, **figures}


LOOKS: dict[str, Any] = {
    "planned": 3,
    "looks": [look(1, "inconclusive", 0.025), look(2, "promote", 0.0125, difference=0.2, p_value=0.001)],
}


def checked(folder: Path, told: Any, gate: Gate = GATE, decision: Decision = DECISION) -> tuple[dict[str, Any], set[str]]:
    """What the decision has to be, and the fields that do not match."""
    (folder / "looks.json").write_text(json.dumps(told))
    store = LocalStore(folder / "store")
    publish(store, "run", {"looks.json": folder / "looks.json"}, {})
    audit = Audit(store, read_manifest(store, "run"))
    found = check_looks(audit, gate, decision)
    assert {one.file for one in audit.mismatches} <= {"looks.json"}
    return found, {one.what for one in audit.mismatches}


def test_the_promoted_look_counts_at_its_share(tmp_path: Path) -> None:
    """The second of three at a quarter of alpha; without a promotion the first counts."""
    assert checked(tmp_path, LOOKS) == ({"look": 2, "alpha": 0.0125}, set())
    nothing = [look(1, "inconclusive", 0.025), look(2, "keep_baseline", 0.0125), look(3, "inconclusive", 0.0125)]
    first = Decision(verdict="inconclusive", reasons=(), difference=0.01, p_value=0.5, alpha=0.025)
    (tmp_path / "second").mkdir()
    assert checked(tmp_path / "second", {"planned": 3, "looks": nothing}, decision=first) == ({"look": 1, "alpha": 0.025}, set())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"planned": 9}, "planned"),
        ({"planned": 0}, "planned"),
        ({"planned": -1}, "planned"),
        ({"planned": 1}, "looks"),
        ({"looks": []}, "looks"),
        ({"looks": LOOKS["looks"][:1]}, "looks"),
        ({"looks": [*LOOKS["looks"], look(3, "inconclusive", 0.0125)]}, "looks"),
        ({"looks": [LOOKS["looks"][0], LOOKS["looks"][1] | {"share": 0.05}]}, "looks[1].share"),
        ({"looks": [LOOKS["looks"][0], LOOKS["looks"][1] | {"look": 1}]}, "looks[1].look"),
        ({"looks": [LOOKS["looks"][0], LOOKS["looks"][1] | {"p_value": 0.01}]}, "looks[1].p_value"),
        ({"planned": "three"}, "the content"),
    ],
)
def test_forged_looks_are_named(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    """More looks than the spec allows or than were planned, none, one too many, another share, another number, other figures."""
    assert named in checked(tmp_path, LOOKS | change)[1]


def test_a_single_look_has_no_file_and_all_of_alpha(tmp_path: Path) -> None:
    """A spec with one look allows no second, whatever the file says."""
    found, named = checked(tmp_path, LOOKS, gate=Gate())
    assert (found, named) == (WHOLE, {"planned"})


def test_rungs_come_in_the_order_of_the_ladder() -> None:
    """Not of the alphabet: of two that are equally good the earlier one is the baseline."""
    assert by_rung(["few_shot", "zero_shot", "candidate"], ["zero_shot", "few_shot"]) == ["zero_shot", "few_shot", "candidate"]
