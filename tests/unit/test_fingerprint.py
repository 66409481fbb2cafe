"""The fingerprint changes when the source does, and only then."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from prooftune.data.fingerprint import fingerprint_source
from prooftune.data.reading import read_source
from prooftune.errors import DataError, ProoftuneError, StoreUnavailable, TransientError

pytest_plugins = ["fixtures_s3", "fixtures_s3_proxy"]
ROW = b'{"prompt": "q", "completion": "a"}\n'


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with two data files and notes."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(ROW)
    (folder / "b.jsonl").write_bytes(ROW * 2)
    (folder / "README.md").write_bytes(b"notes")
    return folder


def test_equal_content_has_an_equal_fingerprint_anywhere(source: Path, tmp_path: Path) -> None:
    """Neither the folder's place and name nor a file's time counts, nor what is no data."""
    before = fingerprint_source(str(source))
    os.utime(source / "a.jsonl", (0, 0))
    (source / "README.md").write_bytes(b"other notes")
    moved = source.rename(tmp_path / "moved")
    assert fingerprint_source(str(moved)) == before
    assert len(before) == 64


@pytest.mark.parametrize("change", ["a byte", "a name", "one more", "one fewer", "swapped"])
def test_any_change_of_the_data_changes_it(source: Path, change: str) -> None:
    """Contents, names, and which name has which content count."""
    before = fingerprint_source(str(source))
    if change == "a byte":
        (source / "a.jsonl").write_bytes(ROW.replace(b"q", b"Q"))
    elif change == "a name":
        (source / "a.jsonl").rename(source / "c.jsonl")
    elif change == "one more":
        (source / "c.jsonl").write_bytes(ROW)
    elif change == "one fewer":
        (source / "b.jsonl").unlink()
    else:
        (source / "a.jsonl").rename(source / "c")
        (source / "b.jsonl").rename(source / "a.jsonl")
        (source / "c").rename(source / "b.jsonl")
    assert fingerprint_source(str(source)) != before


def test_a_compressed_file_counts_as_it_lies_there(tmp_path: Path) -> None:
    """Nothing is parsed or expanded: damaged data have a fingerprint too, and ingest reports the damage."""
    (tmp_path / "a.jsonl.gz").write_bytes(b"no gzip at all")
    assert fingerprint_source(str(tmp_path))
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="compressed data are damaged"):
        read_source(str(tmp_path / "a.jsonl.gz"), tmp_path / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_left_to_ingest(source: Path) -> None:
    """A file without read permission has a fingerprint, which changes when it can be read again."""
    (source / "a.jsonl").chmod(0)
    before = fingerprint_source(str(source))
    (source / "a.jsonl").chmod(0o600)
    assert fingerprint_source(str(source)) != before


def test_a_source_without_data_is_an_error(tmp_path: Path) -> None:
    """A fingerprint of nothing would make two empty sources the same."""
    with pytest.raises(DataError, match="no data files"):
        fingerprint_source(str(tmp_path))
    with pytest.raises(DataError, match="there is no such file"):
        fingerprint_source(str(tmp_path / "none.jsonl"))


def test_a_bucket_has_the_fingerprint_of_its_contents(s3_server: Any, s3_uri: str, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same files in a folder and in a bucket are the same source."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.endpoint)
    prefix = s3_uri.removeprefix(f"s3://{s3_server.bucket}/")
    for path in source.iterdir():
        s3_server.client().put_object(Bucket=s3_server.bucket, Key=f"{prefix}/{path.name}", Body=path.read_bytes())
    assert fingerprint_source(s3_uri) == fingerprint_source(str(source))


def test_a_file_of_a_bucket_that_does_not_come_is_worth_another_try(
    s3_proxy: Any, s3_server: Any, s3_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost answer is the network's fault, neither the data's nor a new fingerprint; the next try reads the file."""
    key = s3_uri.removeprefix(f"s3://{s3_server.bucket}/") + "/a.jsonl"
    s3_server.client().put_object(Bucket=s3_server.bucket, Key=key, Body=ROW)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{s3_proxy.port}")
    for work in (fingerprint_source, lambda uri: read_source(uri, tmp_path)):
        s3_proxy.order("cut answer", 1, method="GET", containing="/a.jsonl")
        with pytest.raises(TransientError, match="no full answer"):
            work(s3_uri)
        work(s3_uri)
    assert s3_proxy.fired == {"cut answer": 2}


def test_a_full_disk_is_not_the_bucket_files_fault(s3_server: Any, s3_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that the disk has no room for names the disk, in an error of the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.endpoint)
    key = s3_uri.removeprefix(f"s3://{s3_server.bucket}/") + "/a.jsonl"
    s3_server.client().put_object(Bucket=s3_server.bucket, Key=key, Body=ROW * 10_000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(StoreUnavailable, match=r"cannot copy a\.jsonl in .*ulimit -f"):
            fingerprint_source(s3_uri)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [
        ("localhost:9000", StoreUnavailable, "the endpoint is no address"),
        ("http://u:canary@127.0.0.1:9", TransientError, "127.0.0.1:9"),
    ],
)
@pytest.mark.usefixtures("s3_environment")
def test_a_wrong_endpoint_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch, address: str, error: type[ProoftuneError], said: str
) -> None:
    """The message names the address, or says how one looks, and never what stands before the @."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
    with pytest.raises(error, match=said) as caught:
        fingerprint_source("s3://bucket/x")
    assert "canary" not in str(caught.value)


@contextlib.contextmanager
def _hub(answer: tuple[int, dict[str, str], str] | None) -> Iterator[str]:
    """The address of a server that gives one answer to everything; None = of one that is gone."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert answer
            content = json.dumps(answer[1]).encode()
            self.send_response(answer[0])
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Type", "application/json")
            if answer[2]:
                self.send_header("X-Error-Code", answer[2])
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        if answer:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        else:
            server.server_close()
        yield f"http://127.0.0.1:{server.server_port}"
        if answer:
            server.shutdown()


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        ((200, {"id": "owner/name", "sha": "a" * 40}, ""), None, ""),
        ((404, {}, "RepoNotFound"), DataError, "the hub has no data set owner/name"),
        ((500, {}, ""), TransientError, "the hub answered 500"),
        (None, TransientError, "the hub cannot be reached"),
    ],
    ids=["found", "missing", "broken", "unreachable"],
)
def test_a_hub_data_set_has_the_fingerprint_of_its_commit(
    answer: tuple[int, dict[str, str], str] | None, error: type[ProoftuneError] | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is asked for the commit alone; what it refuses is told apart from what may work later."""
    import huggingface_hub.constants

    with _hub(answer) as endpoint:
        monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", endpoint)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        if error is None:
            assert fingerprint_source("hf://owner/name:train") != fingerprint_source("hf://owner/name:test")
        else:
            with pytest.raises(error, match=said):
                fingerprint_source("hf://owner/name")


def test_a_name_that_the_hub_cannot_have_never_reaches_it() -> None:
    """Only names of the hub's form are asked for."""
    with pytest.raises(DataError, match="not of the form hf://owner/name"):
        fingerprint_source("hf://../../etc")
