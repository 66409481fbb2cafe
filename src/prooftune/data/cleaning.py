"""Deal with personal data, duplicates and contradictions among valid examples, and say what was done to which.

Each function takes examples in source order and returns those that go on, in the same order, with a finding for each flaw.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from prooftune.data import pii
from prooftune.data.duplicates import Clusters, find_clusters, normalise
from prooftune.data.shapes import example_id
from prooftune.errors import DataError, Problem
from prooftune.types import Example, Finding, Message, Scalar

Cleaned = tuple[list[Example], list[Finding]]
NAMED = 5
"""A finding names at most so many other rows."""


def handle_pii(examples: Sequence[Example], policy: Literal["allow", "redact", "drop", "stop"]) -> Cleaned:
    """Keep, redact or drop examples whose messages hold personal data, the target and the rejected answer included.

    A preference pair whose answers differed in personal data alone is dropped: redacted, they are the same.

    Metadata is never trained on but is stored: unless the policy is ``allow``, a value that holds personal data becomes a numbered
    pseudonym (``[EMAIL]#3``) that keeps equal values equal, so that grouping by customer still works. A digest would not do: who tries
    all telephone numbers finds the one behind it.

    Raises:
        DataError: the policy is ``stop`` and an example holds personal data; with every such example.
    """
    kept: list[Example] = []
    findings: list[Finding] = []
    done: Literal["kept", "redacted", "dropped"] = "kept" if policy == "allow" else "redacted" if policy == "redact" else "dropped"
    pseudonyms: dict[str, int] = {}
    for example in examples:
        redacted, counts = _redacted(example, pseudonyms)
        for kind, count in sorted(counts.items()):
            reason = f"holds personal data ({kind} × {count}); data.pii is {policy}"
            findings.append(Finding(where=example.source, code=f"pii-{kind}", reason=reason, action=done))
        if policy == "redact" and redacted.rejected is not None and redacted.rejected.strip() == redacted.target.strip():
            reason = "has the same chosen and rejected answer once personal data is redacted; there is nothing to prefer"
            findings.append(Finding(where=example.source, code="equal-answers", reason=reason, action="dropped"))
        elif policy in ("allow", "redact") or not counts:
            kept.append(example if policy == "allow" else redacted)
    if policy == "stop" and findings:
        raise DataError(
            f"{len({finding.where for finding in findings})} examples hold personal data and data.pii is stop; remove it, or set data.pii: "
            "redact, drop or allow:",
            tuple(Problem(finding.where, finding.reason, finding.code) for finding in findings),
        )
    return kept, findings


def _redacted(example: Example, pseudonyms: dict[str, int]) -> tuple[Example, Counter[str]]:
    """The example without personal data, and what its messages held of it, by kind."""
    counts: Counter[str] = Counter()
    messages: list[Message] = []
    for message in example.messages:
        text, found = pii.redact(message.content)
        counts.update(found)
        messages.append(Message(role=message.role, content=text) if found else message)
    rejected = example.rejected
    if rejected is not None:
        rejected, found = pii.redact(rejected)
        counts.update(found)
    changes: dict[str, object] = {"metadata": {name: _pseudonym(value, pseudonyms) for name, value in example.metadata.items()}}
    if counts:
        changes |= {"messages": tuple(messages), "rejected": rejected, "id": example_id(messages, rejected)}
    return example.model_copy(update=changes), counts


def _pseudonym(value: Scalar, pseudonyms: dict[str, int]) -> Scalar:
    if not isinstance(value, str):
        return value
    redacted, counts = pii.redact(value)
    return f"{redacted}#{pseudonyms.setdefault(value, len(pseudonyms) + 1)}" if counts else value


def drop_exact_duplicates(examples: Sequence[Example]) -> Cleaned:
    """Keep the first of the examples that have the same prompt, once normalised, and the same target."""
    first: dict[tuple[str, str], Example] = {}
    kept, findings = [], []
    for example in examples:
        original = first.setdefault((prompt_key(example), target_key(example)), example)
        if original is example:
            kept.append(example)
            continue
        reason = f"has the same prompt and target as {original.source}; the first is kept"
        findings.append(Finding(where=example.source, code="exact-duplicate", reason=reason, action="dropped"))
    return kept, findings


def settle_contradictions(examples: Sequence[Example], policy: Literal["keep", "drop"]) -> Cleaned:
    """Keep or drop all examples that have the same prompt, once normalised, but different targets.

    Exact duplicates are gone by now, so two examples with the same prompt always contradict each other. Preference pairs do where one
    rejects what the other has chosen: several pairs of one prompt may well agree.
    """
    by_prompt: dict[str, list[Example]] = defaultdict(list)
    by_rejected: dict[tuple[str, str], list[Example]] = defaultdict(list)
    by_chosen: dict[tuple[str, str], list[Example]] = defaultdict(list)
    for example in examples:
        prompt = prompt_key(example)
        by_prompt[prompt].append(example)
        if example.rejected is not None:
            by_chosen[prompt, target_key(example)].append(example)
            by_rejected[prompt, answer_key(example.rejected)].append(example)
    kept, findings = [], []
    for example in examples:
        prompt, rivals = prompt_key(example), by_prompt[prompt_key(example)]
        if example.rejected is not None:
            opposed = (*by_rejected[prompt, target_key(example)], *by_chosen[prompt, answer_key(example.rejected)])
            rivals = [example, *{other.source: other for other in opposed}.values()]
        if len(rivals) == 1 or policy == "keep":
            kept.append(example)
        if len(rivals) > 1:
            others = (other.source for other in rivals if other is not example)
            done: Literal["kept", "dropped"] = "kept" if policy == "keep" else "dropped"
            differs = "but another target" if example.rejected is None else "and an answer chosen that is rejected there, or the reverse"
            reason = f"has the same prompt as {_named(others, len(rivals) - 1)} {differs}; decide which is right"
            findings.append(Finding(where=example.source, code="contradiction", reason=reason, action=done))
    return kept, findings


def group_near_duplicates(examples: Sequence[Example]) -> tuple[list[Example], list[Finding], Clusters]:
    """Set the group of examples whose user texts are nearly the same, so that the split keeps them together."""
    clusters = find_clusters(["\n".join(message.content for message in one.prompt if message.role == "user") for one in examples])
    members: dict[str, list[str]] = defaultdict(list)
    for example, group in zip(examples, clusters.groups, strict=True):
        members[group].append(example.source)
    grouped, findings = [], []
    disputed = _disputed(examples, clusters)
    for index, (example, group) in enumerate(zip(examples, clusters.groups, strict=True)):
        grouped.append(example.model_copy(update={"group": group}) if group else example)
        if group:
            others = _named((source for source in members[group] if source != example.source), len(members[group]) - 1)
            reason = f"is one of a near-duplicate group ({group}) with {others}; they stay in one split"
            findings.append(Finding(where=example.source, code="near-duplicate", reason=reason, action="grouped"))
        if rivals := disputed.get(index):
            reason = f"asks nearly the same as {_named(sorted(rivals, key=place), len(rivals))} but has another target; look at both"
            findings.append(Finding(where=example.source, code="near-contradiction", reason=reason, action="kept"))
    return grouped, findings, clusters


def _disputed(examples: Sequence[Example], clusters: Clusters) -> dict[int, set[str]]:
    """By index of an example, the sources of examples with a similar text and another target."""
    members: dict[int, list[int]] = defaultdict(list)
    by_target: dict[int, dict[str, str]] = defaultdict(dict)
    for index, (example, text) in enumerate(zip(examples, clusters.texts, strict=True)):
        members[text].append(index)
        by_target[text].setdefault(target_key(example), example.source)
    disputed: dict[int, set[str]] = defaultdict(set)
    if any(example.rejected is not None for example in examples):
        return disputed  # of pairs, another answer to nearly the same prompt is no contradiction
    for pair in clusters.pairs:
        for text, other in (pair, pair[::-1]):
            for index in members[text]:
                mine = target_key(examples[index])
                disputed[index].update(source for target, source in by_target[other].items() if target != mine)
    return disputed


def prompt_key(example: Example) -> str:
    """Equal for examples whose prompts are the same once normalised."""
    return _digest("\n".join(f"{message.role}\t{normalise(message.content)}" for message in example.prompt))


def target_key(example: Example) -> str:
    """Equal for examples whose targets are the same but for white space, or the same JSON value."""
    return answer_key(example.target)


def answer_key(answer: str) -> str:
    """Equal for answers that are the same but for white space, or the same JSON value."""
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict | list):
        return _digest(json.dumps(value, sort_keys=True))
    return _digest(" ".join(answer.split()))


def place(where: str) -> tuple[str, int]:
    """File and line number of ``tickets.jsonl:417``, to sort by source order."""
    name, colon, line = where.rpartition(":")
    return (name, int(line)) if colon and line.isdecimal() else (where, 0)


def _named(sources: Iterable[str], count: int) -> str:
    more = f" and {count - NAMED} more" if count > NAMED else ""
    return ", ".join(itertools.islice(sources, NAMED)) + more


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
