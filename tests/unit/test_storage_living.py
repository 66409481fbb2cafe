"""Whether a process lives is known on its machine at once: by a lock, of which the system lets go however the process ends."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from prooftune.errors import StoreUnavailable
from prooftune.storage.living import forget, known_dead, shown_alive
from prooftune.storage.local import LocalStore

KEY = "ledger/deployments/prooftune-01/0a1b2c.json"


def test_only_who_has_ended_without_a_word_is_known_to_be_dead(tmp_path: Path) -> None:
    """Neither who lives, nor who has left in order, nor who was never here."""
    store = LocalStore(tmp_path)
    assert not known_dead(store, KEY)
    with shown_alive(store, KEY):
        assert not known_dead(store, KEY)
        [mark] = (path for path in store.work_dir().rglob("*") if path.is_file())
    assert not known_dead(store, KEY)
    assert not mark.exists()
    mark.touch()  # as a killed process leaves it
    assert known_dead(store, KEY)
    forget(store, KEY)
    assert not mark.exists()


def test_several_may_look_at_once(tmp_path: Path) -> None:
    """One who looks does not pass for the process that is looked for: a run that leaves would spare the deployment for it."""
    store = LocalStore(tmp_path)
    with shown_alive(store, KEY):
        [mark] = (path for path in store.work_dir().rglob("*") if path.is_file())
    mark.touch()
    with mark.open("rb") as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        assert known_dead(store, KEY)


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    """Before anything is deployed: the error says what stands there."""
    store = LocalStore(tmp_path)
    (store.work_dir() / "living").touch()
    with pytest.raises(StoreUnavailable, match=r"cannot make a file in .*living.*folder is needed"), shown_alive(store, KEY):
        raise AssertionError("not reached")
    assert not known_dead(store, KEY)
