"""The figure of the faults that a test run injected: added up over all tests and processes, printed, and too few is a failure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import pytest
from fixtures_stand_ins import PROVIDERS

PROPERTY = "injected_faults"
"""Of a test's report, which is what arrives from a process of xdist: whom a fault was injected at, and how many of them happened."""
TESTS = (
    "test_a_crash_at_every_write",
    "test_a_fault_of_every_kind_at_every_request",
    "test_a_provider_that_is_silent",
)
"""A run that did all of them at every provider has a figure to reach."""
LEAST = 1_000


@pytest.fixture
def record_faults(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """Counts faults that happened at somebody."""

    def record(at: str, count: int) -> None:
        record_property(PROPERTY, [at, count])

    return record


def counted(reports: Iterable[pytest.TestReport]) -> Counter[str]:
    """Add up the faults, by whom they were injected at."""
    found: Counter[str] = Counter()
    for report in reports:
        for name, value in report.user_properties:
            if name == PROPERTY:
                at, count = value  # type: ignore[misc]  # as it was recorded
                found[at] += count
    return found


def whole(reports: Iterable[pytest.TestReport]) -> bool:
    """Whether every test was there at every provider."""
    names = {report.nodeid.rpartition("::")[2] for report in reports}
    return names >= {f"{test}[{provider}]" for test in TESTS for provider in PROVIDERS}


def sentence(found: Counter[str]) -> str:
    """Say the figure."""
    providers = sum(at in PROVIDERS for at in found)
    named = [f"{providers} provider{'s' * (providers > 1)}"] * (providers > 0) + ["Ray"] * ("ray" in found)
    where = " and ".join(named)
    return f"{found.total():,} crashes and errors injected over {where}"


def _reports(config: pytest.Config, *outcomes: str) -> list[pytest.TestReport]:
    """Return the reports of tests; none in a process of xdist, which shows nothing."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    found = [report for outcome in outcomes for report in terminal.stats.get(outcome, ())] if terminal else []
    return [report for report in found if isinstance(report, pytest.TestReport) and report.when == "call"]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that did every test, and injected too little."""
    reports = _reports(session.config, "passed")
    if whole(reports) and counted(reports).total() < LEAST and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the figure: what passed had one job each, and what failed is not counted."""
    reports = _reports(config, "passed")
    if not (found := counted(reports)):
        return
    terminalreporter.write_line(f"{sentence(found)}: one job each, none lost")
    if whole(reports) and found.total() < LEAST:
        terminalreporter.write_line(f"that is too little: at least {LEAST:,} are required, or this run has failed", red=True)
