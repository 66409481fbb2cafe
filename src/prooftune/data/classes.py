"""Tell targets that are classes from free text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

MOST_CLASSES = 200
FEWEST_EXAMPLES = 3
"""Examples a class, on average: below that, equal targets are chance and not classes."""


def class_sizes(targets: Sequence[str]) -> dict[str, int] | None:
    """Examples by class, largest first, or None when the targets are free text."""
    sizes = Counter(targets)
    if len(sizes) > MOST_CLASSES or len(sizes) * FEWEST_EXAMPLES > len(targets):
        return None
    return dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))
