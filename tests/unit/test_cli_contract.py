"""What every command keeps to: one JSON document, exit codes, a sentence instead of a traceback, a quick start."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from flows.cli import main
from flows.endings import answers, explain
from prooftune.errors import DataError, EnvironmentLacks, IntegrityError, Problem, SpecError, StoreUnavailable, TransientError

PLAIN = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "AWS_", "PROOFTUNE_"))}


def call(*arguments: str | Path, **options: Any) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], **options)


def command_that(work: Any, **options: Any) -> click.Command:
    """Make a command whose work is ``work``."""

    @click.command()
    @answers("server", **options)
    def command() -> dict[str, Any]:
        return dict(work())

    return command


def fail_with(error: BaseException) -> Any:
    """Return a function that raises ``error``."""

    def work() -> dict[str, Any]:
        raise error

    return work


def test_help_imports_nothing_heavy() -> None:
    """The command line imports click and our own names only; how fast that is, benchmarks/startup.py says."""
    code = "import sys, flows.cli; print([m for m in ('torch', 'prefect', 'pydantic', 'rich', 'numpy', 'yaml') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("command", ["validate", "plan", "run"])
def test_a_spec_that_is_none_is_a_sentence_and_exit_2(command: str, tmp_path: Path) -> None:
    """A missing file, a folder, binary, NUL bytes, a link to itself, wrong YAML and a scalar that is no date: exit 2, no traceback."""
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    (tmp_path / "nul.yaml").write_bytes(b"name: a\0b\n")
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    (tmp_path / "wrong.yaml").write_text("name: [")
    (tmp_path / "date.yaml").write_text("name: 2026-13-45")
    (tmp_path / "list.yaml").write_text("- name")
    (tmp_path / "deep.yaml").write_text("[" * 10_000)
    for name in ("nope.yaml", ".", "binary.yaml", "nul.yaml", "loop.yaml", "wrong.yaml", "date.yaml", "list.yaml", "deep.yaml"):
        result = call(command, tmp_path / name, "--json")
        assert result.exit_code == 2, (name, result.output)
        assert json.loads(result.stdout)["error"] == "SpecError", name
        assert "Traceback" not in result.output


def test_every_problem_of_a_spec_is_in_the_document(tmp_path: Path) -> None:
    """All wrong fields are listed at once, each with its dotted name."""
    (tmp_path / "spec.yaml").write_text("name: Bad Name\ndata: {source: x, split: {holdout: 2.5}}\nnonsense: 1\n")
    document = json.loads(call("validate", tmp_path / "spec.yaml", "--json").stdout)
    where = " ".join(problem["where"] for problem in document["problems"])
    assert all(field in where for field in ("name", "data.split.holdout", "nonsense"))


@pytest.mark.parametrize("arguments", [["validate"], ["bogus"], ["--bogus"], ["show", "--bogus"], ["run", "a", "b"]])
def test_usage_errors_exit_2_with_a_document_where_asked(arguments: list[str]) -> None:
    """A wrong command line is exit 2: click's usage on stderr, or with --json one document on stdout."""
    plain, as_json = call(*arguments), call(*arguments, "--json")
    assert (plain.exit_code, as_json.exit_code) == (2, 2)
    assert plain.stdout == ""
    assert "Usage:" in plain.stderr
    assert json.loads(as_json.stdout)["error"] == "UsageError"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SpecError("a"), 2),
        (DataError("a", (Problem("x.jsonl:1", "is bad"),)), 2),
        (EnvironmentLacks("a"), 3),
        (StoreUnavailable("a"), 3),
        (TransientError("a"), 3),
        (IntegrityError("a"), 1),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 3),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 3),
        (MemoryError(), 3),
        (ModuleNotFoundError("No module named 'trl'", name="trl"), 3),
        (ModuleNotFoundError("No module named 'flows.nope'", name="flows.nope"), 1),
        (ValueError("odd"), 1),
        (KeyError("odd"), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_each_error_has_its_exit_code_and_one_document(error: BaseException, code: int) -> None:
    """Whatever is raised, stdout holds exactly one document that names the error, and stderr a sentence without a traceback."""
    result = CliRunner().invoke(command_that(fail_with(error)), ["--json"])
    assert result.exit_code == code
    document = json.loads(result.stdout)
    assert document["exit_code"] == code
    assert document["message"]
    assert "Traceback" not in result.stderr
    assert CliRunner().invoke(command_that(fail_with(error)), []).stdout == ""


def test_a_broken_connection_to_prefect_is_the_environments_fault() -> None:
    """An httpx error that reaches the command line means that the server is gone: exit 3."""
    import httpx

    assert explain(httpx.ConnectError("refused")).exit_code == 3


def test_the_traceback_of_an_unexpected_error_is_shown_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    """PROOFTUNE_DEBUG=1 puts the traceback on stderr; stdout still holds one document."""
    monkeypatch.setenv("PROOFTUNE_DEBUG", "1")
    result = CliRunner().invoke(command_that(fail_with(ValueError("odd"))), ["--json"])
    assert "Traceback" in result.stderr
    assert json.loads(result.stdout)["error"] == "ValueError"


def test_an_interrupted_run_says_that_it_can_go_on() -> None:
    """A command that resumes says so when it is interrupted."""
    result = CliRunner().invoke(command_that(fail_with(KeyboardInterrupt()), resumes=True), [])
    assert "the same command goes on where it stopped" in result.stderr


def test_what_libraries_print_goes_to_stderr() -> None:
    """Only the answer is on stdout, whatever is printed on the way."""

    def chatty() -> dict[str, Any]:
        print("noise")  # noqa: T201 - what is tested
        return {"running": False}

    result = CliRunner().invoke(command_that(chatty), ["--json"])
    assert json.loads(result.stdout) == {"running": False}
    assert "noise" in result.stderr


def test_an_answer_may_carry_an_exit_code() -> None:
    """A whole document and an exit code other than 0 do not exclude each other."""
    result = CliRunner().invoke(command_that(lambda: {"running": False}, exit_code=lambda answer: 3), ["--json"])
    assert result.exit_code == 3
    assert json.loads(result.stdout) == {"running": False}


def test_json_is_utf8_whatever_the_terminal_is() -> None:
    """On a terminal that only knows ASCII the document is UTF-8, and half a surrogate pair is an escape."""
    code = "from flows.endings import _print_json; _print_json({'a': 'Grüße', 'b': '\\udc80'})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=PLAIN | {"PYTHONIOENCODING": "ascii"})
    assert json.loads(done.stdout) == {"a": "Grüße", "b": "\udc80"}


def test_a_reader_that_leaves_early_gets_no_traceback(tmp_path: Path) -> None:
    """``prooftune … | head -c 1`` ends quietly, also for a document larger than a pipe holds."""
    work = "lambda: {'running': False, 'long': 'x' * 1_000_000}"
    code = f"import click; from flows.endings import answers; click.command()(answers('server')({work}))(['--json'])"
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; {sys.executable} -c "{code}" | head -c 1'], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


def test_no_color_is_honoured(tmp_path: Path) -> None:
    """NO_COLOR switches colours off in error messages."""
    result = call("validate", tmp_path / "nope.yaml", env={"NO_COLOR": "1"}, color=True)
    assert "\x1b[" not in result.stderr


def test_control_characters_of_a_name_do_not_reach_the_terminal() -> None:
    """An escape sequence in a spec's name is shown, not executed."""
    assert "\x1b" not in call("validate", "evil\x1b[2J.yaml").output
