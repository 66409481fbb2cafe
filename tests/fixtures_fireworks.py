"""Fireworks' stand-in, served, with the adapter that talks to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures_stand_ins import StandIn

from prooftune.providers.fireworks import FireworksTuner
from prooftune.sandbox.fireworks import FireworksApi
from prooftune.sandbox.fireworks_tuning import MODEL
from prooftune.sandbox.http import Operation, Reply, Request, Route, serving
from prooftune.sandbox.models import CannedBrain
from prooftune.spec import Provider

if TYPE_CHECKING:
    import pytest

ACCOUNT = "acme"
KEY = "fw-planted-canary-key"


@contextmanager
def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Serve the stand-in with canned answers and open the adapter."""
    with served(FireworksApi(CannedBrain(), folder), folder, monkeypatch) as found:
        yield found


@contextmanager
def served(api: FireworksApi, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Serve a stand-in and open the adapter, which does not wait long for what the stand-in has at once."""
    monkeypatch.setenv("FIREWORKS_API_KEY", KEY)
    monkeypatch.setattr("prooftune.providers.fireworks_connection.READY_PAUSE_S", 0.01)
    monkeypatch.setattr("prooftune.providers.calls.FIRST_WAIT_S", 0.001)
    with serving(api) as address:
        options = Provider(base_url=address, project=ACCOUNT)
        yield StandIn(api, FireworksTuner(options), MODEL, folder, options)


@dataclass(frozen=True)
class Exchange:
    """A request and its answer."""

    operation: str
    request: Request
    reply: Reply


@dataclass
class Recorded:
    """What a recording stand-in heard and said."""

    exchanges: list[Exchange] = field(default_factory=list)

    def around(self, route: Route) -> Route:
        """Return the route with its exchanges recorded."""

        def operation(request: Request, inner: Operation = route.operation) -> Reply:
            reply = inner(request)
            self.exchanges.append(Exchange(route.name, request, reply))
            return reply

        return replace(route, operation=operation)


class RecordingApi(FireworksApi):
    """The stand-in, which also remembers every exchange that was no refusal."""

    def __init__(self, folder: Path) -> None:
        super().__init__(CannedBrain(), folder)
        self.recorded = Recorded()

    def routes(self) -> list[Route]:
        """Return every path, recorded."""
        return [self.recorded.around(route) for route in super().routes()]
