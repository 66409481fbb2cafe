"""Tickets that a canned stand-in learns, and a spec for managed runs on them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from tests_support import WORDS, write_jsonl

LABELS = {"billing": "invoice refund charge price", "login": "password account locked code", "delivery": "parcel courier late street"}


def tickets(count: int = 80) -> list[dict[str, str]]:
    """Return tickets of unlike words; those of one label share most of its words, so that the nearest one has the right label."""
    rng = random.Random(1)
    rows = []
    for number in range(count):
        label = list(LABELS)[number % len(LABELS)]
        words = [label, *rng.sample(LABELS[label].split(), 3), *rng.sample(WORDS, 3)]
        rng.shuffle(words)
        rows.append({"prompt": " ".join(words), "completion": label})
    return rows


def managed_fields(folder: Path, provider: str, model: str, name: str = "tickets") -> dict[str, Any]:
    """Return the fields of a spec on tickets, which are written into the folder; how the provider is reached is left to add."""
    source = folder / "tickets.jsonl"
    if not source.exists():
        write_jsonl(source, tickets())
    return {
        "name": name,
        "data": {"source": str(source), "min_examples": 10, "split": {"holdout": 30, "validation": 8}},
        "baseline": {"ladder": ["zero_shot"]},
        "backend": {"provider": provider, "model": model},
        "provider": {"min_remaining_days": 0},
        "general": {"suite": "none"},
        "gate": {"max_forgetting": None},
        "store": {"uri": str(folder / "store")},
    }
