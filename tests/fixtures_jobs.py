"""A store, a stand-in, and somebody who types the commands on managed jobs."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fixtures_stand_ins import StandIn

from flows.cli import main
from prooftune.errors import NeedsReconciliation
from prooftune.providers.ledger import Entry, Ledger
from prooftune.providers.submission import Patience, Rows, submit
from prooftune.providers.tuning import Order
from prooftune.spec import Provider
from prooftune.storage.local import LocalStore

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
QUICK = Patience(first_pause_s=0.001, longest_pause_s=0.002, search_s=0.01, request_s=0.01)


class Desk:
    """A store, a stand-in, and somebody who types."""

    def __init__(self, here: StandIn, store: LocalStore) -> None:
        self.here = here
        self.store = store
        self.ledger = Ledger(store)
        self.rows = here.rows()

    @property
    def options(self) -> Provider:
        """How the stand-in is reached."""
        return self.here.tuner.options  # type: ignore[attr-defined,no-any-return]  # of the adapters used here

    def order(self, seed: int = 7) -> Order:
        """Return an order."""
        return self.here.order(self.rows, seed=seed)

    def pause(self) -> None:
        """Let jobs that start from now on stay where they are."""
        self.here.api.works._pace_s = 60.0  # type: ignore[attr-defined]  # of the stand-ins used here

    def settle(self) -> None:
        """Wait until every job has ended."""
        self.here.api.works.settle()  # type: ignore[attr-defined]  # of the stand-ins used here

    @property
    def made(self) -> list[str]:
        """The stand-in's jobs."""
        return list(self.here.api.works.jobs)  # type: ignore[attr-defined]  # of the stand-ins used here

    def submit(self, seed: int = 7) -> Entry:
        """Submit it, as a run does."""
        intent = Entry(order=self.order(seed), run=f"triage-{seed}", options=self.options, estimate_usd=1.25)
        return submit(self.here.tuner, self.ledger, intent, Rows(self.rows), QUICK)

    def parked(self, seed: int = 7, *, made: bool = True) -> Entry:
        """Leave an order of which nobody can tell whether it has a job; ``made``: it has one, which lists do not show yet."""
        self.here.api.faults.order("reset_after" if made else "error_before", "create_job")
        self.here.api.faults.order("stale", "list_jobs", times=1000, after=1)
        with pytest.raises(NeedsReconciliation):
            self.submit(seed)
        self.here.api.faults.clear()
        return self.ledger.read(self.order(seed).key)

    def call(self, *arguments: str, **options: Any) -> Result:
        """Run `prooftune jobs …` in this process, on a terminal of 80 columns."""
        return CliRunner().invoke(main, ["jobs", *arguments, "--store", str(self.store.root)], env={"COLUMNS": "80"}, **options)

    def answer(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """The one document on stdout."""
        result = self.call(*arguments, "--json")
        assert result.exit_code == code, result.output
        return dict(json.loads(result.stdout))

    def screen(self, *arguments: str, code: int = 0) -> str:
        """What a person sees, with folded white space; no line is wider than the terminal."""
        result = self.call(*arguments)
        assert result.exit_code == code, result.output
        lines = ESCAPE.sub("", result.stdout).splitlines()
        assert max(map(len, lines)) <= 80
        return " ".join(" ".join(lines).split())
