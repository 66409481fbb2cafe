"""A person says whether a managed run may spend: once, by the form, the command line or the store; the clock says no."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

import pytest
from fixtures_desk import SPENDS, Desk, HeldBrain, opened
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.flow_runs import resume_flow_run

from flows.resume import gone_on
from prooftune.economics import approvals, spending
from prooftune.providers.waiting import read_waiting
from prooftune.storage.manifest import read_manifest, verify_manifest
from prooftune.storage.registry_document import NOBODY
from prooftune.types import RunWaiting

pytest_plugins = ["fixtures_desk"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("surroundings")]  # whole runs


def test_a_person_approves_once(folder: Path, tmp_path: Path) -> None:
    """The flow is paused with nothing sent; `prooftune approve` lists it and wakes it; later runs of the spec do not ask again."""
    brain, budget = HeldBrain(), {"approve_above_usd": 0}
    with opened(folder, tmp_path, brain) as desk:
        run = desk.start(budget=budget, provider={"hold_minutes": 0})
        asked = desk.asked()
        assert set(desk.seen) == {"probe"}
        with get_client(sync_client=True) as client:
            forms = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["approval"])))
        kept = f"What {desk.address}/v1 keeps, which stands for openai (backend), is for you to know."
        assert any(kept in str(form.data).replace("\\", "") for form in forms), "the form says what is kept where"
        _, told = desk.type("approve", "STORE")
        assert asked.key in [one["key"] for one in told["waiting"]]
        code, told = desk.type("approve", asked.key, "--by", "ada", "--reason", "worth it", "STORE")
        assert (code, told["woken"]) == (0, True)
        assert isinstance(run.result(180), RunWaiting)
        brain.may.set()
        desk.api.works.settle()
        result = desk.start(budget=budget).result(180)
        assert result.verdict == "promote", result.reasons
        published = read_manifest(desk.store, result.run_id)
        said = json.loads(desk.store.get(published.files["approval.json"].key))
        assert published.facts["lineage"]["approval"].items() <= said.items()
        assert (said["approved"], said["by"], said["reason"]) == (True, "ada", "worth it")
        before = len(desk.seen)
        assert [one["result"]["run_id"] for one in gone_on(desk.spec().store)] == [result.run_id]
        assert not SPENDS & set(desk.seen[before:]), "the run that waited was finished by its own command"
        assert list(read_waiting(desk.store)) == []
        assert desk.jobs == 1


@pytest.mark.parametrize(
    ("where", "by"),
    [
        ("in the UI's form", "bob"),
        ("in the UI's form", NOBODY),
        ("in the store, on a host that cannot reach the server", "bob"),
    ],
)
def test_a_no_is_a_published_result(desk: Desk, where: str, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends in do_not_fine_tune with who and why, also one who signs as the clock does; nothing was sent, and nothing stays held."""
    monkeypatch.setattr("tasks.approval.LOOK_S", 0.5)
    run = desk.start(budget={"approve_above_usd": 0})
    asked = desk.asked()
    if where.startswith("in the UI"):
        resume_flow_run(UUID(asked.flow_run), run_input={"decision": "reject", "by": by, "reason": "not this month"})
    else:
        approvals.answer(desk.store, asked.key, asked.usd, approved=False, by=by, reason="not this month")
    result = run.result(180)
    assert result.verdict == "do_not_fine_tune"
    assert by in result.reasons[0]
    assert "not this month" in result.reasons[0]
    kept = approvals.read(desk.store, asked.key, asked.usd)
    assert kept is not None
    assert (kept.approved, kept.by) == (False, by)
    assert verify_manifest(desk.store, result.run_id) == []
    assert set(desk.seen) == {"probe"}
    item = spending.find(desk.store, "default", asked.key)
    assert item is not None
    assert item.billed_usd == 0


def test_nobodys_answer_is_a_no_until_somebody_gives_one(folder: Path, tmp_path: Path) -> None:
    """The clock rejects; a person who comes late is heard by the next run, which goes on where the month has room by then."""
    budget = {"approve_above_usd": 0, "approve_within_hours": 1 / 3600, "project": "late"}
    with opened(folder, tmp_path) as desk:
        result = desk.start(budget=budget).result(180)
        assert result.verdict == "do_not_fine_tune"
        assert "nobody" in result.reasons[0]
        assert set(desk.seen) == {"probe"}
        assert spending.spent(desk.store, "late").usd == 0
        code, told = desk.type("approve", result.run_id, "STORE")
        assert (code, told["woken"]) == (0, False)
        with pytest.raises(spending.BudgetExceeded, match="monthly_usd"):
            desk.start(budget=budget | {"monthly_usd": 0.0001}).result(180)
        assert set(desk.seen) == {"probe"}
        late = desk.start(budget=budget).result(180)
        assert late.verdict == "promote", late.reasons
        assert late.run_id != result.run_id, "a published result is not replaced"
        item = spending.find(desk.store, "late", result.run_id)
        assert item is not None
        assert item.billed_usd
        assert desk.jobs == 1
