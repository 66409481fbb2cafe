"""When the calendar starts a retraining, and for how long a task's own is put off."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from prooftune.retraining.calendar import due, jitter_of

TASKS = st.from_regex(r"[a-z0-9][a-z0-9-]{0,40}", fullmatch=True)
MINUTES = st.floats(0, 24 * 60)


@given(TASKS, MINUTES)
def test_a_task_is_put_off_by_less_than_the_jitter_and_always_as_long(task: str, minutes: float) -> None:
    """Between nothing and so many minutes, in seconds; asked again, also in another process, it is the same share of them."""
    seconds = jitter_of(task, minutes)
    assert 0 <= seconds <= 60 * minutes
    assert jitter_of(task, minutes) == seconds
    assert seconds == pytest.approx(jitter_of(task, 1.0) * minutes)


@given(TASKS, TASKS)
def test_tasks_that_share_a_schedule_start_apart(one: str, other: str) -> None:
    """No two tasks are put off by the same time."""
    assume(one != other)
    assert jitter_of(one, 60) != jitter_of(other, 60)


def test_tasks_are_spread_over_the_whole_jitter() -> None:
    """Of a thousand tasks each sixth of the hour gets about a sixth, within four standard deviations of chance."""
    sixths = [int(jitter_of(f"task-{number}", 60) // 600) for number in range(1000)]
    deviation = (1000 * 1 / 6 * 5 / 6) ** 0.5
    assert all(abs(sixths.count(sixth) - 1000 / 6) < 4 * deviation for sixth in range(6))


def test_the_jitter_is_the_same_in_every_release() -> None:
    """A task goes on starting at its own time: the share is of a digest, which no process and no version changes."""
    assert jitter_of("support-triage", 60) == pytest.approx(228.527, abs=0.001)


def test_a_week_is_one_occurrence() -> None:
    """From Monday 00:00 UTC to the next the signal's digest is the same, and then another."""
    monday = datetime(2026, 11, 23, tzinfo=UTC)
    week = timedelta(days=7)
    first, last, following = (due("toy", monday + after).digest for after in (timedelta(0), week - timedelta(seconds=1), week))
    assert first == last != following
