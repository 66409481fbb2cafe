"""Policy as code: whether a managed provider may get a run's data, before any of it is sent."""

from __future__ import annotations

from collections.abc import Mapping

from prooftune.economics.prices import PriceList
from prooftune.errors import Problem, SpecError
from prooftune.spec import RunSpec


def check_policy(spec: RunSpec, prices: PriceList, findings: Mapping[str, int]) -> None:
    """Check the provider of a managed run against ``data.residency`` and the personal data that validation found and kept.

    ``findings`` counts what validation found, by code.

    Raises:
        SpecError: with every violation.
    """
    provider = spec.backend.provider
    problems = []
    if spec.data.residency is not None and provider not in prices.confined_to(spec.data.residency):
        problems.append(
            Problem(
                "data.residency",
                f"data must stay in {spec.data.residency}, and no source of the price list says that {provider} keeps it there. Use "
                f"another backend, or put a [provider.{provider}] with the region and its source into a file, and name it in use.prices",
                "residency",
            )
        )
    kept = {code: count for code, count in findings.items() if code.startswith("pii-")}
    if kept and spec.data.pii == "allow":
        told = ", ".join(f"{count} {code}" for code, count in sorted(kept.items()))
        problems.append(
            Problem("data.pii", f"{told} would be sent to {provider}; set data.pii to redact or drop, or train on this machine", "pii")
        )
    if problems:
        raise SpecError(f"the run's data may not go to {provider}:", tuple(problems))
