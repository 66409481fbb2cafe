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
    assert isinstance(near, Signal)
    assert isinstance(after, Signal)
    assert near.id == after.id
    assert "the spec moves to local" in near.reason
    assert "in 90 days" in near.reason
    assert f"since {last}" in after.reason


def test_a_successor_is_another_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the spec names the ending model a retraining has nothing to move to; the successor's name is an occurrence of its own."""
    store = LocalStore(tmp_path / "store")
    with open_stand_in("openai", tmp_path, monkeypatch) as stand_in:
        staying = managed(tmp_path, stand_in)
        drop(tmp_path, "a.jsonl", rows(40))
        promoted(store, staying, tmp_path)
        moving = staying.model_copy(update={"backend": staying.backend.model_copy(update={"model": "gpt-4.1-nano"})})
        last = date.fromisoformat(str(look_at_models(store, staying, at(date(2020, 1, 1))).figures["shutdown"]))
        stay, move = (look_at_models(store, spec, at(last)) for spec in (staying, moving))
    assert isinstance(stay, Signal)
    assert isinstance(move, Signal)
    assert "name its successor in backend.model" in stay.reason
    assert "the spec moves to openai gpt-4.1-nano" in move.reason
    assert stay.id != move.id


def test_a_provider_that_is_away_is_an_error_and_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody answers, the look fails instead of saying that all is well."""
    with open_stand_in("openai", tmp_path, monkeypatch) as stand_in:
        spec = managed(tmp_path, stand_in)
    with pytest.raises(ProoftuneError):
        look_at_models(LocalStore(tmp_path / "store"), spec, NOW)
