"""The base model's last day, as its provider names it."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pytest
from fixtures_stand_ins import StandIn, open_stand_in
from fixtures_watching import CHAMPION, NOW, drop, promoted, rows, spec_of

from prooftune.errors import ProoftuneError
from prooftune.spec import RunSpec
from prooftune.storage.local import LocalStore
from prooftune.watching.looks import Quiet
from prooftune.watching.models import look_at_models
from prooftune.watching.signals import Signal


def managed(folder: Path, stand_in: StandIn) -> RunSpec:
    """Return a spec at the stand-in."""
    backend = {"provider": stand_in.tuner.provider, "model": stand_in.model}
    return spec_of(folder, backend=backend, provider={"base_url": stand_in.tuner.address}, gate={"looks": 1})


def at(day: date) -> datetime:
    """Noon of a day."""
    return datetime.combine(day, time(12), UTC)


def test_local_weights_have_no_last_day(tmp_path: Path) -> None:
    """A base model on this machine is nobody's to shut down."""
    found = look_at_models(LocalStore(tmp_path / "store"), spec_of(tmp_path), NOW)
    assert isinstance(found, Quiet)
    assert "lies on this machine" in found.reason


def test_a_sunset_that_comes_near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The champion's model is asked for, not the spec's; within the days of the spec the look is one signal a model and date."""
    store = LocalStore(tmp_path / "store")
    drop(tmp_path, "a.jsonl", rows(40))
    with open_stand_in("openai", tmp_path, monkeypatch) as stand_in:
        promoted(store, managed(tmp_path, stand_in), tmp_path)
        spec = spec_of(tmp_path)
        told = look_at_models(store, spec, at(date(2020, 1, 1))).figures
        assert told["of"] == CHAMPION
        assert told["model"] == stand_in.model
        last = min(date.fromisoformat(day) for day in (told["shutdown"], told["last_job"]) if day)
        quiet = look_at_models(store, spec, at(last - timedelta(days=91)))
        assert isinstance(quiet, Quiet)
        assert "in 91 days" in quiet.reason
        near, after = (look_at_models(store, spec, at(last - timedelta(days=days))) for days in (90, -1))
        before = look_at_models(store, managed(tmp_path, stand_in), at(last - timedelta(days=90)))
    assert isinstance(near, Signal)
    assert isinstance(after, Signal)
    assert isinstance(before, Signal)
    assert before.digest == f"openai:{stand_in.model}:{last}"
    assert near.digest == f"{before.digest}:local:{spec.backend.model}", "that nothing replaced it before says nothing of its successor"
    assert near.id == after.id
    assert "in 90 days" in near.reason
    assert f"since {last}" in after.reason


def test_a_provider_that_is_away_is_an_error_and_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody answers, the look fails instead of saying that all is well."""
    with open_stand_in("openai", tmp_path, monkeypatch) as stand_in:
        spec = managed(tmp_path, stand_in)
    with pytest.raises(ProoftuneError):
        look_at_models(LocalStore(tmp_path / "store"), spec, NOW)
