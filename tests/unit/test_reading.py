"""Reading: every format and place becomes the same records, with right line numbers and figures."""

import csv
import gzip
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prooftune.data.lines import read_lines
from prooftune.data.reading import Limits, read_source
from prooftune.errors import DataError, StoreUnavailable, TransientError
from prooftune.types import Finding, Progress, Record

pytest_plugins = ["fixtures_s3"]

ROWS = [{"prompt": "Grüße, «Welt»", "completion": 'a "b"\nc'}, {"prompt": "two", "completion": "x,y;z\t"}]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty output folder, as a stage gets it."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def records(out: Path) -> list[Record]:
    """What was read."""
    return list(read_lines(out / "records.jsonl", Record))


def as_lines(rows: list[dict[str, str]]) -> bytes:
    """JSON lines."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def write_jsonl(path: Path) -> None:
    """JSON lines."""
    path.write_bytes(as_lines(ROWS))


def write_json(path: Path) -> None:
    """A JSON list over several lines."""
    path.write_text(json.dumps(ROWS, indent=2, ensure_ascii=False), encoding="utf-8")


def write_csv(path: Path, delimiter: str = ",") -> None:
    """A table with a header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["prompt", "completion"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)


def write_parquet(path: Path) -> None:
    """Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(ROWS), path)


def write_gz(path: Path) -> None:
    """JSON lines in gzip."""
    path.write_bytes(gzip.compress(as_lines(ROWS)))


def write_zst(path: Path) -> None:
    """JSON lines in Zstandard."""
    import pyarrow as pa

    path.write_bytes(pa.compress(as_lines(ROWS), "zstd", asbytes=True))


@pytest.mark.parametrize(
    ("name", "write", "lines"),
    [
        ("a.jsonl", write_jsonl, [1, 2]),
        ("a.ndjson", write_jsonl, [1, 2]),
        ("a.json", write_json, [2, 6]),
        ("lines.json", write_jsonl, [1, 2]),
        ("a.csv", write_csv, [2, 4]),
        ("semicolons.csv", lambda path: write_csv(path, ";"), [2, 4]),
        ("a.tsv", lambda path: write_csv(path, "\t"), [2, 4]),
        ("a.parquet", write_parquet, [1, 2]),
        ("a.jsonl.gz", write_gz, [1, 2]),
        ("a.JSONL.ZST", write_zst, [1, 2]),
    ],
)
def test_every_format_gives_the_same_fields(name: str, write: Callable[[Path], None], lines: list[int], tmp_path: Path, out: Path) -> None:
    """Fields are unchanged, and a row is named by the line it starts on (Parquet: its row)."""
    path = tmp_path / name
    write(path)
    figures = read_source(str(path), out)
    assert [record.fields for record in records(out)] == ROWS
    assert [record.source for record in records(out)] == [f"{name}:{line}" for line in lines]
    content = path.read_bytes()
    assert figures["rows"] == 2
    assert figures["files"] == [{"name": name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}]
    assert figures["bytes"] == len(content)


def test_plain_text_is_one_record_a_line(tmp_path: Path, out: Path) -> None:
    """Blank lines are skipped but counted; white space inside a line stays."""
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf one \r\n\r\ntwo")
    read_source(str(tmp_path / "a.txt"), out)
    assert [(record.source, record.fields) for record in records(out)] == [("a.txt:1", {"text": " one "}), ("a.txt:3", {"text": "two"})]


def test_a_folder_is_read_in_the_order_of_names_and_lists_what_it_ignores(tmp_path: Path, out: Path) -> None:
    """Subfolders count, hidden files do not, and text beside data files is taken for notes."""
    source = tmp_path / "data"
    (source / "sub").mkdir(parents=True)
    (source / ".git").mkdir()
    (source / ".git" / "x.jsonl").write_bytes(as_lines(ROWS))
    (source / "sub" / "b.jsonl").write_bytes(as_lines(ROWS[1:]))
    (source / "a.jsonl").write_bytes(as_lines(ROWS[:1]))
    (source / "empty.jsonl").touch()
    (source / "README.txt").write_text("notes")
    (source / "photo.png").write_bytes(b"x")
    figures = read_source(str(source), out)
    assert [record.source for record in records(out)] == ["a.jsonl:1", "sub/b.jsonl:1"]
    assert figures["ignored"] == ["README.txt (text beside data files)", "empty.jsonl (empty)", "photo.png (no data format)"]


def test_a_glob_reads_what_it_matches(tmp_path: Path, out: Path) -> None:
    """Names are relative to the part of the pattern that is fixed."""
    for name in ("train-1", "train-2", "test"):
        (tmp_path / f"{name}.jsonl").write_bytes(as_lines(ROWS[:1]))
    read_source(str(tmp_path / "train-*.jsonl"), out)
    assert [record.source for record in records(out)] == ["train-1.jsonl:1", "train-2.jsonl:1"]
    with pytest.raises(DataError, match="matches no file"):
        read_source(str(tmp_path / "*.csv"), out)


def test_the_digest_is_of_the_content_and_its_order(tmp_path: Path, out: Path) -> None:
    """The same bytes have the same digest in any folder; another row has another. The output is the same to the byte."""
    digests, outputs = [], []
    for name, rows in (("one", ROWS), ("two", ROWS), ("three", ROWS[:1])):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "a.jsonl").write_bytes(as_lines(rows))
        digests.append(read_source(str(folder), out)["source_sha256"])
        outputs.append((out / "records.jsonl").read_bytes())
    assert digests[0] == digests[1] != digests[2]
    assert outputs[0] == outputs[1]


def test_values_of_parquet_that_json_lacks_are_written_as_text_or_null(tmp_path: Path, out: Path) -> None:
    """Dates become ISO 8601, NaN becomes null."""
    import datetime

    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"day": [datetime.date(2026, 11, 22)], "score": [float("nan")], "tags": [["a"]]})
    pq.write_table(table, tmp_path / "a.parquet")
    read_source(str(tmp_path / "a.parquet"), out)
    assert records(out)[0].fields == {"day": "2026-11-22", "score": None, "tags": ["a"]}


def test_reading_reports_its_progress(tmp_path: Path, out: Path) -> None:
    """Progress is in bytes, never falls, and ends at the whole."""
    (tmp_path / "a.jsonl").write_bytes(as_lines(ROWS) * 25_000)
    seen: list[Progress] = []
    read_source(str(tmp_path / "a.jsonl"), out, report=seen.append)
    done = [progress.done for progress in seen]
    assert len(done) >= 3
    assert done == sorted(done)
    assert seen[-1].done == seen[-1].total == (tmp_path / "a.jsonl").stat().st_size


def test_long_elements_of_a_list_are_split_right_across_chunks(tmp_path: Path, out: Path) -> None:
    """Elements longer than the read buffer, full of brackets, quotes and escapes, come out whole."""
    rows = [{"text": ('[{"\\' + "x" * 7) * count} for count in (1, 60_000, 2, 50_001)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    read_source(str(tmp_path / "a.json"), out, limits=Limits(line_bytes=4 << 20))
    assert [record.fields for record in records(out)] == rows


def test_an_unreachable_hub_is_worth_another_try(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    """Without a network the real loader fails as transient."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(TransientError, match="hub cannot be reached"):
        read_source("hf://owner/name:train", out)


@pytest.mark.parametrize("source", ["hf://../../etc", "hf://owner", "hf://owner/..", "hf:///etc/passwd"])
def test_a_hub_name_is_never_a_path(source: str, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader takes a folder for a data set, so only names of the hub's form reach it, and none that is also a folder here."""
    with pytest.raises(DataError, match="hf://owner/name"):
        read_source(source, out)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    with pytest.raises(DataError, match="instead of the hub"):
        read_source("hf://owner/name", out)


def test_a_bucket_is_read_by_key_or_prefix(s3_server: Any, s3_uri: str, monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    """Keys below a prefix are files; a key that only starts alike is not one of them, and a name never becomes a path."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.endpoint)
    root = s3_uri.removeprefix(f"s3://{s3_server.bucket}/")
    for key in ("run/a.jsonl", "run/sub/..b\n.jsonl", "run-old/c.jsonl", "run/notes.md"):
        s3_server.client().put_object(Bucket=s3_server.bucket, Key=f"{root}/{key}", Body=as_lines(ROWS[:1]))
    figures = read_source(f"{s3_uri}/run", out)
    assert [record.source for record in records(out)] == ["a.jsonl:1", "sub/..b\\x0a.jsonl:1"]
    assert figures["ignored"] == ["notes.md (no data format)"]
    read_source(f"{s3_uri}/run/a.jsonl", out)
    assert [record.source for record in records(out)] == ["a.jsonl:1"]
    with pytest.raises(StoreUnavailable, match="404"):
        read_source("s3://nothing-here/run", out)
    with pytest.raises(DataError, match="no data files"):
        read_source(f"{s3_uri}/empty/", out)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-canary")
    with pytest.raises(StoreUnavailable, match="403") as caught:
        read_source(f"{s3_uri}/run", out)
    assert "canary" not in str(caught.value)


def test_an_unreachable_bucket_is_worth_another_try(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    """A refused connection is transient."""
    for key, value in {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "REGION": "us-east-1", "MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(f"AWS_{key}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(TransientError, match="no full answer"):
        read_source("s3://data/run", out)


def test_findings_and_records_end_in_line_feeds_only(tmp_path: Path, out: Path) -> None:
    """Both files are JSON lines of our types, whatever line ends the source has."""
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\r\n[]\r\n')
    read_source(str(tmp_path / "a.jsonl"), out, on_invalid="skip")
    assert (out / "records.jsonl").read_bytes() == b'{"source":"a.jsonl:1","fields":{"a":1}}\n'
    (finding,) = read_lines(out / "problems.jsonl", Finding)
    assert (finding.where, finding.code, finding.action) == ("a.jsonl:2", "wrong-type", "dropped")
    assert os.linesep.encode() == b"\n" or b"\r" not in (out / "problems.jsonl").read_bytes()
