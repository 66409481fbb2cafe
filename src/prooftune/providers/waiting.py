"""Runs that ended for now because their job goes on: what it takes to go on with them, in the object store."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from pydantic import ValidationError

from prooftune.errors import IntegrityError
from prooftune.spec import RunSpec
from prooftune.storage.objects import NoSuchObject, ObjectStore
from prooftune.types import Frozen

FOLDER = "ledger/waiting/"


class Waiting(Frozen):
    """A run that waits."""

    run: str
    spec: RunSpec
    key: str
    """Run key of the job."""
    source: str
    """Fingerprint of the data as the run read them: the source may have changed since, and the job learns from what it was given."""
    since: str
    """UTC, ISO 8601."""


def wait(store: ObjectStore, spec: RunSpec, run: str, key: str, source: str) -> None:
    """Write down that a run waits for a job."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    waiting = Waiting(run=run, spec=spec, key=key, source=source, since=since)
    store.put(f"{FOLDER}{run}.json", waiting.model_dump_json(indent=1).encode())


def read_waiting(store: ObjectStore, unreadable: dict[str, str] | None = None) -> Iterator[Waiting]:
    """Yield the runs that wait, by name.

    One that cannot be read is put into ``unreadable``, its run with the reason, and is an IntegrityError where nobody asks for it there.
    """
    for key in store.list(FOLDER):
        try:
            yield Waiting.model_validate_json(store.get(key))
        except NoSuchObject:
            continue  # somebody went on with it just now
        except ValidationError as error:
            fault = error.errors(include_input=False, include_url=False)[0]
            wrong = f"{'.'.join(map(str, fault['loc']))} {fault['msg']}".strip()
            reason = (
                f"{store.uri}: {key} cannot be read as a waiting run by this version ({wrong}); run its spec again, which goes on with "
                "the same job, then delete it"
            )
            if unreadable is None:
                raise IntegrityError(reason) from None
            unreadable[key.removeprefix(FOLDER).removesuffix(".json")] = reason


def went_on(store: ObjectStore, run: str) -> None:
    """Forget that a run waited."""
    store.delete(f"{FOLDER}{run}.json")
