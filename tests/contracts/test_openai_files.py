"""Files that are too large for one request go to OpenAI in parts: once, whatever becomes of a request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from fixtures_stand_ins import StandIn, open_stand_in

from prooftune.errors import SpecError
from prooftune.providers import openai_files
from prooftune.sandbox import openai_uploads
from prooftune.sandbox.faults import Kind

OPERATIONS = ("list_files", "create_upload", "upload_part", "complete_upload", "get_file")
KINDS = tuple(kind for kind in get_args(Kind) if kind not in ("quota", "refuse", "status", "stale", "timeout_after", "duplicate"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """OpenAI's stand-in; a request brings no more than 1,500 bytes, a part 1,000."""
    monkeypatch.setattr("prooftune.providers.calls.time.sleep", lambda seconds: None)
    monkeypatch.setattr(openai_files, "DIRECT_BYTES", 1_500)
    monkeypatch.setattr(openai_files, "PART_BYTES", 1_000)
    with open_stand_in("openai", tmp_path, monkeypatch) as found:
        yield found


def test_a_large_file_arrives_whole_and_is_sent_once(here: StandIn) -> None:
    """Parts are put together in their order; the same rows again are found, and a job takes them."""
    rows = here.rows()
    order = here.order(rows)
    files = here.uploaded(rows, order)
    [stored] = here.api.files.files.values()
    assert (stored.content(), stored.filename) == (rows.read_bytes(), f"{order.key}-train.jsonl")
    [upload] = here.api.uploads.uploads.values()
    assert (upload.status, upload.size) == ("completed", rows.stat().st_size)
    assert here.uploaded(rows, order) == files
    assert len(here.api.uploads.uploads) == 1
    here.tuner.create(order, files)


def test_each_request_is_repeated_and_one_file_is_made(here: StandIn) -> None:
    """A lost answer to the last request makes no second file; one to a part makes a part that the file does not name."""
    rows, fired = here.rows(), 0
    for seed, (kind, operation) in enumerate((kind, operation) for kind in KINDS for operation in OPERATIONS):
        ordered = here.api.faults.order(kind, operation)
        here.uploaded(rows, here.order(rows, seed=seed))
        fired += ordered.fired or (kind, operation) == ("lost_id", "list_files")  # which has no id to leave out
        assert [file.content() for file in here.api.files.files.values()] == [rows.read_bytes()] * (seed + 1)
    assert fired == len(KINDS) * len(OPERATIONS)


def test_a_file_that_is_no_jsonl_is_refused_when_it_is_complete(here: StandIn) -> None:
    """The provider's own message names the line, and there is no file."""
    rows = here.rows()
    rows.write_bytes(rows.read_bytes() + b"[]\n")
    with pytest.raises(SpecError, match="Line 41 is not a dictionary"):
        here.uploaded(rows, here.order(rows))
    assert not here.api.files.files


def test_an_upload_that_took_too_long_is_begun_anew_by_the_next_run(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour after it began an upload is no more; nothing of it is kept."""
    rows = here.rows()
    monkeypatch.setattr(openai_uploads, "LIVES_S", -1)
    with pytest.raises(SpecError, match="is expired"):
        here.uploaded(rows, here.order(rows))
    monkeypatch.undo()
    here.uploaded(rows, here.order(rows))
    assert [file.content() for file in here.api.files.files.values()] == [rows.read_bytes()]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda sent: sent | {"part_ids": sent["part_ids"][::-1]}, "checksum"),
        (lambda sent: sent | {"part_ids": sent["part_ids"][1:]}, "were announced"),
        (lambda sent: sent | {"part_ids": ["part_of_another"]}, "the parts of this upload"),
        (lambda sent: sent | {"md5": "0" * 32}, "checksum"),
    ],
)
def test_the_stand_in_takes_no_other_parts(change: Any, told: str, here: StandIn) -> None:
    """Parts in another order, missing or unknown ones and another checksum make no file."""
    client, content = here.tuner.client, here.rows().read_bytes()
    upload = client.uploads.create(bytes=len(content), filename="x.jsonl", mime_type="text/jsonl", purpose="fine-tune")
    halves = (content[:700], content[700:])
    parts = [client.uploads.parts.create(upload.id, data=half).id for half in halves]
    sent = {"part_ids": parts, "md5": hashlib.md5(content, usedforsecurity=False).hexdigest()}
    with pytest.raises(Exception, match=told):
        client.uploads.complete(upload.id, **change(sent))
    assert client.uploads.complete(upload.id, **sent).file
    assert client.uploads.create(bytes=9, filename="y.jsonl", mime_type="text/jsonl", purpose="fine-tune").status == "pending"


@pytest.mark.slow
def test_more_than_half_a_gibibyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the API's own limits: what one request may not bring goes through in nine parts."""
    line = json.dumps({"messages": [{"role": "user", "content": "x" * 2**20}, {"role": "assistant", "content": "y"}]}).encode() + b"\n"
    rows = tmp_path / "rows.jsonl"
    with rows.open("wb") as file:
        for _ in range(520):
            file.write(line)
    with open_stand_in("openai", tmp_path, monkeypatch) as here:
        with pytest.raises(Exception, match="too large"), rows.open("rb") as file:
            here.tuner.client.files.create(file=file, purpose="fine-tune")
        name = here.tuner.upload(rows, "large", "train")
        stored = here.api.files.files[name]
        with rows.open("rb") as sent, stored.path.open("rb") as kept:
            assert hashlib.file_digest(sent, "sha256").digest() == hashlib.file_digest(kept, "sha256").digest()
        assert here.api.state()["files"] == 1
