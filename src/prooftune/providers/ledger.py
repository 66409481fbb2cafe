"""The write-ahead record that makes a submission exactly-once: one small document per order in the object store.

::

    intended ──claim──▶ submitting ──job known──▶ submitted ──job ended──▶ ended
        ▲                   │    │                    ▲
        └── surely refused ─┘    └── nobody can tell ─┴── needs_reconciliation

The document is written before anything is sent. Only who moved it from ``intended`` to ``submitting`` may create a job, and the move is a
compare-and-swap: of two runs that want the same order one wins, and after a crash the next one knows that a job may exist. What a provider
says counts more than what is written down: a job that is found is adopted from every state.
"""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import ValidationError

from prooftune.errors import IntegrityError, NeedsReconciliation, SpecError, TransientError
from prooftune.providers.tuning import MARK, Files, Job, Order
from prooftune.spec import Provider
from prooftune.storage.documents import as_bytes, swap
from prooftune.storage.objects import AlreadyThere, NoSuchObject, ObjectStore
from prooftune.types import Frozen

FOLDER = "ledger/jobs/"
NAMED_WITHIN_S = 600.0
"""From when a job is seen to have succeeded until it counts as one without a model."""
State = Literal["intended", "submitting", "submitted", "ended", "needs_reconciliation"]


class Note(Frozen):
    """A line of an entry's history."""

    at: str
    """UTC, ISO 8601."""
    by: str
    """``user@host``."""
    what: str


class Entry(Frozen):
    """What the ledger knows of one order."""

    order: Order
    run: str
    """Run that ordered it first: the task's name and the digest of its inputs."""
    options: Provider = Provider()
    """How the provider is reached, so that any host can ask it how the job is."""
    state: State = "intended"
    files: Files | None = None
    job: Job | None = None
    holder: str = ""
    """Random name of the process that may create the job, in the state ``submitting``."""
    last_event: str | None = None
    """Id of the last event that was told: it is not told again after a restart."""
    estimate_usd: float | None = None
    history: tuple[Note, ...] = ()

    @property
    def key(self) -> str:
        """The run key."""
        return self.order.key

    @property
    def failed(self) -> bool:
        """Whether its job ended for good, and made no model."""
        return self.job is not None and self.job.status in ("failed", "cancelled")

    @property
    def files_uploaded(self) -> Files:
        """The uploaded files. Raises ValueError where nothing was uploaded yet."""
        if self.files is None:
            raise ValueError(f"{self.key} has no uploaded files")
        return self.files

    def noted(self, what: str, **changes: object) -> Entry:
        """Return the entry with changes and one more line of history."""
        note = Note(at=datetime.now(UTC).isoformat(timespec="milliseconds"), by=who(), what=what)
        return self.model_copy(update={**changes, "history": (*self.history, note)})


class Ledger:
    """The entries of one object store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def open(self, intent: Entry) -> Entry:
        """Write an intent down, or return what an earlier call wrote down of the same order.

        Where a person has asked for a failed job to be done again, that is the newest attempt.
        """
        order = intent.order
        newest = self.newest(order)
        if newest is not None:
            return newest
        return self._added(intent.noted("intended"))

    def newest(self, order: Order) -> Entry | None:
        """Return the entry of the order's last attempt, or None."""
        found: Entry | None = None
        while True:
            try:
                found = self.read(order.key)
            except NoSuchObject:
                return found
            order = order.model_copy(update={"attempt": order.attempt + 1})

    def read(self, key: str) -> Entry:
        """Return an entry.

        Raises:
            NoSuchObject: the ledger knows no such run key.
            IntegrityError: the entry is damaged.
        """
        return self._read(key)[0]

    def entries(self, unreadable: dict[str, str] | None = None) -> Iterator[Entry]:
        """Yield every entry, by run key.

        One that cannot be read is put into ``unreadable``, its key with the reason, and is an error where nobody asks for it there.
        """
        for key in (name.removeprefix(FOLDER).removesuffix(".json") for name in self._store.list(FOLDER)):
            try:
                yield self.read(key)
            except (IntegrityError, SpecError) as error:
                if unreadable is None:
                    raise
                unreadable[key] = str(error)

    def change(self, key: str, step: Callable[[Entry], Entry]) -> Entry:
        """Change an entry and return it as it then is. Raises as ``read``, and TransientError as ``swap``."""
        return swap(self._store, key_of(key), lambda: self._read(key), step)

    def claim(self, key: str, holder: str, files: Files | None = None) -> Entry:
        """Move an intended entry to ``submitting``; whoever's name the entry then bears may create the job.

        Where files are given, only while they are the entry's: a job is known again by them.
        """

        def claimed(entry: Entry) -> Entry:
            free = entry.state == "intended" and files in (None, entry.files)
            return entry.noted("submitting", state="submitting", holder=holder) if free else entry

        return self.change(key, claimed)

    def unclaim(self, key: str, holder: str, why: str) -> Entry:
        """Move an entry back to ``intended``, because the provider surely made no job."""

        def free(entry: Entry) -> Entry:
            mine = (entry.state, entry.holder) == ("submitting", holder)
            return entry.noted(f"no job was made: {why}", state="intended", holder="") if mine else entry

        return self.change(key, free)

    def uploaded(self, key: str, files: Files) -> Entry:
        """Note where the training files are. Who uploads them first is believed: a job is known again by its files."""
        return self.change(key, lambda entry: entry if entry.files is not None else entry.noted("files uploaded", files=files))

    def forget_files(self, key: str, files: Files) -> Entry:
        """Have the training files uploaded again, of an order that surely has no job: those that were refused may be gone."""
        seen = ("intended", files)
        return self.change(key, lambda entry: entry.noted("files forgotten", files=None) if (entry.state, entry.files) == seen else entry)

    def found(self, key: str, job: Job, how: str, last_event: str | None = None) -> Entry:
        """Note the order's job, whatever the state was: that it exists is what counts. A job that has ended stays so.

        One that succeeded and shows no model is noted as running, for ``NAMED_WITHIN_S``: the name may come a moment later.
        ``last_event`` is the last one that is told with this look at the job; None = none is.

        Raises:
            NeedsReconciliation: another job is noted already.
        """

        def with_job(entry: Entry) -> Entry:
            if entry.job is not None and entry.job.id != job.id:
                raise NeedsReconciliation(
                    f"the run key {key} has two jobs, {entry.job.id} and {job.id}: cancel one at the provider, then say which one counts: "
                    f"prooftune jobs reconcile {key} --job ID"
                )
            now = job.model_copy(update={"status": "running"}) if _awaits_name(entry, job) else job
            # A replica that lags may show a job that has ended as one that runs, or without its model.
            known = entry.job if entry.job is not None and entry.job.ended else None
            shown = known if known is not None and (not now.ended or (known.model and not now.model)) else now
            news = {"job": shown, "state": "ended" if shown.ended else "submitted", "holder": ""}
            if last_event is not None:
                news["last_event"] = last_event
            if entry.job is None:
                return entry.noted(f"{how}: {job.id}", **news)
            return entry.model_copy(update=news) if entry.job.told == shown.told else entry.noted(f"{how}: {shown.told}", **news)

        return self.change(key, with_job)

    def said(self, key: str, job: Job, by: str, reason: str) -> Entry:
        """Take a person's word which job is the order's, also where another one was noted."""

        def with_job(entry: Entry) -> Entry:
            if entry.job is not None and entry.job.id == job.id:
                return entry
            state: State = "ended" if job.ended else "submitted"
            return entry.noted(f"{job.id}, says {by}: {reason}", job=job, state=state, holder="", last_event=None)

        return self.change(key, with_job)

    def park(self, key: str, seen: Entry, why: str) -> Entry:
        """Move an entry to ``needs_reconciliation``, unless it moved on since it was ``seen``."""

        def parked(entry: Entry) -> Entry:
            still = (entry.state, entry.holder) == (seen.state, seen.holder)
            return entry.noted(f"needs reconciliation: {why}", state="needs_reconciliation") if still else entry

        return self.change(key, parked)

    def release(self, key: str, by: str, reason: str) -> Entry:
        """Take a person's word that the provider made no job: the order may be submitted.

        Raises:
            SpecError: the entry has a job, or waits for nobody.
        """

        def intended(entry: Entry) -> Entry:
            if entry.state != "needs_reconciliation":
                raise SpecError(f"{key} is {entry.state}, so there is nothing to reconcile; nothing was changed")
            return entry.noted(f"no job was made, says {by}: {reason}", state="intended", holder="")

        return self.change(key, intended)

    def again(self, key: str, by: str, reason: str) -> Entry:
        """Open another attempt of an order whose job failed, was cancelled or left no model; return the new entry.

        Raises:
            SpecError: the job did not fail, or a further attempt is there already.
        """
        entry = self.read(key)
        nameless = entry.state == "ended" and entry.job is not None and entry.job.nameless
        if not entry.failed and not nameless:
            told = entry.job.told if entry.job else entry.state
            raise SpecError(f"{key} is {told}; only a job that failed, was cancelled or left no model can be submitted again")
        order = entry.order.model_copy(update={"attempt": entry.order.attempt + 1})
        intent = Entry(order=order, run=entry.run, options=entry.options, estimate_usd=entry.estimate_usd)
        after = intent.noted(f"attempt {order.attempt}, asked for by {by}: {reason}")
        if self._added(after) != after:
            raise SpecError(f"{key} was submitted again already, as {order.key}; nothing was changed")
        return after

    def _added(self, entry: Entry) -> Entry:
        """Write a new entry, or return the one that another process was quicker to write."""
        try:
            self._store.put(key_of(entry.key), as_bytes(entry), if_absent=True)
        except AlreadyThere:
            return self.read(entry.key)
        except TransientError as error:
            # The answer got lost, not necessarily the write; an entry without a claim costs nothing and may be written by anyone.
            try:
                return self.read(entry.key)
            except NoSuchObject:
                raise error from None
        return entry

    def _read(self, key: str) -> tuple[Entry, str | None]:
        # The version is taken before the content: should it change in between, the swap fails instead of losing the change.
        version = self._store.version(key_of(key))
        if version is None:
            raise NoSuchObject(f"{self._store.uri} has no ledger entry {key}; `prooftune jobs` lists those there are")
        try:
            entry = Entry.model_validate_json(self._store.get(key_of(key)))
        except ValidationError as error:
            where = ".".join(map(str, error.errors(include_input=False)[0]["loc"])) or "its beginning"
            raise IntegrityError(
                f"{self._store.uri}: {key_of(key)} is no ledger entry of this version, because of {where}; use the version of Prooftune "
                "that wrote it, or restore it from a copy"
            ) from None
        if entry.key != key:
            raise IntegrityError(f"{self._store.uri}: {key_of(key)} holds the order {entry.key}; restore it from a copy")
        return entry, version


def _awaits_name(entry: Entry, job: Job) -> bool:
    """Whether a job that succeeded may yet show its model: nothing was noted since it was first seen so, and that was just now."""
    if not job.nameless:
        return False
    if entry.job is None or entry.job.told != job.told:
        return True
    return datetime.now(UTC) - datetime.fromisoformat(entry.history[-1].at) < timedelta(seconds=NAMED_WITHIN_S)


def key_of(key: str) -> str:
    """Return where the entry of a run key is. Raises SpecError for what cannot be a run key."""
    if not key.startswith(f"{MARK}-") or not key.removeprefix(f"{MARK}-").isalnum() or not key.isascii():
        raise SpecError(f"{key[:80]!r} is no run key; one looks like {MARK}-0a1b2c…: `prooftune jobs` lists them")
    return f"{FOLDER}{key}.json"


def who() -> str:
    """Return ``user@host``, for those who read the history."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
