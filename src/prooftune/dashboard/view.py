"""What the dashboard shows: runs, tasks with their champions, money, and what waits for a person."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cached_property

from pydantic import FiniteFloat

from prooftune.economics.approvals import Asked
from prooftune.economics.spending import Item
from prooftune.providers.deployment_leases import Lease
from prooftune.providers.ledger import Entry
from prooftune.providers.waiting import Waiting
from prooftune.report.wording import counted
from prooftune.retraining.claims import Claim
from prooftune.storage.registry_document import Registry, champions_in_line
from prooftune.types import Frozen, Verdict


class Trouble(Frozen):
    """A document of the store that cannot be read: the page says so, and shows the rest."""

    where: str
    """Key of the document, or the name of what it is about."""
    what: str


class Run(Frozen):
    """A run that reached a verdict."""

    run_id: str
    task: str
    verdict: Verdict
    at: datetime | None
    """When it was registered; None = it is not, or nobody can read when."""
    reason: str
    metric: str | None = None
    trained: bool = False
    """Whether there is a candidate. ``value`` is the candidate's, else the best prompt's."""
    value: FiniteFloat | None = None
    ci_low: FiniteFloat | None = None
    ci_high: FiniteFloat | None = None
    """95 % interval of ``value``."""
    baseline: str | None = None
    baseline_value: FiniteFloat | None = None
    difference: FiniteFloat | None = None
    n: int = 0
    provider: str = ""
    model: str = ""
    """Base model, as the spec calls it."""
    method: str = ""
    seal: str = ""
    """SHA-256 of the holdout: values of runs with different seals are of different examples."""
    report: str | None = None
    """Key of its report; None = it is not published."""
    held_back: str = ""
    """Why the verdict ``promote`` did not make it the champion."""


class Task(Frozen):
    """A task, the run that is in use for it, and how that came to be."""

    name: str
    registry: Registry
    runs: tuple[Run, ...]
    """Newest first."""
    retrainings: tuple[Claim, ...] = ()
    """Those that were admitted, the last one that was started first."""

    def run(self, run_id: str | None) -> Run | None:
        """Return a run of the task, or None."""
        return self._by_id.get(run_id or "")

    @cached_property
    def _by_id(self) -> dict[str, Run]:
        return {run.run_id: run for run in self.runs}

    @cached_property
    def in_line(self) -> frozenset[str]:
        """Champions, former and present, whose promotion is not undone."""
        return frozenset(champions_in_line(self.registry.changes))

    @property
    def metric(self) -> str | None:
        """The metric to follow: the champion's, else the newest run's."""
        champion = self.run(self.registry.champion)
        known = [run.metric for run in ((champion,) if champion else self.runs) if run.metric]
        return known[0] if known else None

    @property
    def last_at(self) -> datetime | None:
        """When something happened last."""
        return max((*(run.at for run in self.runs if run.at), *(claim.started for claim in self.retrainings)), default=None)


class Month(Frozen):
    """What a project holds and was billed in a calendar month (UTC)."""

    project: str
    month: str
    """``2026-11``."""
    billed_usd: FiniteFloat
    held_usd: FiniteFloat
    limit_usd: FiniteFloat | None
    """``budget.monthly_usd`` of the project's newest spec; None = it sets no limit, or none is known."""
    limit_known: bool
    items: tuple[Item, ...]
    """One a run, and one a day for each champion that was asked its holdout again at its provider."""

    @property
    def usd(self) -> float:
        """What counts against the limit."""
        return self.billed_usd + self.held_usd

    def counted(self, *, held: bool) -> str:
        """Return how many runs and evaluations hold, or were billed: ``2 runs and 1 nightly evaluation``; empty = none."""
        items = [item for item in self.items if (item.holds if held else item.bought)]
        asked = sum(item.of_evaluation for item in items)
        counts = {"run": len(items) - asked, "nightly evaluation": asked}
        return " and ".join(counted(count, name) for name, count in counts.items() if count)


class Dashboard(Frozen):
    """All that the page shows."""

    store: str
    """URI of the store."""
    made_at: datetime
    tasks: tuple[Task, ...] = ()
    """Latest activity first."""
    months: tuple[Month, ...] = ()
    """Newest first."""
    asked: tuple[Asked, ...] = ()
    """Estimates that nobody has answered, longest waiting first."""
    jobs: tuple[Entry, ...] = ()
    """Orders of the ledger that have not ended, newest first."""
    waiting: tuple[Waiting, ...] = ()
    """Runs that ended for now and go on when their job has ended."""
    leases: tuple[Lease, ...] = ()
    """Deployments that still run, as far as the store knows."""
    troubles: tuple[Trouble, ...] = ()

    @property
    def runs(self) -> tuple[Run, ...]:
        """Every run, newest first."""
        return tuple(newest_first(run for task in self.tasks for run in task.runs))

    @property
    def to_reconcile(self) -> tuple[Entry, ...]:
        """Orders of which nobody can tell whether they have a job."""
        return tuple(entry for entry in self.jobs if entry.state == "needs_reconciliation")

    @property
    def left_running(self) -> tuple[Lease, ...]:
        """Deployments whose run is dead."""
        return tuple(lease for lease in self.leases if not self.in_use(lease))

    def in_use(self, lease: Lease) -> bool:
        """Return whether a run renews the lease, or takes its deployment down at this moment."""
        return not lease.is_dead(self.made_at)

    @property
    def this_month(self) -> tuple[Month, ...]:
        """The current month of each project that holds or was billed something in it."""
        return tuple(month for month in self.months if month.month == f"{self.made_at:%Y-%m}")


def newest_first(runs: Iterable[Run]) -> list[Run]:
    """Return runs by registration, newest first; those that are not registered come last."""
    return sorted(runs, key=lambda run: (run.at is not None, run.at.timestamp() if run.at else 0.0, run.run_id), reverse=True)


def moment(text: str) -> datetime | None:
    """Return a time of a document, UTC where it names no zone; None where it is no time."""
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
