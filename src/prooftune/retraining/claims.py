"""Which retrainings of a task were started, by whom, and what came of them: one small document a task, changed by compare-and-swap.

::

                 ┌── holder is dead: started again ──┐
                 ▼                                   │
    (none) ──▶ running ──▶ finished                  │
                 │ ▲ └──▶ failed ── after the cool-down ──▶ running
                 ▼ │
               waiting (for a managed job; nothing runs)

``finished`` is for good. Each start takes the next fencing token of the task, and who writes shows it: a holder that was taken for dead,
and comes back after another retraining has started, changes nothing any more.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime

from prooftune.storage.documents import change_document, read_document
from prooftune.storage.leases import SKEW_S, alive
from prooftune.storage.objects import ObjectStore
from prooftune.types import Frozen
from prooftune.watching.signals import Kind, Signal

FOLDER = "retrains/"
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)

State = Literal["running", "waiting", "finished", "failed"]


class Claim(Frozen):
    """The retraining of one occurrence: there is at most one for a kind and digest, however often it is signalled."""

    kind: Kind
    digest: str
    reason: str
    """Of the signal."""
    state: State = "running"
    token: int
    """Fencing token of the newest start: grows with each start of any retraining of the task."""
    holder: str
    """Who started it last: a random or unique name of one process's attempt."""
    started: AwareDatetime
    """Last start, by the holder's clock."""
    renewed: AwareDatetime
    """Last sign of life, by the holder's clock."""
    attempts: int = 1
    resumes: bool = False
    """Whether the newest start goes on with what a holder that died had composed."""
    runs: tuple[str, ...] = ()
    """Run keys, the newest last: by them the bills are found."""
    outcome: str = ""
    """A verdict, ``nothing_new``, or why it failed."""
    trained: bool = True
    """False: it ended before anything was trained, so no cool-down counts from it."""

    def is_of(self, signal: Signal) -> bool:
        """Return whether the signal is about the same occurrence."""
        return (self.kind, self.digest) == (signal.kind, signal.digest)

    def lives(self, now: datetime) -> bool:
        """Return whether it is under way: its holder renews the lease, or a provider has its job."""
        return self.state == "waiting" or (self.state == "running" and alive(self.renewed, now, SKEW_S))


class Retrains(Frozen):
    """What ``retrains/TASK.json`` holds."""

    task: str
    token: int = 0
    """The last one that was given out."""
    claims: tuple[Claim, ...] = ()
    """In the order of their first start; nothing is ever removed."""

    def of(self, signal: Signal) -> Claim | None:
        """Return the claim of the signal's occurrence, or None."""
        return next((claim for claim in self.claims if claim.is_of(signal)), None)

    def under_way(self, now: datetime) -> Claim | None:
        """Return the retraining that is under way, or None."""
        return next((claim for claim in self.claims if claim.lives(now)), None)

    def with_claim(self, changed: Claim) -> Retrains:
        """Return the document with a claim that is new, or in the place of the one of the same occurrence."""
        same = [(claim.kind, claim.digest) == (changed.kind, changed.digest) for claim in self.claims]
        claims = tuple(changed if is_same else claim for claim, is_same in zip(self.claims, same, strict=True))
        return self.model_copy(update={"token": max(self.token, changed.token), "claims": claims if any(same) else (*claims, changed)})


def key_of(task: str) -> str:
    """Return where a task's claims are."""
    return f"{FOLDER}{task}.json"


def read_retrains(store: ObjectStore, task: str) -> Retrains:
    """Return what is known of a task's retrainings. Raises IntegrityError where the document is damaged."""
    return read_document(store, key_of(task), Retrains(task=task))[0]


def change_retrains(store: ObjectStore, task: str, step: Callable[[Retrains], Retrains]) -> Retrains:
    """Change a task's document. Raises TransientError, IntegrityError as ``change_document``."""
    return change_document(store, key_of(task), Retrains(task=task), step)


def renew(store: ObjectStore, task: str, token: int, now: datetime | None = None) -> bool:
    """Say that the holder of a token lives; False = another has started since."""
    at = now or datetime.now(UTC)

    def renewed(claim: Claim) -> dict[str, object]:
        # A time that is not believed, of a clock that was wrong, must not outlast the renewals that follow.
        newest = max(at, claim.renewed) if alive(claim.renewed, at, SKEW_S) else at
        return {"renewed": newest} if claim.state == "running" else {}

    return _changed(store, task, token, renewed)


def note_run(store: ObjectStore, task: str, token: int, run: str) -> bool:
    """Note the run that a retraining is, before it spends anything; False = another has started since."""
    return _changed(store, task, token, lambda claim: {"runs": _with_run(claim, run)})


def wait(store: ObjectStore, task: str, token: int, run: str) -> bool:
    """Note that a retraining waits for its managed job, and that nothing runs meanwhile; False = another has started since."""
    return _changed(store, task, token, lambda claim: {"state": "waiting", "runs": _with_run(claim, run)})


def finish(store: ObjectStore, task: str, token: int, outcome: str, *, trained: bool = True) -> bool:
    """End a retraining for good; False = another has started since."""
    return _changed(store, task, token, lambda _: {"state": "finished", "outcome": outcome, "trained": trained})


def fail(store: ObjectStore, task: str, token: int, why: str) -> bool:
    """End an attempt: its signal may start it again after the cool-down. False = another has started since.

    What waits for its job goes on waiting, whatever befalls the process that has noted it: the job goes on.
    """
    return _changed(store, task, token, lambda claim: {"state": "failed", "outcome": why} if claim.state == "running" else {})


def release(store: ObjectStore, task: str, token: int) -> bool:
    """Let the lease lapse at once: the holder was told to stop, and whoever goes on need not wait. False = another has started since."""
    return _changed(store, task, token, lambda claim: {"renewed": LONG_AGO} if claim.state == "running" else {})


def settle_run(store: ObjectStore, task: str, run: str, outcome: str, *, failed: bool = False) -> Claim | None:
    """End the retraining that waited for its job, known by its run: who goes on with that has no token. None = no retraining is the run.

    One whose job failed, and whose run a person had done again, is finished after all.
    """
    state: State = "failed" if failed else "finished"
    settled: Claim | None = None

    def ended(retrains: Retrains) -> Retrains:
        nonlocal settled
        # Several occurrences may have come to the same run: what waits for it comes before what failed with it, and the newest first.
        mine = [claim for claim in reversed(retrains.claims) if run in claim.runs and claim.state in ("waiting", "failed")]
        if not mine:
            settled = next((claim for claim in retrains.claims if run in claim.runs), None)
            return retrains
        found = next((claim for claim in mine if claim.state == "waiting"), mine[0])
        settled = found.model_copy(update={"state": state, "outcome": outcome})
        return retrains.with_claim(settled)

    change_retrains(store, task, ended)
    return settled


def _with_run(claim: Claim, run: str) -> tuple[str, ...]:
    return (*(known for known in claim.runs if known != run), run)


def _changed(store: ObjectStore, task: str, token: int, news: Callable[[Claim], dict[str, object]]) -> bool:
    """Change the claim of the newest token, unless it is finished; False = the token shown is an older one."""
    held = False

    def step(retrains: Retrains) -> Retrains:
        nonlocal held
        mine = next((claim for claim in retrains.claims if claim.token == token == retrains.token), None)
        held = mine is not None
        if mine is None or mine.state == "finished":
            return retrains
        return retrains.with_claim(mine.model_copy(update=news(mine)))

    change_retrains(store, task, step)
    return held
