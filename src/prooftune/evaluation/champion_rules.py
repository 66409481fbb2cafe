"""Whether one run's holdout may be sent to the model of another, where that model is at a provider."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from prooftune.data.lines import read_lines
from prooftune.data.pii import redact
from prooftune.spec import Data, RunSpec
from prooftune.types import Example


def why_not_sent(rules: Data, holdout: Path, to: RunSpec) -> str:
    """Return why a holdout must not go to the model of the run ``to``; empty = it may, or the model is on the user's own machines.

    ``rules`` are those of the run that the holdout is of. What ``to`` was held to when it was tuned is known to be kept.
    """
    if not to.backend.managed:
        return ""
    kept = to.data
    if rules.residency not in (None, kept.residency):
        return f"its run kept to data.residency {kept.residency}, and this holdout must stay in {rules.residency}"
    limit = rules.max_retention_days
    if limit is not None and (kept.max_retention_days is None or kept.max_retention_days > limit):
        return f"its run kept to data.max_retention_days {kept.max_retention_days}, and this holdout may be kept for {limit} days"
    if rules.pii == "allow" and (found := personal_data(holdout)):
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(found.items()))
        return f"this holdout has personal data in its prompts ({told}), and they go to no provider"
    return ""


def personal_data(holdout: Path) -> dict[str, int]:
    """Count the personal data in the prompts of examples, by the codes of validation."""
    found: Counter[str] = Counter()
    for example in read_lines(holdout, Example):
        for message in example.prompt:
            found.update({f"pii-{kind}": count for kind, count in redact(message.content)[1].items()})
    return dict(found)
