"""Chooses the examples that a few-shot prompt shows: from the training split only, the same ones for every question."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from statistics import quantiles

from prooftune.types import Example

Feature = tuple[str, str]


def choose_demonstrations(train: Sequence[Example], shots: int) -> list[Example]:
    """Return at most ``shots`` training examples whose targets are spread like the training targets, and which are short but not stunted.

    Each pick adds the most of what the targets hold: a label counts by how often it occurs, divided by how often it was picked already plus
    one (D'Hondt's rule, which hands out seats in proportion to votes); of a JSON target each field counts by itself. Among equals the one
    whose length is nearest to the lower quartile comes first. Deterministic, whatever the order of ``train``.
    """
    features = {example.id: _features(example.target) for example in train}
    votes = Counter(feature for found in features.values() for feature in found)
    lengths = [_length(example) for example in train]
    wanted = quantiles(lengths, n=4)[0] if len(lengths) > 1 else 0
    candidates = sorted(train, key=lambda example: (abs(_length(example) - wanted), example.id))
    picked: Counter[Feature] = Counter()
    chosen: list[Example] = []
    while candidates and len(chosen) < shots:
        best = max(candidates, key=lambda example: sum(votes[feature] / (1 + picked[feature]) for feature in features[example.id]))
        candidates.remove(best)
        chosen.append(best)
        picked.update(features[best.id])
    return chosen


def _features(target: str) -> list[Feature]:
    """Return the fields of a JSON object, or the whole text under no name."""
    try:
        value = json.loads(target)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        return [("", target)]
    return [(key, json.dumps(field, sort_keys=True)) for key, field in value.items()]


def _length(example: Example) -> int:
    return sum(len(message.content) for message in example.messages)
