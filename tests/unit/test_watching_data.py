"""New data: what counts as new, what is left for later, and what is not read twice."""

from __future__ import annotations

import gzip
import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_watching import CHAMPION, drop, promoted, rows, spec_of

from prooftune.spec import RunSpec
from prooftune.storage.local import LocalStore
from prooftune.storage.registry import promote, rollback
from prooftune.watching import data as module
from prooftune.watching.data import look_at_data
from prooftune.watching.listing import list_source
from prooftune.watching.looks import Look, Quiet
from prooftune.watching.signals import Signal

if TYPE_CHECKING:
    from fixtures_s3 import S3Server

pytest_plugins = ["fixtures_s3"]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """The task's store."""
    return LocalStore(tmp_path / "store")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which sources were read, and which digested, from now on."""
    seen: list[str] = []
    real_read, real_digest = module.read_source, module.fingerprint_source

    def read(source: str, *more: Any, **options: Any) -> dict[str, object]:
        seen.append("read")
        return real_read(source, *more, **options)

    def fingerprint(source: str) -> str:
        seen.append("digest")
        return real_digest(source)

    monkeypatch.setattr(module, "read_source", read)
    monkeypatch.setattr(module, "fingerprint_source", fingerprint)
    return seen


def later(minutes: float = 0) -> datetime:
    """The present moment, or one after it: files carry the machine's own time."""
    return datetime.now(UTC) + timedelta(minutes=minutes, seconds=1)


def look(store: LocalStore, spec: RunSpec, minutes: float = 0) -> Look:
    """A look so many minutes from now."""
    return look_at_data(store, spec, later(minutes))


def test_the_first_data_of_a_task_are_a_signal(tmp_path: Path, store: LocalStore) -> None:
    """Without a champion, enough valid examples are worth a first training, and too few are not."""
    spec = spec_of(tmp_path, data={"min_examples": 30})
    none = look(store, spec)
    assert "no such file" in none.reason
    assert isinstance(none, Quiet)
    assert none.trouble
    drop(tmp_path, "a.jsonl", rows(25))
    assert "data.min_examples is 30" in look(store, spec).reason
    drop(tmp_path, "b.jsonl", rows(25, seed=1))
    found = look(store, spec)
    assert isinstance(found, Signal)
    assert found.figures["new_examples"] == found.figures["examples"] == 50


def test_new_data_of_a_champion(tmp_path: Path, store: LocalStore) -> None:
    """Examples that the champion was made from are not new; as many others as the spec asks for are a signal with the data's digest."""
    spec = spec_of(tmp_path)
    drop(tmp_path, "a.jsonl", rows(40))
    promoted(store, spec, tmp_path)
    assert look(store, spec) == Quiet(
        kind="data",
        reason=f"0 of 40 valid examples are new to the champion {CHAMPION}; watch.min_new_examples is 10",
        figures=look(store, spec).figures,
    )
    drop(tmp_path, "b.jsonl", rows(9, seed=1))
    assert isinstance(look(store, spec), Quiet)
    drop(tmp_path, "b.jsonl", rows(10, seed=1))
    found = look(store, spec)
    assert isinstance(found, Signal)
    assert found.reason == f"10 of 50 valid examples are new to the champion {CHAMPION}"
    assert found == found.model_validate_json(found.model_dump_json())


def test_the_same_file_again_is_the_same_data(tmp_path: Path, store: LocalStore) -> None:
    """A second drop of a file, under another name and in another order, has the digest of the first: one occurrence."""
    spec = spec_of(tmp_path)
    drop(tmp_path, "a.jsonl", rows(40))
    first = look(store, spec)
    drop(tmp_path, "again.jsonl", rows(40)[::-1])
    second = look(store, spec)
    assert isinstance(first, Signal)
    assert isinstance(second, Signal)
    assert first.id == second.id


def test_rows_that_a_run_would_drop_are_not_new(tmp_path: Path, store: LocalStore) -> None:
    """Invalid rows, duplicates and contradictions count as little as in a run."""
    spec = spec_of(tmp_path)
    drop(tmp_path, "a.jsonl", rows(40))
    promoted(store, spec, tmp_path)
    invalid = [{"prompt": f"nothing {number}"} for number in range(20)]
    contradicting = [row | {"completion": answer} for row in rows(20, seed=2) for answer in ("stop", "go")]
    drop(tmp_path, "b.jsonl", [*invalid, *rows(40), *rows(9, seed=1), *rows(9, seed=1), *contradicting])
    found = look(store, spec)
    assert isinstance(found, Quiet)
    assert found.figures["new_examples"] == 9


def test_data_that_cannot_be_used_are_no_silence(tmp_path: Path, store: LocalStore) -> None:
    """Rows of which none is valid, as after a change of columns, are trouble at each look; a file in the middle of a line is waited for."""
    spec = spec_of(tmp_path)
    drop(tmp_path, "a.jsonl", [{"question": f"q{number}", "reply": "stop"} for number in range(60)])
    for _ in range(2):
        found = look(store, spec)
        assert isinstance(found, Quiet)
        assert "cannot be used as they are" in found.reason
        assert found.trouble
    file = drop(tmp_path, "a.jsonl", rows(40))
    file.write_bytes(file.read_bytes()[:-20])
    found = look(store, spec)
    assert isinstance(found, Quiet)
    assert "a.jsonl:40" in found.reason
    assert not found.trouble


def test_data_that_were_tried_are_no_news(tmp_path: Path, store: LocalStore) -> None:
    """A run since the champion that was made from the new data, whatever its verdict, ends the signal; ten further examples renew it."""
    spec = spec_of(tmp_path)
    drop(tmp_path, "a.jsonl", rows(40))
    promoted(store, spec, tmp_path)
    drop(tmp_path, "b.jsonl", rows(15, seed=1))
    assert isinstance(look(store, spec), Signal)
    promoted(store, spec, tmp_path, run_id="toy-tried", verdict="keep_baseline")
    assert isinstance(look(store, spec), Quiet)
    drop(tmp_path, "c.jsonl", rows(10, seed=2))
    assert isinstance(look(store, spec), Signal)


def test_what_an_undone_champion_was_made_from(tmp_path: Path, store: LocalStore) -> None:
    """A champion of whose examples only some are new ones knows those of the champions before it, too; a rollback brings no signal."""
    spec = spec_of(tmp_path)
    drop(tmp_path, "a.jsonl", rows(40))
    promoted(store, spec, tmp_path)
    sampled = drop(tmp_path, "a.jsonl", rows(40)[:20])
    drop(tmp_path, "b.jsonl", rows(15, seed=1))
    promoted(store, spec, tmp_path, run_id="toy-second", verdict="keep_baseline")
    promote(store, "toy", "toy-second", reason="made from a half of the old", by="test", force=True)
    sampled.unlink()
    drop(tmp_path, "a.jsonl", rows(40))
    assert isinstance(look(store, spec), Quiet)
    rollback(store, "toy", reason="worse", by="test")
    assert isinstance(look(store, spec), Quiet)


def test_data_that_just_changed_wait(tmp_path: Path, store: LocalStore, reads: list[str]) -> None:
    """Data are read once they have been quiet for as long as the spec says, and not before."""
    spec = spec_of(tmp_path, watch={"quiet_minutes": 10})
    drop(tmp_path, "a.jsonl", rows(40))
    assert "changed a moment ago" in look(store, spec).reason
    assert "changed a moment ago" in look(store, spec, 9).reason
    assert not reads
    drop(tmp_path, "b.jsonl", rows(40, seed=1))
    assert isinstance(look(store, spec, 9), Quiet)
    assert isinstance(look(store, spec, 10), Signal)


def test_an_old_time_stamp_does_not_make_a_copy_old(tmp_path: Path, store: LocalStore) -> None:
    """A copy that keeps the original's time of last year is as new as it is."""
    spec = spec_of(tmp_path, watch={"quiet_minutes": 10})
    path = drop(tmp_path, "a.jsonl", rows(40))
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert "changed a moment ago" in look(store, spec).reason


def test_a_clock_ahead_of_ours_does_not_hold_data_back(tmp_path: Path, store: LocalStore) -> None:
    """Where the place's clock is a day ahead, it counts that we have seen no change for long enough."""
    spec = spec_of(tmp_path, watch={"quiet_minutes": 10})
    drop(tmp_path, "a.jsonl", rows(40))
    yesterday = later() - timedelta(days=1)
    assert isinstance(look_at_data(store, spec, yesterday), Quiet)
    assert isinstance(look_at_data(store, spec, yesterday + timedelta(minutes=9)), Quiet)
    assert isinstance(look_at_data(store, spec, yesterday + timedelta(minutes=10)), Signal)


@pytest.mark.parametrize("name", ["half.jsonl", "half.jsonl.gz"])
def test_a_half_written_file_does_not_fire(tmp_path: Path, store: LocalStore, name: str) -> None:
    """A file that breaks off, though quiet long enough, is listed as the problem it is; once it is whole the signal comes."""
    spec = spec_of(tmp_path)
    drop(tmp_path, "a.jsonl", rows(40))
    whole = "".join(json.dumps(row) + "\n" for row in rows(40, seed=1)).encode()
    written = gzip.compress(whole) if name.endswith(".gz") else whole
    (tmp_path / "data" / name).write_bytes(written[:-30])
    found = look(store, spec)
    assert isinstance(found, Quiet)
    assert name in " ".join(found.figures["problems"])
    (tmp_path / "data" / name).write_bytes(written)
    assert isinstance(look(store, spec), Signal)


def test_a_file_that_grows_while_it_is_read_does_not_fire(tmp_path: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was counted while somebody wrote is forgotten, and counted at the next look."""
    spec = spec_of(tmp_path)
    drop(tmp_path, "a.jsonl", rows(40))
    real, grown = module.validate, []

    def growing(*arguments: Any, **options: Any) -> dict[str, object]:
        grown.append(drop(tmp_path, "b.jsonl", rows(40, seed=1)))
        return real(*arguments, **options)

    monkeypatch.setattr(module, "validate", growing)
    assert "changed while they were read" in look(store, spec).reason
    assert grown
    monkeypatch.setattr(module, "validate", real)
    assert look(store, spec).figures["examples"] == 80


def test_data_that_a_run_would_refuse_are_no_signal(tmp_path: Path, store: LocalStore) -> None:
    """With ``on_invalid: fail`` an invalid row is named instead of a signal; nothing of its text is."""
    spec = spec_of(tmp_path, data={"on_invalid": "fail"})
    drop(tmp_path, "a.jsonl", [*rows(40), {"prompt": "canary-5f20"}])
    found = look(store, spec)
    assert isinstance(found, Quiet)
    assert "a.jsonl:41" in " ".join(found.figures["problems"])
    assert "canary" not in found.model_dump_json()


def test_what_did_not_change_is_not_read_again(tmp_path: Path, store: LocalStore, reads: list[str]) -> None:
    """An unchanged source costs a listing, a touched one a digest; a run that was registered makes it read anew."""
    spec = spec_of(tmp_path)
    path = drop(tmp_path, "a.jsonl", rows(40))
    first = look(store, spec)
    assert reads == ["digest", "read"]
    again = look(store, spec)
    assert reads == ["digest", "read"]
    assert isinstance(again, Signal)
    assert again.figures == first.figures
    path.touch()
    assert isinstance(look(store, spec), Signal)
    assert reads == ["digest", "read", "digest"]
    assert isinstance(look(store, spec), Signal)
    assert len(reads) == 3
    promoted(store, spec, tmp_path)
    assert isinstance(look(store, spec), Quiet)
    assert reads[3:] == ["digest", "read"]


def test_other_settings_of_the_data_make_it_read_anew(tmp_path: Path, store: LocalStore, reads: list[str]) -> None:
    """What an example is depends on the spec's block data; how examples are divided later does not matter."""
    drop(tmp_path, "a.jsonl", rows(40))
    look(store, spec_of(tmp_path))
    look(store, spec_of(tmp_path, data={"split": {"seed": 8}}))
    assert len(reads) == 2
    look(store, spec_of(tmp_path, data={"pii": "allow"}))
    assert len(reads) == 4


def test_objects_of_a_bucket(tmp_path: Path, store: LocalStore, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prefix of a bucket is watched by its objects' ETags; what lies beside the prefix does not matter."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": s3_server.access_key,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret_key,
        "AWS_ENDPOINT_URL_S3": s3_server.endpoint,
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client, prefix = s3_server.client(), f"watch-{time.time_ns()}"
    source = f"s3://{s3_server.bucket}/{prefix}"

    def put(name: str, seed: int) -> None:
        body = "".join(json.dumps(row) + "\n" for row in rows(40, seed))
        client.put_object(Bucket=s3_server.bucket, Key=name, Body=body.encode())

    put(f"{prefix}/a.jsonl", 0)
    before = list_source(source)
    assert before == list_source(source)
    put(f"{prefix}-old/b.jsonl", 1)
    assert before == list_source(source)
    spec = spec_of(tmp_path, data={"source": source}, watch={"quiet_minutes": 5})
    assert isinstance(look(store, spec), Quiet)
    found = look(store, spec, 6)
    assert isinstance(found, Signal)
    assert found.figures["new_examples"] == 40
    put(f"{prefix}/a.jsonl", 2)
    assert list_source(source).stamp != before.stamp
    other = look(store, spec, 6)
    assert isinstance(other, Signal)
    assert other.digest != found.digest
