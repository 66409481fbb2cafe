"""Bad input: file, line and reason for each, all collected, never a traceback, never without bound."""

import contextlib
import gzip
import json
import os
import resource
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prooftune.data.lines import read_lines
from prooftune.data.reading import Limits, read_source
from prooftune.errors import DataError
from prooftune.types import Finding, Record

GOOD = b'{"prompt": "q", "completion": "a"}'


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty output folder, as a stage gets it."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def findings(out: Path) -> list[tuple[str, str]]:
    """Where and what, of each problem."""
    return [(finding.where, finding.code) for finding in read_lines(out / "problems.jsonl", Finding)]


def sources(out: Path) -> list[str]:
    """Where the records were read."""
    return [record.source for record in read_lines(out / "records.jsonl", Record)]


BAD_LINES = [
    ("not-utf-8", b'{"a": "\xff\xfe"}'),
    ("not-utf-8", b'{"a": "\xed\xa0\x80"}'),
    ("nul", b'{"a": "x\x00y"}'),
    ("nul", b'{"a": "x\\u0000y"}'),
    ("oversized-row", b'{"a": "' + b"x" * (3 << 20) + b'"}'),
    ("nested-too-deep", b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    ("nested-too-deep", b'{"a":' + b"[" * 10_000),
    ("nested-too-deep", b'{"a":' + b"[" * 70 + b"]" * 70 + b"}"),
    ("lone-surrogate", b'{"a": "\\ud800 and so on"}'),
    ("lone-surrogate", b'{"\\udfff": 1}'),
    ("wrong-type", b"[1, 2]"),
    ("wrong-type", b'"text"'),
    ("wrong-type", b"42"),
    ("wrong-type", b"null"),
    ("repeated-key", b'{"a": 1, "a": 2}'),
    ("repeated-key", b'{"m": [{"role": "user", "role" : "assistant"}]}'),
    ("repeated-key", b'{"a": 1, "a": "\\u0022\\u0022"}'),
    ("not-finite", b'{"a": NaN}'),
    ("not-finite", b'{"a": -Infinity}'),
    ("out-of-range", b'{"a": 1e999}'),
    ("out-of-range", b'{"a": ' + b"9" * 5000 + b"}"),
    ("broken-line", b'{"a": 1'),
    ("broken-line", b"{'a': 1}"),
    ("broken-line", b'{"a": 1} {"b": 2}'),
    ("broken-line", b"\xef\xbb\xbf" + GOOD),
]


def test_every_bad_line_is_collected_with_file_line_and_reason(tmp_path: Path, out: Path) -> None:
    """One error lists them all; under ``skip`` the good lines between them are kept, with their own line numbers."""
    lines = [line for _, bad in BAD_LINES for line in (bad, GOOD)]
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    expected = [(f"bad.jsonl:{2 * index + 1}", code) for index, (code, _) in enumerate(BAD_LINES)]
    with pytest.raises(DataError) as caught:
        read_source(str(path), out)
    assert [(problem.where, problem.code) for problem in caught.value.problems] == expected
    assert str(caught.value).startswith(f"{len(BAD_LINES)} of {2 * len(BAD_LINES)} rows of {path} are invalid")
    assert findings(out) == expected
    figures = read_source(str(path), out, on_invalid="skip")
    assert (figures["rows"], figures["rejected"]) == (len(BAD_LINES), len(BAD_LINES))
    assert sources(out) == [f"bad.jsonl:{2 * index + 2}" for index in range(len(BAD_LINES))]


def test_bad_elements_of_a_list_do_not_spoil_their_neighbours(tmp_path: Path, out: Path) -> None:
    """A JSON list is split by its brackets, so a broken element is rejected alone."""
    bad = [(code, line) for code, line in BAD_LINES if line.count(b"{") == line.count(b"}") and b"} {" not in line]
    lines = [line for _, bad_line in bad for line in (bad_line, GOOD)]
    (tmp_path / "bad.json").write_bytes(b"[\n" + b",\n".join(lines) + b"\n]\n")
    read_source(str(tmp_path / "bad.json"), out, on_invalid="skip")
    assert sources(out) == [f"bad.json:{2 * index + 3}" for index in range(len(bad))]
    assert findings(out) == [(f"bad.json:{2 * index + 2}", code) for index, (code, _) in enumerate(bad)]


def test_a_cut_off_last_line_is_named_as_such(tmp_path: Path, out: Path) -> None:
    """The reason gives the place where the file ends."""
    (tmp_path / "cut.jsonl").write_bytes(GOOD + b'\n{"prompt": "half a sent')
    with pytest.raises(DataError, match=r"cut\.jsonl:2: breaks off after 23 characters, at the end of the file"):
        read_source(str(tmp_path / "cut.jsonl"), out)


def test_bad_rows_of_a_table_have_the_line_they_start_on(tmp_path: Path, out: Path) -> None:
    """Quoted newlines are counted; ragged, broken, huge and undecodable rows are rejected alone."""
    rows = [
        (b'prompt,completion\n"two\nlines",a', None),
        (b"only one", "ragged-row"),
        (b"q,a,extra", "ragged-row"),
        (b'q,"a" b', "broken-line"),
        (b"q,\xff", "not-utf-8"),
        (b"q,\x00", "nul"),
        (b"q," + b"x" * (2 << 20), "oversized-row"),
        (b'q,"' + b"x" * (2 << 20) + b'"', "oversized-row"),
        (b'"q\nq",' + b'"' * (2 << 20), "oversized-row"),
        (b'5" pipe,a', None),
        (b'"never closed,a', "broken-line"),
    ]
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(row for row, _ in rows))
    read_source(str(tmp_path / "t.csv"), out, on_invalid="skip")
    numbers = [2, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14]
    assert sources(out) == ["t.csv:2", "t.csv:13"]
    assert findings(out) == [(f"t.csv:{number}", code) for number, (_, code) in zip(numbers, rows, strict=True) if code]


@pytest.mark.parametrize(("header", "reason"), [(b",text\n0,a\n", "column 1 has no name"), (b"a,b,a\n1,2,3\n", "column 3 has the name")])
def test_a_header_must_name_every_column_once(header: bytes, reason: str, tmp_path: Path, out: Path) -> None:
    """A table without a usable header is refused as a whole, also under ``skip``."""
    (tmp_path / "t.csv").write_bytes(header)
    with pytest.raises(DataError, match=reason):
        read_source(str(tmp_path / "t.csv"), out, on_invalid="skip")


def bomb(size: int) -> bytes:
    """A gzip file of zeros that expands a thousand times."""
    return gzip.compress(b" " * size, 9)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", b"", "holds no records"),
        ("a.jsonl", b"\n \n", "holds no records"),
        ("a.json", b"[]", "holds no records"),
        ("a.csv", b"prompt,completion\n", "holds no records"),
        ("a.jsonl", '{"a": 1}'.encode("utf-16"), "UTF-16"),
        ("a.json", b'[{"a": 1}, {"b"', "never closed"),
        ("a.json", b'[{"a": 1}] and more', "text after the end"),
        ("a.json", b'{\n "data": []\n}', "one JSON object over several lines"),
        ("a.parquet", b"PAR1 and nothing else PAR1", "no readable Parquet"),
        ("a.jsonl.gz", b"not gzip", "damaged"),
        ("a.jsonl.gz", gzip.compress(GOOD * 9, mtime=0)[:-9], "breaks off|damaged"),
        ("a.jsonl.zst", b"not zstd", "damaged|cannot be read"),
        ("a.jsonl.gz", bomb(80 << 20), "expands .* times, more than 200"),
        ("a.xlsx", b"PK", "no known format"),
    ],
)
def test_an_unusable_file_is_refused_with_its_reason(name: str, content: bytes, reason: str, tmp_path: Path, out: Path) -> None:
    """What concerns a whole file is an error, whatever ``on_invalid`` says where rows may be missing."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=reason):
        read_source(str(tmp_path / name), out)


def test_expansion_has_an_absolute_cap_too(tmp_path: Path, out: Path) -> None:
    """A file that expands slowly but without end is stopped by bytes."""
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((GOOD + b"\n") * 100_000))
    with pytest.raises(DataError, match="more than 1,000,000 bytes"):
        read_source(str(tmp_path / "a.jsonl.gz"), out, limits=Limits(expanded_bytes=1_000_000))


def test_places_that_hold_nothing_are_named(tmp_path: Path, out: Path) -> None:
    """A missing path, an empty folder, a loop of links, a device, a FIFO and an unknown scheme each say what they are."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    for source, reason in {
        str(tmp_path / "none.jsonl"): "there is no such file",
        str(tmp_path / "empty"): "holds no data files",
        str(tmp_path / "loop.jsonl"): "leads back to itself",
        str(tmp_path / "pipe.jsonl"): "a FIFO",
        "/dev/zero": "a device",
        "ftp://host/a.jsonl": "ftp:// is not known",
        "a\0b": "not a path",
        "": "not a path",
        "x" * 5000: "too long",
    }.items():
        with pytest.raises(DataError, match=reason):
            read_source(source, out)


def test_a_hostile_folder_is_read_without_leaving_it_or_blocking(tmp_path: Path, out: Path) -> None:
    """Loops, links that lead out, FIFOs and unprintable names are listed or shown safely; the data are read."""
    folder, outside = tmp_path / "data", tmp_path / "secret.jsonl"
    folder.mkdir()
    outside.write_bytes(GOOD)
    (folder / "self").symlink_to(".")
    (folder / "loop.jsonl").symlink_to("loop.jsonl")
    (folder / "out.jsonl").symlink_to(outside)
    os.mkfifo(folder / "pipe.jsonl")
    Path(os.fsdecode(os.fsencode(folder) + b"/new\nline\xff.jsonl")).write_bytes(GOOD)
    figures = read_source(str(folder), out)
    assert sources(out) == ["new\\x0aline\ufffd.jsonl:1"]
    assert figures["ignored"] == [
        "loop.jsonl (a link that leads back to itself)",
        "out.jsonl (a link that leaves the folder)",
        "pipe.jsonl (a FIFO)",
        "self (a link to a folder)",
    ]
    read_source(f"{folder}/**/*.jsonl", out)
    assert len(sources(out)) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_refused(tmp_path: Path, out: Path) -> None:
    """A file without read permission stops the run, also under ``skip``: it may be most of the data."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD)
    path.chmod(0)
    with pytest.raises(DataError, match="permission denied"):
        read_source(str(path), out, on_invalid="skip")


def test_controls_that_reverse_text_are_kept_and_noted(tmp_path: Path, out: Path) -> None:
    """They are legitimate in some scripts, so the row stays; the report says where they are."""
    (tmp_path / "a.jsonl").write_bytes(json.dumps({"a": "x\u202ey"}).encode() + b"\n" + json.dumps({"a": "“ok”"}).encode())
    figures = read_source(str(tmp_path / "a.jsonl"), out)
    assert (figures["rows"], figures["rejected"], figures["noted"]) == (2, 0, 1)
    assert findings(out) == [("a.jsonl:1", "bidi-control")]


def test_no_message_holds_text_of_a_row(tmp_path: Path, out: Path) -> None:
    """Rows may hold secrets or personal data, so reasons never quote them."""
    canary = "c4n4ry"
    bad = [f'{{"{canary}": {canary}}}', f'["{canary}"]', f'{{"{canary}": 1, "{canary}": 2}}', f'{{"a": "{canary}\\ud800"}}', canary]
    (tmp_path / "a.jsonl").write_text("\n".join(bad))
    with pytest.raises(DataError) as caught:
        read_source(str(tmp_path / "a.jsonl"), out)
    assert len(caught.value.problems) == len(bad)
    assert canary not in str(caught.value)
    assert canary not in (out / "problems.jsonl").read_text()


def test_many_problems_are_counted_and_the_first_listed(tmp_path: Path, out: Path) -> None:
    """The error holds the first thousand, the file holds all."""
    (tmp_path / "a.jsonl").write_bytes(GOOD + b"\n" + b"[]\n" * 3000)
    with pytest.raises(DataError, match=r"3,000 of 3,001 rows .*; 1,000 of them are listed") as caught:
        read_source(str(tmp_path / "a.jsonl"), out)
    assert len(caught.value.problems) == 1000
    assert len(findings(out)) == 3000


def test_a_line_of_100_mb_and_a_bomb_take_little_memory(tmp_path: Path, out: Path) -> None:
    """A fresh process reads both within 64 MiB more than it needs to start."""
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.write(GOOD + b'\n{"a": "')
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n' + GOOD)
    compress = zlib.compressobj(9, wbits=31)
    with (tmp_path / "b.jsonl.gz").open("wb") as file:
        for _ in range(300):
            file.write(compress.compress(b"[" * (1 << 20)))
        file.write(compress.flush())
    code = (
        "import resource, sys, pathlib\n"
        "from prooftune.data.reading import read_source\n"
        "from prooftune.errors import DataError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    read_source(sys.argv[1], pathlib.Path(sys.argv[2]), on_invalid='skip')\n"
        "except DataError as error:\n    print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    for name, said in (("a.jsonl", ""), ("b.jsonl.gz", "expands")):
        command = [sys.executable, "-c", code, str(tmp_path / name), str(out)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert said in output
        assert int(output.splitlines()[-1]) * 1024 < 64 << 20
    assert resource.getpagesize() > 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.lists(st.sampled_from([b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\r", b"a", b"1", b"\xff", b"\x00", GOOD])).map(
            b"".join
        ),
    ),
    name=st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt", "a.parquet", "a.jsonl.gz", "a.json.zst"]),
    on_invalid=st.sampled_from(["fail", "skip"]),
)
def test_any_bytes_are_records_or_a_data_error(tmp_path: Path, out: Path, content: bytes, name: str, on_invalid: str) -> None:
    """Nothing but DataError is raised, whatever a file holds, and the figures agree with the files."""
    (tmp_path / name).write_bytes(content)
    figures = None
    with contextlib.suppress(DataError):
        figures = read_source(str(tmp_path / name), out, on_invalid=on_invalid, limits=Limits(line_bytes=64, depth=4))  # type: ignore[arg-type]
    if figures:
        assert figures["rows"] == len(sources(out)) > 0
        assert figures["rejected"] == len([code for _, code in findings(out) if code != "bidi-control"])
