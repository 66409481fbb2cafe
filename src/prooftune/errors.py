"""Every error Prooftune raises on purpose.

::

    ProoftuneError
    ├── SpecError            (ValueError)         the spec is unusable                         exit 2
    ├── DataError            (ValueError)         the data is unusable; carries every problem  exit 2
    ├── IntegrityError       (RuntimeError)       bytes do not match their digest              exit 1
    ├── JobFailed            (RuntimeError)       the provider ended the job without a model   exit 1
    ├── EnvironmentLacks     (OSError)            the machine or an account lacks something    exit 3
    │   ├── StoreUnavailable                      the object store refuses or cannot be used   exit 3
    │   ├── ModelUnavailable                      the model cannot be found or loaded safely   exit 3
    │   └── NeedsReconciliation                   a job may exist; asking again may pay twice  exit 3
    └── TransientError       (ConnectionError)    worth another try; what retries look for     exit 3
        └── OutcomeUnknown                        sent, and no answer says what came of it     exit 3

"Do not fine-tune" and a gate that refuses are results, not errors. A message says what was found, what is required, where, and what to do.
Errors pickle: Prefect sends them between processes.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with one row of data or one field of a spec."""

    where: str
    """File and line (``tickets.jsonl:417``) or dotted field (``data.split.holdout``)."""
    reason: str
    """What was found and what is required, in one sentence."""
    code: str = "invalid"
    """Stable kebab-case name of the kind of problem, for counting."""

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class ProoftuneError(Exception):
    """Root of every error that Prooftune raises on purpose."""

    exit_code = 1


class _CollectedError(ProoftuneError, ValueError):
    """An error that carries all its problems, because they are collected and raised once."""

    exit_code = 2
    shown = 20

    def __init__(self, message: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message, tuple(problems))
        self.message = message
        self.problems = tuple(problems)

    def __str__(self) -> str:
        lines = [self.message, *(f"  {problem}" for problem in self.problems[: self.shown])]
        if (hidden := len(self.problems) - self.shown) > 0:
            lines.append(f"  … and {hidden} more")
        return "\n".join(lines)


class SpecError(_CollectedError):
    """The spec is unusable: wrong fields, wrong types, or fields that contradict each other."""


class DataError(_CollectedError):
    """The data is unusable, or holds invalid rows while ``data.on_invalid`` is ``fail``."""


class IntegrityError(ProoftuneError, RuntimeError):
    """Bytes that were read do not match the digest written down for them."""


class JobFailed(ProoftuneError, RuntimeError):
    """The provider ended a fine-tuning job without a model."""


class EnvironmentLacks(ProoftuneError, OSError):
    """The machine, its libraries or an account lacks something the run needs."""

    exit_code = 3


class StoreUnavailable(EnvironmentLacks):
    """The object store refuses the request or cannot be used: wrong key, no such bucket, full or read-only disk."""


class ModelUnavailable(EnvironmentLacks):
    """The model cannot be found, or cannot be loaded under the spec's safety rules."""


class NeedsReconciliation(EnvironmentLacks):
    """Nobody can tell whether a job was created, or what it made: a person has to look, since asking again might pay twice."""


class TransientError(ProoftuneError, ConnectionError):
    """Something that may work when tried again: a time-out, a reset connection, a server's 5xx."""

    exit_code = 3


class OutcomeUnknown(TransientError):
    """A request that creates something was sent, and no answer says whether it did: look before asking again."""
