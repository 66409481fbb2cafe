"""What a living process says again and again, so that others can tell it from a dead one: a lease, renewed from a thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from prooftune.errors import ProoftuneError

log = logging.getLogger(__name__)

RENEW_S = 60.0
DEAD_AFTER_S = 600.0
"""A lease that was not renewed for so long belongs to a dead process: ten renewals were missed."""


def alive(renewed: datetime, now: datetime, skew_s: float = 0.0) -> bool:
    """Return whether a lease stands, by clocks that differ by at most ``skew_s`` seconds. One of the future does."""
    return now - renewed < timedelta(seconds=DEAD_AFTER_S + skew_s)


@contextmanager
def kept_renewed(name: str, renew: Callable[[], bool], every_s: float = RENEW_S) -> Iterator[threading.Event]:
    """Call ``renew`` from a thread every so many seconds until the block ends.

    The event that is given is set as soon as ``renew`` says False: the lease is another's, and is renewed no more.
    """
    over, lost = threading.Event(), threading.Event()

    def keep() -> None:
        while not over.wait(every_s):
            try:
                if not renew():
                    lost.set()
                    log.warning("the lease of %s is another's now", name)
                    return
            except ProoftuneError as error:  # the next renewal may succeed, and a lease outlives nine that fail
                log.warning("the lease of %s was not renewed: %s", name, error)

    thread = threading.Thread(target=keep, name=f"lease-{name}", daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        over.set()
        thread.join()
