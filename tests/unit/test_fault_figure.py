"""A test run says how many faults it injected, and fails where all tests of submission injected too few."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures_faults import LEAST, TESTS
from fixtures_stand_ins import PROVIDERS


def run_suite(folder: Path, each: int, *options: str, providers: tuple[str, ...] = PROVIDERS) -> subprocess.CompletedProcess[str]:
    """Run tests with the names of those of submission, each of which injects so many faults at a provider."""
    one = "@pytest.mark.parametrize('provider', {providers!r})\ndef {name}(provider, record_faults):\n    record_faults(provider, {each})\n"
    text = "import pytest\n\n" + "\n".join(one.format(providers=providers, name=name, each=each) for name in TESTS)
    (folder / "test_any.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    tests = str(Path(__file__).parent.parent)
    command = [sys.executable, "-m", "pytest", "-p", "fixtures_faults", "-q", *options, "test_any.py"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "two processes"])
def test_the_figure_is_printed_and_has_to_be_reached(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Enough of them are a line of the summary; too few are a failure, though every test passed."""
    runs = len(TESTS) * len(PROVIDERS)
    enough = -(-LEAST // runs)
    done = run_suite(tmp_path, enough, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{enough * runs:,} crashes and errors injected over {len(PROVIDERS)} providers: one job each, none lost" in done.stdout
    done = run_suite(tmp_path, enough - 1, *options)
    assert (done.returncode, f"{runs} passed" in done.stdout) == (1, True), done.stdout + done.stderr
    assert f"at least {LEAST:,} are required" in done.stdout


def test_a_part_of_the_tests_has_nothing_to_reach(tmp_path: Path) -> None:
    """Whoever runs one provider's tests sees their figure and is not failed for it."""
    done = run_suite(tmp_path, 1, providers=("vertex",))
    assert (done.returncode, "3 crashes and errors injected over 1 provider:" in done.stdout) == (0, True), done.stdout + done.stderr
