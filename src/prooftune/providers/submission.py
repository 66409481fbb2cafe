"""Submit once, wait, and know again: what a managed run does, whichever provider it is.

At most one job is created for an order. A provider that takes an idempotency key (``Tuner.creates_once``) is asked again under it. Any
other is asked once: where no answer says what came of it, its lists are searched for a while, and if the job does not turn up the order is
parked for a person. Lists may lag, so that a job was not found proves nothing, and a second one might be paid for.
"""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prooftune.errors import NeedsReconciliation, OutcomeUnknown, ProoftuneError, TransientError
from prooftune.providers.ledger import Entry, Ledger
from prooftune.providers.tuning import Event, Files, Job, Order, Tuner, only

log = logging.getLogger(__name__)

POLLS_FAILED_AT_MOST = 8
"""In a row, each after its own retries; then the stage's retry, or the user, comes back later."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for what, in seconds."""

    first_pause_s: float = 2.0
    """Grows by half each time."""
    longest_pause_s: float = 60.0
    search_s: float = 180.0
    """For a job to turn up in a provider's lists, after a request whose outcome is unknown."""
    request_s: float = 330.0
    """From a claim until the request of who made it is surely over: ``claim_s``, and the time that a request may take."""
    claim_s: float = 30.0
    """From a claim to the request: who took longer sends nothing, since another process may have given it up."""

    def pause(self, number: int) -> float:
        """Return the pause after the ``number``-th look, with jitter."""
        grown = self.first_pause_s * 1.5 ** min(number, 100)  # a job that queues for days is looked at more often than a float can grow
        return min(grown, self.longest_pause_s) * random.uniform(0.8, 1.2)  # noqa: S311 - jitter is no secret


PATIENCE = Patience()


@dataclass(frozen=True)
class Rows:
    """The rows to train on, in the provider's form."""

    train: Path
    validation: Path | None = None


def submit(tuner: Tuner, ledger: Ledger, intent: Entry, rows: Rows, patience: Patience = PATIENCE) -> Entry:
    """Return the ledger's entry of an order with its job: the one there is, or the one that is created now.

    Raises:
        NeedsReconciliation: nobody can tell whether a job was created; the entry says so, and no other call creates one.
        TransientError: surely nothing was created, or asking again is safe; call again later.
        ProoftuneError: the provider refuses the order, and surely created nothing.
    """
    entry = ledger.open(intent)
    order = entry.order
    if entry.state in ("submitted", "ended"):
        return look(tuner, ledger, entry) if entry.job is not None and entry.job.nameless else entry
    if entry.files is None:
        entry = ledger.uploaded(order.key, _upload(tuner, order, rows))
    files = entry.files_uploaded
    # Before the first request as well: the ledger may be younger than the job.
    if (job := only(tuner.find(order, files), order.key)) is not None:
        return ledger.found(order.key, job, "adopted")
    if entry.state == "needs_reconciliation":
        raise _unsettled(entry)
    try:
        tuner.estimate(order, files)
    except ProoftuneError as error:
        _doubt_files(tuner, ledger, entry, error)
        raise
    holder, claimed = uuid.uuid4().hex, (time.monotonic(), time.time())
    entry = ledger.claim(order.key, holder, files)
    if entry.state in ("submitted", "ended"):
        return entry
    if entry.holder != holder:
        return _settle(tuner, ledger, entry, files, patience, patience.search_s + patience.request_s)
    return _create(tuner, ledger, entry, files, patience, claimed)


def _create(tuner: Tuner, ledger: Ledger, entry: Entry, files: Files, patience: Patience, claimed: tuple[float, float]) -> Entry:
    """Create the job as the one who may; ``claimed`` says since when, by both clocks."""
    try:
        _check_claim(ledger, entry, patience, claimed)
        job = tuner.create(entry.order, files)
    except OutcomeUnknown as error:
        log.warning("%s: %s", entry.key, error)
        return _settle(tuner, ledger, entry, files, patience, patience.search_s)
    except ProoftuneError as error:
        _doubt_files(tuner, ledger, ledger.unclaim(entry.key, entry.holder, type(error).__name__), error)
        raise
    return ledger.found(entry.key, job, "created")


def _check_claim(ledger: Ledger, mine: Entry, patience: Patience, claimed: tuple[float, float]) -> None:
    """Raise TransientError where the order may no longer be ours alone: its entry says so, or the claim is old.

    One clock stands still while the machine sleeps, and the other may be set.
    """
    seen = ledger.read(mine.key)
    if (seen.state, seen.holder) != (mine.state, mine.holder):
        first = f"`prooftune jobs reconcile {mine.key} --none --reason …`, then " if seen.state == "needs_reconciliation" else ""
        raise TransientError(
            f"{mine.key} became {seen.state} while it was being submitted; this run sent nothing: {first}run the same command again"
        )
    if max(time.monotonic() - claimed[0], time.time() - claimed[1]) > patience.claim_s:
        raise TransientError(
            f"{mine.key} was claimed more than {patience.claim_s:.0f} s before its job could be ordered, and another run may have taken "
            "over; nothing was sent, run the same command again"
        )


def _doubt_files(tuner: Tuner, ledger: Ledger, entry: Entry, refused: ProoftuneError) -> None:
    """Forget the files of an order that was refused: they may be gone, and the next call uploads them where they are.

    Where a job may exist they stay, since it is known again by them.
    """
    if isinstance(refused, TransientError) or entry.files is None:
        return
    try:
        if not tuner.find(entry.order, entry.files):
            ledger.forget_files(entry.key, entry.files)
    except ProoftuneError as error:  # the refusal is what is told
        log.warning("%s: its files are not uploaded again: %s", entry.key, error)


def _settle(tuner: Tuner, ledger: Ledger, seen: Entry, files: Files, patience: Patience, search_s: float) -> Entry:
    """Find out what came of a request whose outcome is unknown: our own, another process's, or one of before a crash."""
    key, started, number = seen.key, time.monotonic(), 0
    while True:
        entry = ledger.read(key)
        if entry.state in ("submitted", "ended"):
            return entry
        if entry.state == "intended":
            raise TransientError(f"{key} may be submitted again: the provider surely made no job of the last request")
        try:
            if (job := only(tuner.find(entry.order, files), key)) is not None:
                return ledger.found(key, job, "adopted")
            if tuner.creates_once:
                return ledger.found(key, tuner.create(entry.order, files), "created")
        except TransientError as error:
            log.warning("%s: %s", key, error)
        if time.monotonic() - started >= search_s:
            break
        time.sleep(min(patience.pause(number), search_s))
        number += 1
    if tuner.creates_once:
        raise TransientError(f"{tuner.provider} could not say whether it made a job of {key}; run the same command again: it asks again")
    entry = ledger.park(key, seen, f"a request was sent, and no job was found within {search_s:.0f} s")
    if entry.state in ("submitted", "ended"):
        return entry
    raise _unsettled(entry)


def _unsettled(entry: Entry) -> NeedsReconciliation:
    order, key = entry.order, entry.key
    return NeedsReconciliation(
        f"a fine-tuning job of {order.model} may or may not exist at {order.provider}: a request with the run key {key} was sent, no "
        "answer came, and no list shows a job. To submit again might pay twice. Look for that run key in the provider's list of jobs, then "
        f"run `prooftune jobs reconcile {key} --job ID` if it is there, or `prooftune jobs reconcile {key} --none` if it is not"
    )


def _upload(tuner: Tuner, order: Order, rows: Rows) -> Files:
    validation = None if rows.validation is None else tuner.upload(rows.validation, order.key, "validation")
    return Files(train=tuner.upload(rows.train, order.key, "train"), validation=validation)


def follow(
    tuner: Tuner,
    ledger: Ledger,
    key: str,
    tell: Callable[[Job, list[Event]], None],
    hold_s: float | None = None,
    patience: Patience = PATIENCE,
) -> Entry:
    """Wait until the job has ended, or for ``hold_s`` seconds; return the entry as it then is.

    ``tell`` hears of each look at the job, and of each event once over all calls: a call after a restart goes on where the last one was.

    Raises:
        TransientError: the provider could not be asked for a long time.
    """
    started, number, failed = time.monotonic(), 0, 0
    entry = ledger.read(key)
    while True:
        try:
            entry = look(tuner, ledger, entry, tell)
            failed = 0
        except TransientError:
            failed += 1
            if failed >= POLLS_FAILED_AT_MOST:
                raise
        if entry.state == "ended" or (hold_s is not None and time.monotonic() - started >= hold_s):
            return entry
        pause = patience.pause(number)
        time.sleep(pause if hold_s is None else min(pause, max(0.0, hold_s - (time.monotonic() - started))))
        number += 1


def look(tuner: Tuner, ledger: Ledger, entry: Entry, tell: Callable[[Job, list[Event]], None] | None = None) -> Entry:
    """Ask once how the job is, write it down, and tell what is new; where nobody listens, events are left for who does."""
    if entry.job is None:
        raise ValueError(f"{entry.key} has no job to look at")
    # The job first: of one that has ended, all events are there by then.
    job = tuner.job(entry.job.id)
    if tell is None:
        return ledger.found(entry.key, job, "seen")
    events = tuner.events(job.id, entry.last_event)
    # Written first: a write that fails would have them told again. What a crash keeps from being told is in job.json all the same.
    entry = ledger.found(entry.key, job, "seen", events[-1].id if events else None)
    tell(job, events)
    return entry
