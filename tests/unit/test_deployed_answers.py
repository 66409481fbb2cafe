"""A model that has to be deployed is paid for by the time that it runs: it answers directly, and no batch of a day keeps it up."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures_stand_ins import open_stand_in

from prooftune.evaluation.answers.managed import ManagedBase, tuned_answerer
from prooftune.providers.collection import ManagedModel
from prooftune.storage.local import LocalStore
from prooftune.types import Message


@pytest.mark.parametrize(("provider", "batches"), [("openai", 1), ("together", 0), ("fireworks", 0), ("azure", 0)])
def test_what_is_deployed_is_asked_directly(provider: str, batches: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``provider.batch`` only what answers as it is goes through the batch API."""
    monkeypatch.setattr("prooftune.providers.batches.FIRST_POLL_S", 0.01)
    with open_stand_in(provider, tmp_path, monkeypatch) as here:
        rows = here.rows()
        order = here.order(rows)
        job = here.tuner.create(order, here.uploaded(rows, order))
        here.api.works.settle()
        tuned = ManagedModel(
            provider=provider,
            address=here.tuner.address,
            base_model=here.model,
            model=str(here.tuner.job(job.id).model),
            job=job.id,
            key=order.key,
            shutdown=None,
            owns_weights=False,
        )
        base = ManagedBase(provider=provider, model=here.model, options=here.options.model_copy(update={"batch": True}))
        prompts = [[Message(role="user", content=f"ticket {number} about login, please help")] for number in range(2)]
        with tuned_answerer(base, tuned, LocalStore(tmp_path / "store"), tmp_path / "candidate.answers.jsonl") as answerer:
            answers = answerer.answer(prompts, max_new_tokens=5)
        assert [answer.text for answer in answers] == ["billing", "login"]
        assert [answer.latency_s is None for answer in answers] == [bool(batches)] * 2
        assert here.api.state().get("batches", 0) == batches
        assert here.api.state()["deployments"] == 0
