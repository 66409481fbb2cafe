"""Manifests and the registry, on a local store."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prooftune.errors import IntegrityError, TransientError
from prooftune.storage.local import LocalStore
from prooftune.storage.manifest import list_runs, publish, read_manifest, verify_manifest
from prooftune.storage.objects import InvalidKey, NoSuchObject
from prooftune.storage.registry import read_registry, register
from prooftune.types import ArtifactRef, Decision, Verdict

FORK = multiprocessing.get_context("fork")
AT_ONCE = FORK.Barrier(8)
MANIFEST = ArtifactRef(key="runs/r/manifest.json", sha256="0" * 64, size=1)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The local files of a run."""
    contents = {"adapter/adapter_config.json": b"{}", "adapter/adapter_model.safetensors": b"\0" * 5000, "report.html": b"<html>"}
    for name, data in contents.items():
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return {name: tmp_path / "out" / name for name in contents}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty store."""
    return LocalStore(tmp_path / "store")


def test_a_published_run_can_be_read_fetched_and_verified(store: LocalStore, files: dict[str, Path]) -> None:
    """The manifest lists every file with size and digest, and a folder's files are fetched into one folder."""
    ref = publish(store, "run-1", files, {"verdict": "promote"})
    manifest = read_manifest(store, "run-1")
    assert store.measure("runs/run-1/manifest.json") == ref
    assert (list(manifest.files), manifest.facts) == (sorted(files), {"verdict": "promote"})
    adapter = {store.fetch(manifest.files[name]).parent for name in files if name.startswith("adapter/")}
    assert [sorted(path.name for path in folder.iterdir()) for folder in adapter] == [["adapter_config.json", "adapter_model.safetensors"]]
    assert verify_manifest(store, "run-1") == []
    assert list(list_runs(store)) == ["run-1"]


def test_publishing_again_changes_nothing(store: LocalStore, files: dict[str, Path]) -> None:
    """The same run published twice is the same manifest, and no file is written again."""
    first = publish(store, "run-1", files, {})
    before = {key: (store.root / key).stat().st_mtime_ns for key in store.list()}
    assert publish(store, "run-1", files, {}) == first
    assert {key: (store.root / key).stat().st_mtime_ns for key in store.list()} == before


def test_the_first_manifest_of_a_run_stays(store: LocalStore, files: dict[str, Path]) -> None:
    """A second publication with another report leaves the first one whole, and refers to it."""
    first = publish(store, "run-1", files, {"seconds": 1})
    files["report.html"].write_bytes(b"<html>later")
    assert publish(store, "run-1", files, {"seconds": 2}) == first
    assert read_manifest(store, "run-1").facts == {"seconds": 1}
    assert verify_manifest(store, "run-1") == []


def test_a_run_in_parts_is_not_published(store: LocalStore, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """When the last file fails to upload there is no manifest and no run; publishing again completes it."""
    real = store.upload

    def upload(path: Path, key: str) -> ArtifactRef:
        if key.endswith("report.html"):
            raise TransientError("the connection broke")
        return real(path, key)

    monkeypatch.setattr(store, "upload", upload)
    with pytest.raises(TransientError):
        publish(store, "run-1", files, {})
    assert len(list(store.list("runs/run-1/"))) == 2
    assert list(list_runs(store)) == []
    with pytest.raises(NoSuchObject):
        read_manifest(store, "run-1")
    monkeypatch.undo()
    publish(store, "run-1", files, {})
    assert verify_manifest(store, "run-1") == []


def test_verification_finds_lost_and_damaged_files(store: LocalStore, files: dict[str, Path]) -> None:
    """A missing file and one with a flipped bit are both found, by name, and publishing again heals them."""
    publish(store, "run-1", files, {})
    refs = read_manifest(store, "run-1").files
    (store.root / refs["report.html"].key).unlink()
    weights = store.root / refs["adapter/adapter_model.safetensors"].key
    weights.write_bytes(b"\1" + weights.read_bytes()[1:])
    found = verify_manifest(store, "run-1")
    assert [(problem.where, problem.code) for problem in found] == [
        ("adapter/adapter_model.safetensors", "damaged-file"),
        ("report.html", "missing-file"),
    ]
    publish(store, "run-1", files, {})
    assert verify_manifest(store, "run-1") == []


def test_a_damaged_manifest_is_an_integrity_error(store: LocalStore) -> None:
    """A manifest that is cut short, or belongs to another run, is refused."""
    store.put("runs/run-1/manifest.json", b'{"format": 1, "run')
    with pytest.raises(IntegrityError, match="not a manifest"):
        read_manifest(store, "run-1")
    other = {"run_id": "run-2", "prooftune": "0", "files": {}, "facts": {}}
    store.put("runs/run-1/manifest.json", json.dumps(other).encode())
    with pytest.raises(IntegrityError, match="run-2"):
        read_manifest(store, "run-1")


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", ".x", "a b"])
def test_names_of_files_are_checked(store: LocalStore, files: dict[str, Path], name: str) -> None:
    """A name that is no key is refused and nothing is published."""
    with pytest.raises(InvalidKey):
        publish(store, "run-1", {name: files["report.html"]}, {})
    with pytest.raises(InvalidKey):
        publish(store, name, files, {})
    assert list(list_runs(store)) == []


def _decision(verdict: Verdict) -> Decision:
    return Decision(verdict=verdict, reasons=("because",))


@settings(max_examples=20, deadline=None)
@given(verdicts=st.lists(st.sampled_from(["promote", "keep_baseline", "inconclusive", "do_not_fine_tune"]), max_size=5))
def test_the_champion_is_the_last_promoted_run(tmp_path_factory: pytest.TempPathFactory, verdicts: list[Verdict]) -> None:
    """For any sequence of verdicts, registered twice each: the history has all, in order, and the champion is the last promoted."""
    store = LocalStore(tmp_path_factory.mktemp("store"))
    for number, verdict in enumerate(verdicts):
        once = register(store, "triage", f"run-{number}", MANIFEST, _decision(verdict))
        assert register(store, "triage", f"run-{number}", MANIFEST, _decision(verdict)) == once
    registry = read_registry(store, "triage")
    promoted = [f"run-{number}" for number, verdict in enumerate(verdicts) if verdict == "promote"]
    assert registry["champion"] == (promoted[-1] if promoted else None)
    assert [entry["run_id"] for entry in registry["history"]] == [f"run-{number}" for number in range(len(verdicts))]
    before = [entry["champion_before"] for entry in registry["history"] if entry["decision"]["verdict"] == "promote"]
    assert before == [None, *promoted][: len(promoted)]


def _register_three(store: LocalStore, me: int) -> None:
    AT_ONCE.wait(30)
    for number in range(3):
        register(store, "triage", f"run-{me}-{number}", MANIFEST, _decision("promote"))


def test_eight_processes_lose_no_run(store: LocalStore) -> None:
    """Eight processes registering three runs each at once: all 24 are in the history, each once, in an unbroken line of champions."""
    with FORK.Pool(8) as pool:
        pool.starmap(_register_three, [(store, me) for me in range(8)], chunksize=1)
    registry = read_registry(store, "triage")
    runs = [entry["run_id"] for entry in registry["history"]]
    assert sorted(runs) == sorted(f"run-{me}-{number}" for me in range(8) for number in range(3))
    assert [entry["champion_before"] for entry in registry["history"]] == [None, *runs[:-1]]
    assert registry["champion"] == runs[-1]


def test_a_damaged_registry_is_never_overwritten(store: LocalStore) -> None:
    """A registry that cannot be read stops the registration instead of starting a new one."""
    store.put("registry/triage.json", b"{")
    with pytest.raises(IntegrityError, match="restore it"):
        register(store, "triage", "run-1", MANIFEST, _decision("promote"))
    assert store.get("registry/triage.json") == b"{"


def test_task_names_are_checked(store: LocalStore) -> None:
    """Only a name that the spec would allow reaches a key."""
    with pytest.raises(InvalidKey):
        read_registry(store, "../../etc/passwd")
