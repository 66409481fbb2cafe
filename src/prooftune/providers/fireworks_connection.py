"""One account's connection to Fireworks: the SDK's client, how its requests are made, and how its answers are read."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prooftune.errors import TransientError
from prooftune.providers.calls import Caller
from prooftune.providers.fireworks_answers import Answer, Page, Resource

READY_WITHIN_S = 1800.0
"""For a dataset to be checked, and a deployment to start."""
READY_PAUSE_S = 2.0
PAGE = 200


@dataclass
class Connection:
    """What every request to the account goes through."""

    client: Any
    """Of the SDK ``fireworks-ai``."""
    call: Caller
    conflict: type[Exception]
    """The SDK's error for a resource that exists."""

    def read(self, kind: type[Answer], request: Callable[[], Any]) -> Answer:
        """Return what we read of the answer to a request that may be repeated; ``request`` returns the SDK's raw response."""
        return self.call(lambda: parsed(kind, request()))

    def make(self, request: Callable[[], object]) -> None:
        """Make something under an id of ours. That it is there is fine: another run made it, or an attempt whose answer got lost."""

        def attempt() -> None:
            try:
                request()
            except self.conflict:
                return

        self.call(attempt)

    def pages(self, resource: Any) -> list[Page]:
        """Return all pages of a list."""
        pages: list[Page] = []
        token: dict[str, str] | None = {}
        while token is not None:
            wanted = {"page_size": PAGE, **token}
            pages.append(self.read(Page, lambda wanted=wanted: resource.with_raw_response.list(**wanted)))  # type: ignore[misc]  # bound now
            token = {"page_token": pages[-1].next_page_token} if pages[-1].next_page_token else None
        return pages


def parsed(kind: type[Answer], response: Any) -> Answer:
    """Return what we read of a raw response. The SDK's own types would take whatever comes."""
    return kind.model_validate_json(response.text())


def until(look: Callable[[], Resource], enough: Callable[[Resource], bool], what: str) -> Resource:
    """Look again and again until what is seen is enough, and return it.

    Raises:
        TransientError: it did not come to that within ``READY_WITHIN_S``.
    """
    started = time.monotonic()
    while not enough(seen := look()):
        if time.monotonic() - started > READY_WITHIN_S:
            raise TransientError(f"{what} at Fireworks is {seen.told} after {READY_WITHIN_S / 60:.0f} minutes; run the same command again")
        time.sleep(READY_PAUSE_S)
    return seen
