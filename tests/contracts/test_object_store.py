"""What every object store promises, asked of the local folder and of a real S3 server alike."""

from __future__ import annotations

import hashlib
import multiprocessing
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from prooftune.errors import IntegrityError
from prooftune.spec import Store
from prooftune.storage.objects import AlreadyThere, InvalidKey, NoSuchObject, ObjectStore, VersionChanged, open_store
from prooftune.types import ArtifactRef

Opener = Callable[[], ObjectStore]
BAD_KEYS = (
    "",
    "/etc/passwd",
    "../x",
    "a/../../x",
    "a//b",
    "a/",
    ".hidden",
    "a/.tmp",
    "a\\b",
    "a\0b",
    "a\nb",
    "ä",
    "a b",
    "work/x",
    "x" * 701,
)
pytest_plugins = ["fixtures_s3"]
FORK = multiprocessing.get_context("fork")
AT_ONCE = FORK.Barrier(6)


@pytest.fixture(params=["local", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Where a new, empty store is."""
    if request.param == "local":
        return Store(uri=str(tmp_path / "store"))
    return Store(uri=request.getfixturevalue("s3_uri") + "/deeper", endpoint_url=request.getfixturevalue("s3_server").endpoint)


@pytest.fixture
def store(address: Store) -> ObjectStore:
    """A new, empty store."""
    return open_store(address)


def test_what_was_put_is_read_back(store: ObjectStore) -> None:
    """Bytes come back as they went in, a second put replaces the first, and the version changes with the content."""
    first = store.put("a/b.json", b"one")
    assert (store.get("a/b.json"), store.version("a/b.json")) == (b"one", first)
    second = store.put("a/b.json", b"")
    assert (store.get("a/b.json"), store.version("a/b.json")) == (b"", second)
    assert first != second


def test_a_missing_object_is_named_and_pickles(store: ObjectStore) -> None:
    """Reading what is not there says which key and what to do, in an error that another process can load."""
    with pytest.raises(NoSuchObject, match=r"holds nothing under 'a/none'.*run the command again") as caught:
        store.get("a/none")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 - our own bytes
    for read in (store.measure, lambda key: store.fetch(ArtifactRef(key=key, sha256="0" * 64, size=1))):
        with pytest.raises(NoSuchObject):
            read("a/none")
    assert store.version("a/none") is None
    assert not store.exists("a/none")


def test_create_if_absent_keeps_the_first(store: ObjectStore) -> None:
    """The second create is refused and changes nothing."""
    store.put("lease", b"first", if_absent=True)
    with pytest.raises(AlreadyThere, match="'lease' already"):
        store.put("lease", b"second", if_absent=True)
    assert store.get("lease") == b"first"


def test_compare_and_swap_refuses_a_stale_version(store: ObjectStore) -> None:
    """A swap against the version that was read goes through, one against an older version or a missing object does not."""
    old = store.put("doc", b"1")
    new = store.put("doc", b"2", if_match=old)
    with pytest.raises(VersionChanged, match="read it again"):
        store.put("doc", b"3", if_match=old)
    assert (store.get("doc"), store.version("doc")) == (b"2", new)
    store.delete("doc")
    with pytest.raises(VersionChanged):
        store.put("doc", b"4", if_match=new)
    assert not store.exists("doc")


def test_keys_are_listed_in_order(store: ObjectStore) -> None:
    """Listing filters by a prefix that may end inside a name, and sorts by code point whatever the server's order is."""
    keys = ["q/a.b", "q/a/b", "q/a-b", "q/ab", "r/x", "Q"]
    for key in keys:
        store.put(key, b"1")
    assert list(store.list()) == sorted(keys)
    assert list(store.list("q/")) == sorted(key for key in keys if key.startswith("q/"))
    assert list(store.list("q/a")) == sorted(key for key in keys if key.startswith("q/a"))
    assert list(store.list("none/")) == []


def test_delete_can_be_repeated(store: ObjectStore) -> None:
    """Deleting removes the object, and what is not there is not an error."""
    store.put("x/y", b"1")
    store.delete("x/y")
    store.delete("x/y")
    assert (store.exists("x/y"), list(store.list())) == (False, [])


@pytest.mark.parametrize("key", BAD_KEYS)
def test_bad_keys_go_nowhere(store: ObjectStore, key: str, tmp_path: Path) -> None:
    """No method takes a name that could leave the store or collide with its own files."""
    file = tmp_path / "file"
    file.write_bytes(b"x")
    calls: list[Callable[[], object]] = [
        lambda: store.get(key),
        lambda: store.put(key, b"x"),
        lambda: store.version(key),
        lambda: store.exists(key),
        lambda: store.delete(key),
        lambda: store.upload(file, key),
        lambda: store.measure(key),
        lambda: store.fetch(ArtifactRef(key=key, sha256="0" * 64, size=1)),
    ]
    for call in calls:
        with pytest.raises(InvalidKey, match="cannot be a key"):
            call()


@pytest.mark.parametrize("size", [0, 1, 20_000_003], ids=["empty", "one byte", "two parts"])
def test_uploads_are_whole_and_come_back(store: ObjectStore, tmp_path: Path, size: int) -> None:
    """A file of any size arrives with its size and SHA-256, and a fetched copy lies under its own name."""
    file = tmp_path / "weights.bin"
    file.write_bytes((b"0123456789abcdef" * (size // 16 + 1))[:size])
    ref = store.upload(file, "runs/r/adapter/weights.bin")
    expected = ArtifactRef(key="runs/r/adapter/weights.bin", sha256=hashlib.sha256(file.read_bytes()).hexdigest(), size=size)
    assert ref == expected == store.measure(ref.key)
    fetched = store.fetch(ref)
    assert fetched.read_bytes() == file.read_bytes()
    assert (fetched.name, fetched.parent.name) == ("weights.bin", "adapter")
    assert store.fetch(ref) == fetched


def test_same_content_is_not_sent_again(store: ObjectStore, tmp_path: Path) -> None:
    """An upload of what is there already leaves the object's version as it is; other content replaces it."""
    file = tmp_path / "file"
    file.write_bytes(b"one")
    first = store.upload(file, "k")
    version = store.version("k")
    assert store.upload(file, "k") == first
    assert store.version("k") == version
    file.write_bytes(b"two")
    assert store.measure(store.upload(file, "k").key).sha256 == hashlib.sha256(b"two").hexdigest()


def test_changed_bytes_are_never_handed_out(store: ObjectStore, tmp_path: Path) -> None:
    """An object that is no longer what its reference says is refused, with the key and both digests."""
    file = tmp_path / "file"
    file.write_bytes(b"sealed")
    ref = store.upload(file, "holdout.jsonl")
    store.put("holdout.jsonl", b"other!")
    with pytest.raises(IntegrityError, match=r"holdout\.jsonl") as caught:
        store.fetch(ref)
    assert ref.sha256 in str(caught.value)
    assert hashlib.sha256(b"other!").hexdigest() in str(caught.value)


def test_work_dir_is_shared_and_apart(store: ObjectStore, address: Store) -> None:
    """Every opening of a store has the same working folder, and what lies in it is not an object."""
    folder = store.work_dir()
    (folder / "half-done").write_bytes(b"x")
    assert open_store(address).work_dir() == folder
    assert list(store.list()) == []


def test_check_leaves_nothing_to_see(store: ObjectStore) -> None:
    """Proving that the store works, twice, leaves no object behind."""
    store.check()
    store.check()
    assert list(store.list()) == []


def _create(address: Store, me: int) -> str:
    store = open_store(address)
    store.exists("contested")  # connected, before the race starts
    AT_ONCE.wait(30)
    try:
        store.put("contested", str(me).encode(), if_absent=True)
    except AlreadyThere:
        return "too late"
    return "won"


def _count_up(address: Store, rounds: int) -> int:
    store, lost = open_store(address), 0
    while rounds:
        version = store.version("counter")
        try:
            store.put("counter", str(int(store.get("counter")) + 1).encode(), if_match=version)
            rounds -= 1
        except VersionChanged:
            lost += 1
    return lost


def test_one_of_many_processes_creates(address: Store) -> None:
    """Of six processes that create the same key at once, one wins and its content stays."""
    with FORK.Pool(6) as pool:
        outcomes = pool.starmap(_create, [(address, me) for me in range(6)], chunksize=1)
    assert sorted(outcomes) == ["too late"] * 5 + ["won"]
    assert open_store(address).get("contested") == str(outcomes.index("won")).encode()


def test_no_increment_is_lost(address: Store) -> None:
    """Four processes counting up by compare-and-swap reach the sum of what they counted, and did collide on the way."""
    open_store(address).put("counter", b"0")
    with FORK.Pool(4) as pool:
        lost = pool.starmap(_count_up, [(address, 25)] * 4, chunksize=1)
    assert open_store(address).get("counter") == b"100"
    assert sum(lost) > 0


def test_two_files_of_the_library_import_the_sdk() -> None:
    """What AWS's library raises and wants is known in one place for S3 and in one for Bedrock; the report only shows code that does."""
    library = Path(open_store.__code__.co_filename).parents[1]
    sdk = re.compile(r"^\s*(?:from|import) boto(?:3|core)", re.MULTILINE)
    importing = sorted(path.relative_to(library).as_posix() for path in library.rglob("*.py") if sdk.search(path.read_text()))
    assert importing == ["providers/bedrock_connection.py", "report/asking.py", "storage/s3_client.py"]
