"""The local store: what is special about files, and addresses of stores."""

from __future__ import annotations

import os
import time
from pathlib import Path
from string import printable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prooftune.errors import IntegrityError, SpecError, StoreUnavailable
from prooftune.spec import Store, store_at
from prooftune.storage import disk
from prooftune.storage.local import LocalStore
from prooftune.storage.objects import InvalidKey, check_key, open_store


@given(st.text(alphabet=printable + "ä\0", max_size=40) | st.from_regex(r"[a./_~-]{0,12}", fullmatch=True))
def test_a_key_stays_below_the_root(name: str) -> None:
    """Whatever passes the check is a normal relative path that never climbs, hides or ends in a slash."""
    try:
        key = check_key(name)
    except InvalidKey:
        return
    path = Path("/store") / key
    assert os.path.normpath(path) == str(path) == f"/store/{key}"
    assert not any(part.startswith(".") for part in Path(key).parts)


@pytest.mark.parametrize(
    ("uri", "endpoint", "reason"),
    [
        ("gs://bucket/x", None, "s3://bucket/prefix"),
        ("s3://", None, "s3://bucket/prefix"),
        ("s3://user:secret@bucket/x", None, "no user or password"),
        ("s3://bucket/../x", None, "prefix"),
        ("s3://bucket/a b", None, "prefix"),
        ("s3://bucket/x", "localhost:8333", "http"),
        ("s3://bucket/x", "http://key:secret@host", "no user or password"),
    ],
)
def test_an_unusable_address_is_a_spec_error(uri: str, endpoint: str | None, reason: str) -> None:
    """The message says what an address looks like, and repeats no secret."""
    with pytest.raises(SpecError, match=reason) as caught:
        open_store(store_at(uri, endpoint))
    assert "secret" not in str(caught.value)


def test_opening_touches_nothing(tmp_path: Path) -> None:
    """Opening, reading and listing a store that is not there create nothing."""
    store = open_store(Store(uri=str(tmp_path / "new")))
    assert (store.exists("a"), store.version("a"), list(store.list())) == (False, None, [])
    assert list(tmp_path.iterdir()) == []


def test_no_temporary_file_stays(tmp_path: Path) -> None:
    """After writes that went through and writes that were refused, only the objects and the lock are there."""
    store = LocalStore(tmp_path)
    store.put("a/b", b"1", if_absent=True)
    with pytest.raises(FileExistsError):
        store.put("a/b", b"2", if_absent=True)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()) == [".lock", "a/b"]


def test_leftovers_of_dead_processes_are_swept(tmp_path: Path) -> None:
    """The first write removes temporary files that are a day old, and leaves those that may still be written."""
    folder = tmp_path / disk.TEMPORARY
    folder.mkdir()
    (folder / "old").write_bytes(b"x")
    (folder / "new").write_bytes(b"x")
    os.utime(folder / "old", (time.time() - disk.LEFTOVER_AGE - 60,) * 2)
    LocalStore(tmp_path).put("k", b"1")
    assert [path.name for path in folder.iterdir()] == ["new"]


def test_a_link_out_of_the_store_is_refused(tmp_path: Path) -> None:
    """A symbolic link in the store that leads elsewhere is neither read nor written through."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "runs").symlink_to(tmp_path / "outside")
    store = LocalStore(tmp_path / "store")
    with pytest.raises(StoreUnavailable, match="symbolic link"):
        store.put("runs/x", b"1")
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_file_that_changes_during_the_copy_is_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload whose source is written to meanwhile fails, and what was stored before stays."""
    source, store = tmp_path / "source", LocalStore(tmp_path / "store")
    source.write_bytes(b"first")
    ref = store.upload(source, "k")
    source.write_bytes(b"second")
    real = disk.chunks_of

    def written_to(path: Path, sha256: str) -> object:
        path.write_bytes(b"third")
        return real(path, sha256)

    monkeypatch.setattr(disk, "chunks_of", written_to)
    with pytest.raises(IntegrityError, match="changed while it was uploaded"):
        store.upload(source, "k")
    assert store.measure("k") == ref


def test_too_little_space_is_said_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file larger than the free space is refused with both numbers, before a byte is written."""
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1000)
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 999)
    with pytest.raises(StoreUnavailable, match=r"999 bytes free and 1,000 are to be written"):
        LocalStore(tmp_path / "store").upload(source, "k")
    assert not (tmp_path / "store").exists()
