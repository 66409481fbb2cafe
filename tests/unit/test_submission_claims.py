"""An order that was claimed and whose request was never sent, or was refused: it is free again, with nothing of it that is stale."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fixtures_ledger import QUICK, MemoryStore, MemoryTuner, order_of, submitted
from fixtures_stand_ins import open_stand_in

from prooftune.errors import EnvironmentLacks, NeedsReconciliation, OutcomeUnknown, ProoftuneError, SpecError, TransientError
from prooftune.providers.ledger import Entry, Ledger
from prooftune.providers.submission import Rows, submit
from prooftune.providers.tuning import Files
from prooftune.storage.local import LocalStore


@pytest.fixture
def ledger() -> Ledger:
    """An empty ledger in memory."""
    return Ledger(MemoryStore())


@pytest.fixture
def tuner() -> MemoryTuner:
    """A provider in memory that takes no idempotency key."""
    return MemoryTuner()


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


def test_rows_that_are_gone_are_uploaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An order is refused, its file is deleted meanwhile, and the next runs upload it anew: once refused for it, or not at all."""
    with open_stand_in("openai", tmp_path, monkeypatch) as here:
        rows, ledger = here.rows(), Ledger(LocalStore(tmp_path / "store"))
        order = here.order(rows)

        def run() -> Entry:
            return submit(here.tuner, ledger, Entry(order=order, run="triage-0"), Rows(rows), QUICK)

        for kind in ("quota", "rate_limit"):
            ordered = here.api.faults.order(kind, "create_job")
            with pytest.raises(EnvironmentLacks if kind == "quota" else TransientError):
                run()
            assert ordered.fired == 1
            for name in [file.id for file in here.api.files.files.values()]:
                here.tuner.client.files.delete(name)
        with pytest.raises(SpecError, match="invalid training_file"):  # a refusal that may end says nothing of files
            run()
        entry = run()
        assert (entry.state, [file.id for file in here.api.files.files.values()]) == ("submitted", [entry.files_uploaded.train])


@pytest.mark.parametrize(
    ("created", "error", "hidden", "kept"),
    [
        ("before", SpecError("refused"), False, False),
        ("after", SpecError("refused"), False, True),
        ("before", TransientError("busy"), False, True),
        ("before", OutcomeUnknown("no answer"), True, True),
    ],
)
def test_files_stay_where_a_job_may_exist(
    created: Any, error: ProoftuneError, hidden: bool, kept: bool, ledger: Ledger, tuner: MemoryTuner
) -> None:
    """Only what surely made no job, and never will with these files, has them uploaded again: a job is known again by its files."""
    tuner.creates, tuner.hidden = [(created, error)], hidden
    with pytest.raises(NeedsReconciliation if hidden else type(error)):
        submitted(tuner, ledger)
    assert (ledger.read(order_of().key).files is not None) is kept
    if not hidden:
        assert submitted(tuner, ledger).job == tuner.jobs[0]
        assert (len(tuner.jobs), tuner.uploads) == (1, 2 if kept else 4)


def test_who_holds_forgotten_files_claims_nothing(ledger: Ledger, tuner: MemoryTuner) -> None:
    """A run that saw files before they were forgotten creates no job of them: nobody would know it again."""
    tuner.creates = [("before", SpecError("refused"))]
    with pytest.raises(SpecError):
        submitted(tuner, ledger)
    seen = Files(train="file-train", validation="file-validation")
    assert ledger.claim(order_of().key, "me", seen).state == "intended"
    ledger.uploaded(order_of().key, seen)
    assert ledger.claim(order_of().key, "me", seen).holder == "me"
