"""The store under faults on this machine: killed processes, full and read-only disks. Each test asserts that its fault fired."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from prooftune.errors import StoreUnavailable
from prooftune.spec import Store
from prooftune.storage import disk
from prooftune.storage.local import LocalStore
from prooftune.storage.manifest import list_runs, publish, read_manifest, verify_manifest
from prooftune.storage.objects import NoSuchObject, ObjectStore, open_store
from prooftune.storage.registry import read_registry, register
from prooftune.storage.s3 import S3Store
from prooftune.types import Decision

pytest_plugins = ["fixtures_s3"]
FORK = multiprocessing.get_context("fork")
STORAGE = str(Path(disk.__file__).parent)
PROMOTE = Decision(verdict="promote", reasons=("because",))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The local files of a run."""
    out = tmp_path / "out"
    out.mkdir()
    for name in ("adapter.safetensors", "report.html", "spec.yaml"):
        (out / name).write_bytes(name.encode() * 1000)
    return {path.name: path for path in sorted(out.iterdir())}


def _run_traced(work: Callable[[], object], kill_at: int | None) -> int:
    """Do the work and return how many lines of the storage package it ran; die by SIGKILL before the given one."""
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.startswith(STORAGE):
            return None
        if event == "line":
            lines += 1
            if lines == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    threading.settrace(trace)
    sys.settrace(trace)
    work()
    sys.settrace(None)
    return lines


def _lines_of(work: Callable[[], object]) -> int:
    receiver, sender = FORK.Pipe(duplex=False)
    child = FORK.Process(target=lambda: sender.send(_run_traced(work, None)))
    child.start()
    assert receiver.poll(60)
    child.join()
    return int(receiver.recv())


def _publish_and_register(store: ObjectStore, files: dict[str, Path]) -> None:
    register(store, "triage", "run-1", publish(store, "run-1", files, {"verdict": "promote"}), PROMOTE)


def _is_killed_at_each(points: range, work: Callable[[], object], check: Callable[[], None]) -> None:
    for point in points:
        child = FORK.Process(target=_run_traced, args=(work, point))
        child.start()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL, f"the fault at line {point} did not fire"
        check()


def _is_whole_or_absent(store: ObjectStore, files: dict[str, Path]) -> None:
    for run_id in list_runs(store):
        assert verify_manifest(store, run_id) == []
        assert set(read_manifest(store, run_id).files) == set(files)
    registry = read_registry(store, "triage")
    assert [entry["run_id"] for entry in registry["history"]] == ([registry["champion"]] if registry["champion"] else [])
    assert {registry["champion"]} - {None} <= set(list_runs(store))


def test_a_kill_at_any_line_leaves_old_or_new(tmp_path: Path, files: dict[str, Path]) -> None:
    """A process that publishes and registers is killed at 50 points; every time the run is whole or absent, and in the end it is whole."""
    dry = LocalStore(tmp_path / "dry")
    total = _lines_of(lambda: _publish_and_register(dry, files))
    for number, point in enumerate(range(1, total, total // 50)):
        store = LocalStore(tmp_path / f"store-{number}")
        _is_killed_at_each(
            range(point, point + 1), lambda s=store: _publish_and_register(s, files), lambda s=store: _is_whole_or_absent(s, files)
        )
        _publish_and_register(store, files)
        assert verify_manifest(store, "run-1") == []
        assert read_registry(store, "triage")["champion"] == "run-1"


@pytest.mark.slow
def test_a_kill_during_a_multipart_upload_shows_nothing(s3_uri: str, s3_server: Any, tmp_path: Path) -> None:
    """Killed at eight points of publishing to S3, a run is whole or absent; publishing again completes it."""
    big = tmp_path / "adapter.safetensors"
    big.write_bytes(os.urandom(1 << 20) * 11)
    files = {big.name: big}
    bucket, prefix = s3_uri.removeprefix("s3://").split("/", 1)

    def store(number: object) -> S3Store:
        return S3Store(bucket, f"{prefix}/{number}", s3_server.endpoint, part_size=5 << 20)

    total = _lines_of(lambda: publish(store("dry"), "run-1", files, {}))
    orphans = 0
    for number, point in enumerate(range(total // 10, total, total // 8)):
        _is_killed_at_each(
            range(point, point + 1),
            lambda n=number: _publish_and_register(store(n), files),
            lambda n=number: _is_whole_or_absent(store(n), files),
        )
        uploads = s3_server.client().list_multipart_uploads(Bucket=bucket, Prefix=f"{prefix}/{number}/")
        orphans += len(uploads.get("Uploads", []))
        _publish_and_register(store(number), files)
        assert verify_manifest(store(number), "run-1") == []
    assert orphans, "no kill fell into a multipart upload"


@pytest.mark.usefixtures("s3_environment")
def test_parts_of_dead_uploads_are_swept(s3_uri: str, s3_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first multipart upload aborts those below its prefix that are older than the limit, and no others."""
    bucket, prefix = s3_uri.removeprefix("s3://").split("/", 1)
    client = s3_server.client()
    for name in (f"{prefix}/dead", f"{prefix}-other/alive"):
        client.create_multipart_upload(Bucket=bucket, Key=name)
    big = tmp_path / "big"
    big.write_bytes(bytes(6 << 20))
    monkeypatch.setattr(disk, "LEFTOVER_AGE", -5.0)
    S3Store(bucket, prefix, s3_server.endpoint, part_size=5 << 20).upload(big, "big")
    left = {upload["Key"] for upload in client.list_multipart_uploads(Bucket=bucket, Prefix=prefix).get("Uploads", [])}
    assert left == {f"{prefix}-other/alive"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("checked_before", [True, False], ids=["seen before writing", "hit while writing"])
def test_a_full_disk_keeps_the_old_object(small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checked_before: bool) -> None:
    """A disk without room for the new content gives a clear error with the free bytes; the old content stays, no partial file does."""
    store, source = LocalStore(small_disk / "store"), tmp_path / "source"
    source.write_bytes(b"old")
    old = store.upload(source, "k")
    source.write_bytes(bytes(2 << 20))
    if not checked_before:  # as when another process takes the space between the check and the write
        monkeypatch.setattr(disk, "require_space", lambda folder, size: None)
    with pytest.raises(StoreUnavailable, match="bytes free" if checked_before else r"No space left .* bytes free.* intact"):
        store.upload(source, "k")
    assert store.measure("k") == old
    assert list((small_disk / "store" / disk.TEMPORARY).iterdir()) == []
    source.write_bytes(b"new")
    assert store.fetch(store.upload(source, "k")).read_bytes() == b"new"


def test_a_read_only_disk_is_a_clear_error(small_disk: Path) -> None:
    """A store on a disk that became read-only can be read, and says so when it is to be written."""
    store = LocalStore(small_disk / "store")
    store.put("k", b"1")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for write in (lambda: store.put("k", b"2"), lambda: store.delete("k"), store.check, lambda: LocalStore(small_disk / "b").work_dir()):
        with pytest.raises(StoreUnavailable, match=r"Read-only file system; make the folder writable"):
            write()
    assert store.get("k") == b"1"


def _refused(work: Callable[[], object], before: Callable[[], object]) -> str:
    """What the work is refused with in a process that was restricted before; empty = it was not refused."""
    receiver, sender = FORK.Pipe(duplex=False)

    def child() -> None:
        before()
        try:
            work()
        except StoreUnavailable as error:
            sender.send(str(error))
        else:
            sender.send("")

    process = FORK.Process(target=child)
    process.start()
    assert receiver.poll(30)
    process.join()
    return str(receiver.recv())


def test_a_file_size_limit_keeps_the_old_object(tmp_path: Path) -> None:
    """A write that the process's file size limit cuts short gives a clear error and leaves the old content."""
    store = LocalStore(tmp_path)
    store.put("k", b"old")
    refused = _refused(lambda: store.put("k", bytes(5000)), lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)))
    assert "ulimit -f" in refused
    assert store.get("k") == b"old"
    assert list((tmp_path / disk.TEMPORARY).iterdir()) == []


def test_a_folder_of_someone_else_is_a_clear_error(tmp_path: Path) -> None:
    """A user who may not write gets an error that says so (root drops to an ordinary user for it, as root may always write)."""
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o500)

    def become_ordinary() -> None:
        if os.geteuid() == 0:
            os.setuid(65534)

    assert "Permission denied; make the folder writable" in _refused(lambda: LocalStore(folder).put("k", b"1"), become_ordinary)
    folder.chmod(0o700)
    assert list(folder.iterdir()) == []


def test_a_file_in_place_of_a_folder_is_a_clear_error(tmp_path: Path) -> None:
    """A store whose path is a file, or below one, says so."""
    (tmp_path / "file").write_bytes(b"mine")
    for uri in (tmp_path / "file", tmp_path / "file" / "below"):
        store = open_store(Store(uri=str(uri)))
        for write in (lambda s=store: s.put("k", b"1"), store.work_dir, store.check):
            with pytest.raises(StoreUnavailable, match="a file stands where a folder is needed"):
                write()
        with pytest.raises(NoSuchObject):
            store.get("k")
    assert (tmp_path / "file").read_bytes() == b"mine"
