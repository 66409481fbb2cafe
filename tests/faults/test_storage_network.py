"""S3 over a bad network and with bad credentials: a proxy between boto3 and the real server misbehaves on order, and counts how often."""

from __future__ import annotations

import socket
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

from prooftune.errors import IntegrityError, ProoftuneError, StoreUnavailable, TransientError
from prooftune.spec import Store
from prooftune.storage.objects import AlreadyThere, ObjectStore, VersionChanged, open_store
from prooftune.storage.registry import read_registry, register
from prooftune.storage.s3 import S3Store
from prooftune.types import ArtifactRef, Decision

pytest_plugins = ["fixtures_s3", "fixtures_s3_proxy"]
MIB = 1 << 20
ATTEMPTS = 4
"""Tries of one request by the SDK, as the store sets it."""


@pytest.fixture
def store(s3_proxy: Any, s3_uri: str) -> S3Store:
    """A new store behind the proxy, with small parts and little patience."""
    bucket, prefix = s3_uri.removeprefix("s3://").split("/", 1)
    return S3Store(bucket, prefix, f"http://127.0.0.1:{s3_proxy.port}", part_size=5 * MIB, timeout=1.0)


@pytest.fixture
def direct(s3_server: Any, s3_uri: str) -> ObjectStore:
    """The same store, past the proxy."""
    return open_store(Store(uri=s3_uri, endpoint_url=s3_server.endpoint))


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A file of three parts."""
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(bytes(range(256)) * (11 * MIB // 256))
    return path


def _unfinished(s3_server: Any, s3_uri: str) -> list[Any]:
    bucket, prefix = s3_uri.removeprefix("s3://").split("/", 1)
    return s3_server.client().list_multipart_uploads(Bucket=bucket, Prefix=prefix).get("Uploads", [])


@pytest.mark.parametrize("fault", ["503", "reset", "stall"])
def test_a_passing_fault_is_ridden_out(store: S3Store, s3_proxy: Any, big: Path, fault: str) -> None:
    """Two failures of part uploads are retried, and the file arrives whole."""
    s3_proxy.order(fault, 2, containing="partNumber")
    ref = store.upload(big, "big")
    assert s3_proxy.fired == {fault: 2}
    assert store.measure("big") == ref


@pytest.mark.parametrize("fault", ["503", "reset"])
def test_a_lasting_fault_is_transient_and_leaves_no_parts(
    store: S3Store, direct: ObjectStore, s3_proxy: Any, big: Path, s3_server: Any, s3_uri: str, fault: str
) -> None:
    """Tries are bounded; then the error is one to retry later, nothing is visible and no part is left. Later it goes through."""
    s3_proxy.order(fault, containing="partNumber")
    with pytest.raises(TransientError, match="try again"):
        store.upload(big, "big")
    assert ATTEMPTS <= s3_proxy.fired[fault] <= 3 * ATTEMPTS
    assert not direct.exists("big")
    assert _unfinished(s3_server, s3_uri) == []
    s3_proxy.faults.clear()
    assert store.upload(big, "big") == direct.measure("big")


def test_a_server_that_never_answers_is_given_up(store: S3Store, s3_proxy: Any) -> None:
    """A stalled request ends in a transient error after the bounded tries, each with its own time-out."""
    s3_proxy.order("stall", method="GET")
    start = time.monotonic()
    with pytest.raises(TransientError, match="ReadTimeoutError"):
        store.get("k")
    assert s3_proxy.fired == {"stall": ATTEMPTS}
    assert time.monotonic() - start < 20


def test_an_answer_cut_short_is_not_taken_for_whole(store: S3Store, direct: ObjectStore, s3_proxy: Any, big: Path) -> None:
    """A download that ends early is a transient error and leaves nothing in the cache; the next try has every byte."""
    ref = direct.upload(big, "big")
    s3_proxy.order("cut answer", 1, method="GET")
    with pytest.raises(TransientError):
        store.fetch(ref)
    assert s3_proxy.fired == {"cut answer": 1}
    assert not any(path.is_file() for path in store.work_dir().parent.rglob("*"))
    assert store.fetch(ref).read_bytes() == big.read_bytes()


def test_bytes_damaged_on_the_way_are_not_stored(store: S3Store, direct: ObjectStore, s3_proxy: Any, big: Path) -> None:
    """The server refuses a part whose checksum does not fit; nothing is visible, and the next try goes through."""
    s3_proxy.order("corrupt", containing="partNumber=2")
    with pytest.raises(TransientError):
        store.upload(big, "big")
    assert s3_proxy.fired["corrupt"] >= 1
    assert not direct.exists("big")
    s3_proxy.faults.clear()
    assert store.upload(big, "big") == direct.measure("big")


def test_a_won_race_whose_answer_got_lost_is_won(store: S3Store, direct: ObjectStore, s3_proxy: Any) -> None:
    """The SDK's retry meets the object of its own first try: that is a success, while a real loss stays a loss."""
    store.check()
    s3_proxy.order("lose answer", 1, containing="/lease")
    version = store.put("lease", b"mine", if_absent=True)
    assert s3_proxy.fired == {"lose answer": 1}
    s3_proxy.order("lose answer", 1, containing="/lease")
    assert store.put("lease", b"mine again", if_match=version) == direct.version("lease")
    assert s3_proxy.fired == {"lose answer": 2}
    direct.put("lease", b"theirs")
    with pytest.raises(AlreadyThere):
        store.put("lease", b"mine", if_absent=True)
    with pytest.raises(VersionChanged):
        store.put("lease", b"mine", if_match=version)
    assert direct.get("lease") == b"theirs"


def test_a_registration_whose_answers_got_lost_counts_once(store: S3Store, direct: ObjectStore, s3_proxy: Any) -> None:
    """When every answer is lost, the document itself says that the run is registered; trying again adds nothing."""
    manifest, decision = ArtifactRef(key="m", sha256="0" * 64, size=1), Decision(verdict="promote", reasons=("because",))
    store.check()
    s3_proxy.order("lose answer", ATTEMPTS, method="PUT", containing="/registry/")
    for _ in range(2):
        register(store, "triage", "run-1", manifest, decision)
        assert [entry["run_id"] for entry in read_registry(direct, "triage")["history"]] == ["run-1"]
    assert s3_proxy.fired == {"lose answer": ATTEMPTS}


def test_a_completed_upload_whose_answer_got_lost_is_found(store: S3Store, direct: ObjectStore, s3_proxy: Any, big: Path) -> None:
    """The last request of a multipart upload takes effect and its answer is lost: at the latest the next try finds the object whole."""
    s3_proxy.order("lose answer", 1, method="POST", containing="uploadId=")
    try:
        ref = store.upload(big, "big")
    except TransientError:
        ref = store.upload(big, "big")
    assert s3_proxy.fired == {"lose answer": 1}
    assert direct.measure("big") == ref


@pytest.mark.parametrize("condition", ["If-None-Match", "If-Match"])
def test_a_server_that_ignores_conditions_is_refused(store: S3Store, direct: ObjectStore, s3_proxy: Any, condition: str) -> None:
    """Before the first conditional write the server is probed: one that would let two runs overwrite each other is not used."""
    direct.put("lease", b"first")
    s3_proxy.order("ignore condition", header=(condition, ""))
    for write in (store.check, lambda: store.put("lease", b"second", if_absent=True), lambda: store.put("lease", b"2", if_match='"x"')):
        with pytest.raises(StoreUnavailable, match="ignores them"):
            write()
    assert s3_proxy.fired["ignore condition"] >= 3
    assert direct.get("lease") == b"first"


def test_a_server_without_checksums_is_read_back(store: S3Store, s3_proxy: Any, big: Path) -> None:
    """Where the server keeps no checksum, what it stored is verified by reading all of it."""
    s3_proxy.order("set answer header", method="HEAD", header=("x-amz-checksum-sha256", ""))
    s3_proxy.order("cut answer", 1, method="GET", containing="/big")
    with pytest.raises(TransientError):
        store.upload(big, "big")
    assert s3_proxy.fired["cut answer"] == 1


def test_a_server_that_stored_other_bytes_is_caught(store: S3Store, direct: ObjectStore, s3_proxy: Any, big: Path) -> None:
    """A checksum other than the file's, after an upload, is an integrity error, and the object does not stay."""
    s3_proxy.order("set answer header", method="HEAD", header=("x-amz-checksum-sha256", "AAAA-3"))
    with pytest.raises(IntegrityError, match="other bytes than were sent"):
        store.upload(big, "big")
    assert s3_proxy.fired["set answer header"] >= 1
    assert not direct.exists("big")


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "canary-secret"}, "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "canary-secret"}, "AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "AWS_ACCESS_KEY_ID"),
        ({"AWS_PROFILE": "nobody"}, "AWS_PROFILE"),
    ],
    ids=["wrong secret", "unknown key", "no credentials", "unknown profile"],
)
def test_wrong_credentials_say_what_to_set(
    s3_uri: str, s3_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], advice: str
) -> None:
    """Reading, writing and uploading with wrong credentials name the variables to set, and show no key in message or traceback."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
        if not value:
            monkeypatch.delenv(name)
    store = open_store(Store(uri=s3_uri, endpoint_url=s3_server.endpoint))
    (tmp_path / "file").write_bytes(b"1")
    for call in (lambda: store.get("k"), lambda: store.put("k", b"1"), store.check, lambda: list(store.list())):
        with pytest.raises(StoreUnavailable, match=advice) as caught:
            call()
        assert "canary" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(StoreUnavailable, match=r"credentials|AWS_"):
        store.upload(tmp_path / "file", "k")


@pytest.mark.usefixtures("s3_environment")
def test_an_unknown_bucket_is_not_a_missing_object(s3_server: Any, tmp_path: Path) -> None:
    """Every method says that the bucket is not there, also those for which a missing object is no error."""
    store = open_store(Store(uri="s3://no-such-bucket/x", endpoint_url=s3_server.endpoint))
    (tmp_path / "file").write_bytes(b"1")
    calls = [
        lambda: store.get("k"),
        lambda: store.put("k", b"1"),
        lambda: store.version("k"),
        lambda: store.exists("k"),
        lambda: list(store.list()),
        lambda: store.upload(tmp_path / "file", "k"),
        store.check,
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match="no such bucket; create it"):
            call()


@pytest.mark.usefixtures("s3_environment")
def test_an_unreachable_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """No one listening is a transient error with the address, which AWS_ENDPOINT_URL may have set; exit code 3."""
    with socket.socket() as taken:  # bound and not listening: a connection is refused
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(TransientError, match=endpoint) as caught:
            open_store(Store(uri="s3://bucket/x")).get("k")
    assert isinstance(caught.value, ProoftuneError)
    assert caught.value.exit_code == 3
