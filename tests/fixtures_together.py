"""Together's stand-in, served, with the adapter that talks to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures_stand_ins import StandIn

from prooftune.providers.together import TogetherTuner
from prooftune.providers.tuning import Order
from prooftune.sandbox.faults import Fault, Kind
from prooftune.sandbox.http import Operation, Reply, Request, Route, serving
from prooftune.sandbox.models import CannedBrain
from prooftune.sandbox.together import TogetherApi
from prooftune.sandbox.together_jobs import MODEL
from prooftune.spec import Provider

if TYPE_CHECKING:
    import pytest

KEY = "tgp-planted-canary-key"
"""May stand in no error."""


@contextmanager
def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Serve the stand-in with canned answers and open the adapter."""
    with served(TogetherApi(CannedBrain(), folder / "sandbox"), folder, monkeypatch) as found:
        yield found


@contextmanager
def served(api: TogetherApi, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Serve a stand-in and open the adapter, which does not wait long for what the stand-in has at once."""
    monkeypatch.setenv("TOGETHER_API_KEY", KEY)
    monkeypatch.setattr("prooftune.providers.together_connection.READY_PAUSE_S", 0.01)
    monkeypatch.setattr("prooftune.providers.calls.FIRST_WAIT_S", 0.001)
    with serving(api) as address:
        options = Provider(base_url=f"{address}/v1")
        yield StandIn(api, TogetherTuner(options), MODEL, folder, options)


@dataclass(frozen=True)
class Exchange:
    """A request and its answer."""

    operation: str
    request: Request
    reply: Reply


class RecordingApi(TogetherApi):
    """The stand-in, which also remembers every exchange that was no refusal."""

    def __init__(self, folder: Path) -> None:
        super().__init__(CannedBrain(), folder / "sandbox")
        self.exchanges: list[Exchange] = []

    def routes(self) -> list[Route]:
        """Return every path, recorded."""
        return [replace(route, operation=self._recorded(route)) for route in super().routes()]

    def _recorded(self, route: Route) -> Operation:
        def operation(request: Request) -> Reply:
            reply = route.operation(request)
            self.exchanges.append(Exchange(route.name, request, reply))
            return reply

        return operation


def fault(here: StandIn, kind: Kind, operation: str, value: str = "", times: int = 1) -> Fault:
    """Order a fault."""
    return here.api.faults.order(kind, operation, times=times, value=value)


def asked(here: StandIn, operation: str) -> int:
    """Return how often an operation was asked for."""
    return [name for name, _, _ in here.api.seen].count(operation)


def tuned(here: StandIn) -> tuple[Order, str]:
    """Tune a model; return its order and its name."""
    rows = here.rows()
    order = here.order(rows)
    job = here.tuner.create(order, here.uploaded(rows, order))
    here.api.works.settle()
    return order, str(here.tuner.job(job.id).model)
