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
SKEW_S = 300.0
"""Clocks of two hosts may differ by so much before a living process is taken for dead."""


def alive(renewed: datetime, now: datetime, skew_s: float = SKEW_S) -> bool:
    """Return whether a lease stands, by clocks that differ by at most ``skew_s`` seconds.

    One that was renewed further in the future than ``SKEW_S`` does not: by a clock that is wrong it would stand until that day.
    """
    return timedelta(seconds=-SKEW_S) <= now - renewed < timedelta(seconds=DEAD_AFTER_S + skew_s)


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
