"""Finds what speaks against a base model before anything is spent: it cannot be tuned, or not for long."""

from __future__ import annotations

from datetime import UTC, date, datetime

from prooftune.errors import Problem, SpecError
from prooftune.providers.tuning import Capability
from prooftune.spec import RunSpec


def refusal(spec: RunSpec, capability: Capability, today: date | None = None) -> SpecError | None:
    """Check what a provider said of the base model against the spec.

    Returns:
        What is wrong: it tunes no such model for this account, not by this objective, no longer, or shuts it down too soon. None = nothing.
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
    return SpecError(f"{backend.provider} cannot take this run:", tuple(problems)) if problems else None
