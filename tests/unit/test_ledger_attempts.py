"""Another attempt of an order whose job failed: one for each failure, and by a person's word alone."""

from __future__ import annotations

import pytest
from fixtures_ledger import FAILED, SUCCEEDED, MemoryStore, entry_in, intent_of, order_of

from prooftune.errors import SpecError
from prooftune.providers.ledger import Ledger


@pytest.fixture
def ledger() -> Ledger:
    """An empty ledger."""
    return Ledger(MemoryStore())


def test_attempts_follow_each_other(ledger: Ledger) -> None:
    """A failed order is done again under another key, once for each failure; the newest attempt is what a run gets."""
    first = entry_in(ledger, "failed", order_of())
    second = ledger.again(first.key, "ann", "row 7 is shorter now")
    assert (second.order.attempt, second.state, second.files, second.run) == (2, "intended", None, first.run)
    assert second.key != first.key
    assert second.history[-1].what == "attempt 2, asked for by ann: row 7 is shorter now"
    with pytest.raises(SpecError, match=second.key):
        ledger.again(first.key, "bob", "once more")
    assert ledger.open(intent_of(order_of())) == second
    ledger.found(second.key, FAILED.model_copy(update={"id": "job-2"}), "created")
    third = ledger.again(second.key, "ann", "third time lucky")
    assert ledger.newest(order_of()) == third
    assert ledger.newest(order_of(seed=8)) is None


def test_a_job_whose_model_is_never_named_is_done_again(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once nobody waits for the name any longer, a person may let the order be submitted once more; before, its job is under way."""
    key = entry_in(ledger, "submitted", order_of()).key
    nameless = SUCCEEDED.model_copy(update={"model": None})
    assert ledger.found(key, nameless, "seen").state == "submitted"
    with pytest.raises(SpecError, match="left no model"):
        ledger.again(key, "ann", "x")
    monkeypatch.setattr("prooftune.providers.ledger.NAMED_WITHIN_S", 0.0)
    assert ledger.found(key, nameless, "seen").state == "ended"
    assert ledger.again(key, "ann", "the console has no model").order.attempt == 2


def test_only_what_failed_is_done_again(ledger: Ledger) -> None:
    """The error names the state, and that of the job where there is one."""
    with pytest.raises(SpecError, match="is succeeded; only a job that failed"):
        ledger.again(entry_in(ledger, "ended", order_of()).key, "ann", "x")
    with pytest.raises(SpecError, match="is submitting; only a job that failed"):
        ledger.again(entry_in(ledger, "submitting", order_of(8)).key, "ann", "x")
