"""One account's connection to Together: the SDK's client, how its requests are made, and how its answers are read."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from prooftune.errors import SpecError, TransientError
from prooftune.providers.calls import Caller, Failure, failure_of
from prooftune.providers.together_answers import FileAnswer, Who

READY_PAUSE_S = 2.0
_QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]*")
"""Of an address: files go to and come from signed ones, whose query is a key by itself."""
Answer = TypeVar("Answer", bound=BaseModel)
Seen = TypeVar("Seen")


@dataclass
class Connection:
    """What every request to the account goes through."""

    client: Any
    """Of the SDK ``together``."""
    call: Caller
    send: Callable[[Path, str], FileAnswer]
    """Uploads a file for a purpose: the same bytes have the same id at Together, however often they are sent."""
    named_project: str | None
    """``provider.project``."""

    def read(self, kind: type[Answer], request: Callable[[], Any]) -> Answer:
        """Return what we read of the answer to a request that may be repeated; ``request`` returns the SDK's raw response."""
        return self.call(lambda: parsed(kind, request()))

    @cached_property
    def project(self) -> str:
        """Id of the project that models and endpoints are in: the spec's, or the key's own.

        Raises:
            SpecError: the spec names none, and the key is not of one project.
        """
        if self.named_project:
            return self.named_project
        who = self.read(Who, self.client.with_raw_response.whoami)
        if who.project is None:
            raise SpecError(
                "provider.project is not set, and the key in TOGETHER_API_KEY is of no single project; set it to a project's id"
            )
        return who.project.id


def parsed(kind: type[Answer], response: Any) -> Answer:
    """Return what we read of a raw response. The SDK's own types would take whatever comes."""
    return kind.model_validate_json(response.text())


def read_failure(error: Exception) -> Failure:
    """Return what an error says, without the signatures of signed addresses.

    A redirect that does not say where to is an answer that cannot be read.
    """
    failure = failure_of(error)
    status = failure.status if failure.status is None or failure.status >= 400 else None
    return replace(failure, message=_QUERY.sub(r"\1?…", failure.message), status=status)


def until(look: Callable[[], Seen], enough: Callable[[Seen], bool], what: Callable[[Seen], str], within_s: float) -> Seen:
    """Look again and again until what is seen is enough, and return it.

    Raises:
        TransientError: it did not come to that in time.
    """
    started = time.monotonic()
    while not enough(seen := look()):
        if time.monotonic() - started > within_s:
            raise TransientError(f"{what(seen)} after {within_s / 60:.0f} minutes at Together; run the same command again later")
        time.sleep(READY_PAUSE_S)
    return seen
