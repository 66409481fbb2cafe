"""An order that was claimed and whose request was never sent, or was refused: it is free again, with nothing of it that is stale."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fixtures_ledger import QUICK, MemoryStore, MemoryTuner, intent_of, order_of

from prooftune.errors import TransientError
from prooftune.providers.ledger import Entry, Ledger
from prooftune.providers.submission import Patience, Rows, submit

ROWS = Rows(Path("train.jsonl"), Path("validation.jsonl"))


@pytest.fixture
def ledger() -> Ledger:
    """An empty ledger in memory."""
    return Ledger(MemoryStore())


@pytest.fixture
def tuner() -> MemoryTuner:
    """A provider in memory that takes no idempotency key."""
    return MemoryTuner()


def submitted(tuner: MemoryTuner, ledger: Ledger, patience: Patience = QUICK) -> Entry:
    """Run the command once."""
    return submit(tuner, ledger, intent_of(order_of()), ROWS, patience)


def test_a_claim_that_has_become_old_sends_nothing(ledger: Ledger, tuner: MemoryTuner) -> None:
    """A process that took long between its claim and its request, as one that was stopped, gives the order back."""
    with pytest.raises(TransientError, match="nothing was sent"):
        submitted(tuner, ledger, replace(QUICK, claim_s=-1))
    assert (tuner.requests, ledger.read(order_of().key).state) == (0, "intended")
    assert submitted(tuner, ledger).state == "submitted"


def test_a_claim_that_another_run_has_settled_sends_nothing(tuner: MemoryTuner) -> None:
    """The entry is read once more before the request: where another run parked it meanwhile, a person may be about to free it."""

    class MeddledStore(MemoryStore):
        def put(self, key: str, data: bytes, **conditions: Any) -> str:
            version = super().put(key, data, **conditions)
            if b'"state": "submitting"' in data:
                ledger.park(order_of().key, ledger.read(order_of().key), "no list shows a job")
            return version

    ledger = Ledger(MeddledStore())
    with pytest.raises(TransientError, match="became needs_reconciliation"):
        submitted(tuner, ledger)
    assert (tuner.requests, ledger.read(order_of().key).state) == (0, "needs_reconciliation")
