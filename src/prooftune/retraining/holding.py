"""What the holder of a retraining does while it works: it renews its lease, and says so where it fails or is stopped."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from prooftune.errors import ProoftuneError
from prooftune.retraining.claims import fail, release, renew
from prooftune.storage import leases
from prooftune.storage.objects import ObjectStore

log = logging.getLogger(__name__)


@contextmanager
def holding(store: ObjectStore, task: str, token: int) -> Iterator[threading.Event]:
    """Hold a retraining while the block works; the event that is given is set where another has started in its place.

    A block that fails ends the attempt; one that is interrupted lets the lease lapse at once, so that its successor need not wait.
    """
    try:
        with leases.kept_renewed(task, lambda: renew(store, task, token), leases.RENEW_S) as lost:
            yield lost
    except BaseException as error:
        try:
            if isinstance(error, Exception):
                fail(store, task, token, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            else:
                release(store, task, token)
        except ProoftuneError as unsaid:  # what went wrong first is what has to be told; the lease lapses by itself
            log.warning("the retraining of %s is not noted as ended: %s", task, unsaid)
        raise
