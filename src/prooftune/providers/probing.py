"""Finds what a provider's probe speaks against, before anything is spent.

That is a base model that cannot be tuned, or not for long, settings beyond its limits, and examples longer than it takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

from prooftune.data.counting import Counter
from prooftune.data.lines import read_lines
from prooftune.economics.billable import WordCounter, billable_counter, conversations, how_of, tokenizer_folder
from prooftune.errors import DataError, Problem, SpecError
from prooftune.providers.tuning import Capability
from prooftune.spec import RunSpec
from prooftune.training.encoding import with_system
from prooftune.types import Example, Message

TEMPLATE_TOKENS = 200
"""That a chat template writes around a message, at most, a system message of its own included."""


def refusal(spec: RunSpec, capability: Capability, today: date | None = None) -> SpecError | None:
    """Check what a provider said of the base model against the spec.

    Returns:
        What is wrong: it tunes no such model for this account, not by this objective, not with these hyperparameters, no longer, or shuts
        it down too soon. None = nothing.
    """
    day = today or datetime.now(UTC).date()
    backend, least = spec.backend, spec.provider.min_remaining_days
    where = f"{backend.provider} {backend.model}"
    problems = []
    if not capability.tunable:
        problems.append(Problem("backend.model", f"{where} cannot be tuned: {capability.why}; name another model", "not-tunable"))
    elif backend.objective not in capability.objectives:
        offered = ", ".join(capability.objectives) or "none"
        problems.append(Problem("backend.objective", f"{where} is tuned by {offered}, not by {backend.objective}", "not-offered"))
    if capability.last_job is not None and capability.last_job < day:
        problems.append(
            Problem("backend.provider", f"{where} accepts no new job since {capability.last_job}; use another provider", "closed")
        )
    if capability.shutdown is not None and (left := (capability.shutdown - day).days) < least:
        problems.append(
            Problem(
                "provider.min_remaining_days",
                f"{where} is shut down on {capability.shutdown}, in {left} days; at least {least} are required. Tune another model, or "
                "lower the limit if so short a life is worth the money",
                "sunset",
            )
        )
    problems += _beyond_limits(spec, capability)
    return SpecError(f"{backend.provider} cannot take this run:", tuple(problems)) if problems else None


def _beyond_limits(spec: RunSpec, capability: Capability) -> Iterator[Problem]:
    """Yield each hyperparameter that lies outside what the probe told as ``NAME_min`` and ``NAME_max``."""
    for name, value in spec.provider.hyperparameters:
        least, most = (_number(capability, f"{name}_{end}") for end in ("min", "max"))
        if value is None or ((least is None or value >= least) and (most is None or value <= most)):
            continue
        taken = f"{least:g} or more" if most is None else f"up to {most:g}" if least is None else f"{least:g} to {most:g}"
        reason = f"it is {value:g}; {spec.backend.provider} takes {taken} for {spec.backend.model}"
        yield Problem(f"provider.hyperparameters.{name}", reason, "beyond-limit")


def rows_refused(spec: RunSpec, capability: Capability, splits: Mapping[str, Path]) -> DataError | None:
    """Check the length of examples against what the probe told as ``tokens_per_example``; row and example stand on the same line.

    Where the base model's tokenizer is public and at hand they are counted exactly, elsewhere from below: none that fits is refused.

    Args:
        spec: Of the run.
        capability: What the provider said of the base model.
        splits: Examples (``Example`` lines) that are to be uploaded, by the name of their split.

    Returns:
        Every example that is too long. None = there is none, or no limit is known.

    Raises:
        ModelUnavailable: an example may be too long, and ``provider.tokenizer`` names a tokenizer that cannot be had.
    """
    limit = _number(capability, "tokens_per_example")
    if limit is None:
        return None
    rows = ((f"{name}.jsonl:{line}", row) for name, path in splits.items() for line, row in enumerate(read_lines(path, Example), start=1))
    doubtful = [(where, row) for where, row in rows if any(tokens_at_most(said) > limit for said in _learnt(spec, row))]
    if not doubtful:
        return None
    counter = _counter(spec)
    least = "" if counter.exact else " at least"
    problems = []
    for where, row in doubtful:
        tokens = max(counter.conversation_tokens(said) for said in _learnt(spec, row))
        if tokens > limit:
            found = f"has {tokens:,} tokens{least} ({how_of(counter)}); {spec.backend.provider} takes {limit:,} for {spec.backend.model}"
            problems.append(Problem(where, f"{found}. Shorten the example, or leave it out ({row.source})", "too-long"))
    return DataError(f"{spec.backend.provider} would refuse {len(problems)} examples:", tuple(problems)) if problems else None


def tokens_at_most(messages: Sequence[Message]) -> int:
    """Return a number of tokens that no conversation exceeds: a token is a byte of UTF-8 at least, beside what a template adds."""
    return sum(len(message.content.encode("utf-8", "surrogatepass")) + TEMPLATE_TOKENS for message in messages)


def _learnt(spec: RunSpec, row: Example) -> list[tuple[Message, ...]]:
    """Return the conversations of a row, each of which has to fit: for reinforcement the prompt alone, since the answer is the grader's."""
    if spec.backend.objective == "reinforcement":
        return [with_system(row.prompt, spec.task.system)]
    whole = list(conversations(row, spec.task.system))
    return whole if spec.backend.objective == "preference" else whole[:1]


def _counter(spec: RunSpec) -> Counter:
    counter = billable_counter(spec.backend.provider, spec.backend.model, tokenizer_folder(spec))
    return counter if counter.exact else WordCounter()


def _number(capability: Capability, name: str) -> int | float | None:
    """Return one of the limits; None = the provider does not tell it."""
    found = capability.limits.get(name)
    return found if isinstance(found, int | float) else None
