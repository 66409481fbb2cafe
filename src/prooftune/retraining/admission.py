"""Which signal starts a retraining: each occurrence once, one at a time, not too often, and within the month's budget.

Signals are replayed, doubled and late, and holders die. What was started is in one document a task (``claims.py``), and whether to start is
decided within one compare-and-swap of it: of any number of processes that ask at once, one is told to start.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Literal

from prooftune.economics import spending
from prooftune.errors import SpecError
from prooftune.providers.ledger import Ledger
from prooftune.retraining.claims import Claim, Retrains, change_retrains, read_retrains
from prooftune.spec import RunSpec
from prooftune.storage import leases
from prooftune.storage.leases import SKEW_S
from prooftune.storage.objects import ObjectStore
from prooftune.types import Frozen
from prooftune.watching.signals import Signal

Answer = Literal["start", "duplicate", "running", "cooling_down", "over_budget", "nothing_new"]
RESTARTS = 3
"""A retraining whose holder has died so often is started again after the cool-down only: something about it kills."""


class Admission(Frozen):
    """What a signal was told."""

    decision: Answer
    """``nothing_new`` is what a start ends as whose data the champion has seen all of."""
    reason: str
    """A sentence for people."""
    until: datetime | None = None
    """When it is worth asking again; None = never, or nobody knows."""
    token: int | None = None
    """Of a start: what its holder shows from now on."""
    holder: str = ""
    """Who is at work on it, where somebody is."""
    resumes: bool = False
    """Whether a holder has died over it: what that one composed is gone on with."""
    left_usd: float | None = None
    """What a start may cost; None = ``budget`` alone says."""


def admit(store: ObjectStore, spec: RunSpec, signal: Signal, holder: str, now: datetime) -> Admission:
    """Decide whether a signal starts a retraining, and write a start down; asked again by the same holder, the answer is the same.

    Args:
        store: Where the claims and the month's spending are.
        spec: Of the task; ``retrain`` says how often and for how much.
        signal: What was seen.
        holder: Name of the process's attempt; another attempt, of the same flow run too, has another name.
        now: Current time, UTC.

    Raises:
        SpecError: the signal is about another task.
        TransientError: others kept changing the claims, or the store's answer got lost. Asking again is safe.
        IntegrityError: the claims or the month's spending are damaged.
    """
    if signal.task != spec.name:
        raise SpecError(f"the signal is about the task {signal.task}, and the spec's name is {spec.name}; nothing was started")
    told: Admission | None = None

    def step(retrains: Retrains) -> Retrains:
        nonlocal told
        paid = _paid(store, retrains, spec, now)  # after the claims were read: what an earlier retraining cost is settled by then
        told = _refusal(retrains, spec, signal, holder, now, paid)
        if told is not None:
            return retrains
        known = retrains.of(signal)
        claim = _started(known, signal, holder, now, retrains.token + 1)
        told = _start(claim, spec, paid)
        return retrains.with_claim(claim)

    change_retrains(store, spec.name, step)
    assert told is not None  # noqa: S101 - step was asked at least once
    return told


def spent_usd(store: ObjectStore, spec: RunSpec, now: datetime) -> float:
    """Return what the task's retrainings have held and been billed in the month of ``now``, failed jobs among it (USD)."""
    return math.fsum(_paid(store, read_retrains(store, spec.name), spec, now).values())


def _paid(store: ObjectStore, retrains: Retrains, spec: RunSpec, now: datetime) -> dict[str, float]:
    """Return what each run and each failed job of the task's retrainings has held or been billed in the month."""
    runs = {run for claim in retrains.claims for run in claim.runs}
    items = spending.read_month(store, spec.budget.project, f"{now:%Y-%m}").items
    if not runs or not items:
        return {}
    # What a failed job cost is settled under the job's own key; the ledger knows whose job it was. One that cannot be read counts.
    unreadable: dict[str, str] = {}
    jobs = {entry.key for entry in Ledger(store).entries(unreadable) if entry.run in runs}
    return {item.key: item.usd for item in items if item.key in runs | jobs | unreadable.keys()}


def _refusal(retrains: Retrains, spec: RunSpec, signal: Signal, holder: str, now: datetime, paid: Mapping[str, float]) -> Admission | None:
    """Return why a signal starts nothing, or, to the holder of its start, the same answer once more; None = it starts."""
    known, busy = retrains.of(signal), retrains.under_way(now)
    if known is not None and known.state == "running" and known.holder == holder:
        return _start(known, spec, paid)
    if known is not None and (known.state == "finished" or known is busy):
        return _duplicate(known)
    if busy is not None:
        named = f"{busy.kind} {busy.digest[:12]}{f', run {busy.runs[-1]},' if busy.runs else ''}"
        text = f"the retraining for {named} is under way since {_at(busy.started)}"
        return Admission(decision="running", reason=text, until=_lapse(busy), holder=busy.holder)
    if (cooled := _cooled(retrains.claims, known, spec.retrain.cool_down_hours)) is not None and now < cooled:
        text = f"retrain.cool_down_hours is {spec.retrain.cool_down_hours:g}: not before {_at(cooled)}"
        return Admission(decision="cooling_down", reason=text, until=cooled)
    limit, spent = spec.retrain.monthly_usd, math.fsum(paid.values())
    own = math.fsum(paid.get(run, 0.0) for run in known.runs) if known else 0.0  # may be paid for already: to go on with it costs no more
    if spec.backend.managed and limit is not None and spent - own >= limit:
        text = f"retrain.monthly_usd is ${limit:,.2f}, and retrainings of {spec.name} have held or been billed ${spent:,.2f} in {now:%Y-%m}"
        return Admission(decision="over_budget", reason=text, until=_next_month(now))
    return None


def _duplicate(known: Claim) -> Admission:
    """Return the answer to an occurrence that is done, or under way."""
    named = f"{known.kind} {known.digest[:12]}"
    if known.state == "finished":
        return Admission(decision="duplicate", reason=f"the retraining for {named} ended on {_at(known.renewed)}: {known.outcome}")
    if known.state == "waiting":
        return Admission(decision="duplicate", reason=f"the retraining for {named} waits for its managed job, run {known.runs[-1]}")
    text = f"the retraining for {named} is under way since {_at(known.started)}"
    return Admission(decision="duplicate", reason=text, until=_lapse(known), holder=known.holder)


def _cooled(claims: Iterable[Claim], known: Claim | None, hours: float) -> datetime | None:
    """Return when the cool-down ends.

    It counts from the last start that trained, or may have; 0 hours are none, whatever the clocks say. A retraining whose holder died goes
    on at once: it was admitted before.
    """
    if hours == 0:
        return None
    died = known is not None and known.state == "running" and known.attempts < RESTARTS
    starts = [claim.started for claim in claims if claim.trained and not (died and claim is known)]
    return max(starts) + timedelta(hours=hours) if starts else None


def _started(known: Claim | None, signal: Signal, holder: str, now: datetime, token: int) -> Claim:
    if known is None:
        return Claim(kind=signal.kind, digest=signal.digest, reason=signal.reason, token=token, holder=holder, started=now, renewed=now)
    news = {"state": "running", "token": token, "holder": holder, "started": now, "renewed": now, "attempts": known.attempts + 1}
    return known.model_copy(update=news | {"outcome": "", "resumes": known.state == "running"})


def _start(claim: Claim, spec: RunSpec, paid: Mapping[str, float]) -> Admission:
    limit = spec.retrain.monthly_usd
    left = None if limit is None or not spec.backend.managed else max(0.0, limit - math.fsum(paid.values()))
    return Admission(decision="start", reason=claim.reason, token=claim.token, holder=claim.holder, resumes=claim.resumes, left_usd=left)


def _lapse(claim: Claim) -> datetime | None:
    return None if claim.state == "waiting" else claim.renewed + timedelta(seconds=leases.DEAD_AFTER_S + SKEW_S)


def _next_month(now: datetime) -> datetime:
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
