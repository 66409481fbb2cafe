"""A champion at its provider is asked its holdout again, at whichever provider that is, and nothing is left running."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures_watched import BY_THE_HOUR, HOLDOUT, Watched, crown, fail_half_way, questions_of, today
from fixtures_watching import drop, promoted, rows, spec_of
from prefect.tasks import Task

from prooftune.spec import Store
from prooftune.storage.objects import open_store
from prooftune.watching.looks import Quiet
from prooftune.watching.nightly import evaluate_again
from prooftune.watching.quality import look_at_quality
from prooftune.watching.signals import Signal
from tasks.policies import GPU
from tasks.watching import asked_again

pytest_plugins = ["fixtures_watched"]


def test_the_provider_is_asked_the_holdout_again(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question once, with a lease that tells who finds its deployment what that costs; it is gone afterwards. Nothing has changed."""
    asked = questions_of(watched, monkeypatch)
    found = evaluate_again(watched.store, watched.spec, today())
    assert found is not None
    assert (len(asked), found.n, found.changed, found.p_value) == (HOLDOUT, HOLDOUT, 0, 1)
    assert found.value == found.published.value > 0.5
    [price] = {lease.usd_per_hour for question in asked for lease in question.leases}
    assert (price is not None) == (watched.here.tuner.provider in BY_THE_HOUR)
    assert watched.left == []
    assert isinstance(look_at_quality(watched.store, watched.spec, today()), Quiet)
    again = evaluate_again(watched.store, watched.spec, today())
    assert (again, len(asked)) == (found, HOLDOUT), "once a day"


def test_only_a_champion_on_this_machine_waits_for_its_gpu(watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is none, nobody does."""
    at_provider = watched.spec.model_copy(update={"store": Store(uri=watched.store.uri)})
    here = spec_of(tmp_path / "here")
    (tmp_path / "here").mkdir()
    drop(tmp_path / "here", "a.jsonl", rows(40))
    promoted(open_store(here.store), here, tmp_path / "here")
    waits: list[set[str]] = []
    monkeypatch.setattr(Task, "__call__", lambda task, spec: waits.append(task.tags))
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    for spec in (at_provider, here, here.model_copy(update={"name": "untrained"})):
        asked_again(spec)
    assert waits == [set(), {GPU}, set()]


def test_a_model_that_its_provider_made_worse_is_a_signal(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another answer to every question is a drop, and worth a retraining."""
    questions_of(watched, monkeypatch, answer="no idea")
    found = evaluate_again(watched.store, watched.spec, today())
    assert found is not None
    assert (found.value, found.changed) == (0, HOLDOUT)
    told = look_at_quality(watched.store, watched.spec, today())
    assert isinstance(told, Signal)
    assert "the holdout gives exact_match 0.000" in told.reason


def test_a_provider_that_fails_half_way_is_asked_for_the_rest(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was deployed is taken down all the same, and the next try pays for no answer twice."""
    fail_half_way(watched)
    assert watched.left == []
    rest = questions_of(watched, monkeypatch)
    found = evaluate_again(watched.store, watched.spec, today())
    assert found is not None
    assert (found.changed, len(rest)) == (0, HOLDOUT - HOLDOUT // 2)


@pytest.mark.parametrize("provider", ["openai", "fireworks"])
def test_the_answers_of_an_earlier_batch_are_not_taken_for_new_ones(provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is known again by its questions, which are the same each night: each is asked directly, and costs twice as much."""
    with crown(provider, tmp_path, batch=True) as watched:
        asked = questions_of(watched, monkeypatch, answer="no idea")
        found = evaluate_again(watched.store, watched.spec, today())
        assert found is not None
        assert (len(asked), found.changed) == (HOLDOUT, HOLDOUT)
        [item] = watched.month.items
        assert provider in BY_THE_HOUR or item.held_usd == pytest.approx(watched.usd_of(asked))
