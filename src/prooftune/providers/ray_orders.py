"""The Ray jobs of a store: what was asked of which cluster, so that any host can list a training, ask how it is, and end it.

An order lies beside its job's inputs and is written before anything is sent. The job's id is the same for whoever asks; the first is noted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

from pydantic import ValidationError

from prooftune.errors import IntegrityError
from prooftune.providers.ledger import who
from prooftune.providers.ray_cluster import Cluster, RayJob
from prooftune.providers.tuning import MARK
from prooftune.storage.documents import as_bytes
from prooftune.storage.objects import AlreadyThere, NoSuchObject, ObjectStore
from prooftune.training import job
from prooftune.types import Frozen

FOLDER = "ray/"
NAME = "order.json"
_ID = re.compile(rf"{MARK}-[0-9a-f]{{24}}")


class RayOrder(Frozen):
    """A training that a cluster was asked for."""

    id: str
    """Of its first job; a further attempt has a number behind it."""
    address: str | None
    """Of the cluster, as ``provider.base_url`` names it."""
    model: str
    """Base model."""
    by: str
    """``user@host``."""
    since: str
    """UTC, ISO 8601."""


def note(objects: ObjectStore, id_: str, address: str | None, model: str) -> None:
    """Write an order down, unless it is there for the same cluster."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    order = RayOrder(id=id_, address=address, model=model, by=who(), since=now)
    try:
        objects.put(_key(id_), as_bytes(order), if_absent=True)
    except AlreadyThere:
        known = find(objects, id_)
        if known is not None and known.address != address:  # it is asked of another cluster from now on
            objects.put(_key(id_), as_bytes(known.model_copy(update={"address": address})))


def find(objects: ObjectStore, id_: str) -> RayOrder | None:
    """Return an order, or None where the store has none of that id. Raises IntegrityError for a damaged one."""
    if not _ID.fullmatch(id_):
        return None
    try:
        return RayOrder.model_validate_json(objects.get(_key(id_)))
    except NoSuchObject:
        return None
    except ValidationError:
        raise IntegrityError(f"{objects.uri}: {_key(id_)} is no order of a Ray job; delete it, and run its spec again") from None


def orders(objects: ObjectStore, unreadable: dict[str, str]) -> Iterator[RayOrder]:
    """Yield the store's orders; one that cannot be read is put into ``unreadable``, its id with the reason."""
    for id_ in [key.split("/")[1] for key in objects.list(FOLDER) if key.endswith(f"/{NAME}")]:
        try:
            if (order := find(objects, id_)) is not None:
                yield order
        except IntegrityError as error:
            unreadable[id_] = str(error)


def done(objects: ObjectStore, order: RayOrder) -> bool:
    """Whether the training has left its results; no cluster is asked."""
    return job.read_results(objects, order.id) is not None


def newest(cluster: Cluster, id_: str) -> tuple[RayJob | None, int]:
    """Return a training's newest job, and how many there are."""
    found, number = None, 0
    while (following := cluster.job(attempt(id_, number + 1))) is not None:
        found, number = following, number + 1
    return found, number


def attempt(id_: str, number: int) -> str:
    """Return the id of a training's ``number``-th job."""
    return id_ if number == 1 else f"{id_}-{number}"


def look(order: RayOrder) -> RayJob | None:
    """Ask the cluster how the newest job is; None = it knows of none, as after a restart.

    Raises:
        TransientError, EnvironmentLacks: it cannot be asked.
    """
    return newest(Cluster(order.address), order.id)[0]


def cancel(order: RayOrder) -> RayJob | None:
    """Ask for the end of a training's job, where one is under way, and return it as it then is; None = the cluster knows of none.

    One that still waits for resources ends, by Ray's rules, as soon as it would start, or when Ray's patience with it is at an end.

    Raises:
        TransientError, EnvironmentLacks: the cluster cannot be asked.
    """
    cluster = Cluster(order.address)
    found, _ = newest(cluster, order.id)
    if found is None or found.ended:
        return found
    cluster.stop(found.id)
    return cluster.job(found.id)


def _key(id_: str) -> str:
    return f"{FOLDER}{id_}/{NAME}"
