"""A drop in quality: what feedback shows, what chance shows as well, and the holdout asked again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from fixtures_runs import NAME, Trained, train_toy
from fixtures_watching import CHAMPION, NOW, drop, evaluation, promoted, rows, spec_of
from hypothesis import given
from hypothesis import strategies as st
from tests_support import toy_rows, write_jsonl

from prooftune.spec import RunSpec, parse_spec
from prooftune.storage.local import LocalStore
from prooftune.storage.manifest import publish
from prooftune.storage.registry import register
from prooftune.types import Decision, Metric
from prooftune.watching.looks import FOLDER, Logged, Quiet, recent, stamp
from prooftune.watching.nightly import Reevaluation, evaluate_again, newest_evaluation
from prooftune.watching.quality import drop_p, look_at_quality
from prooftune.watching.signals import Signal

PUBLISHED = Metric(name="exact_match", value=0.9, ci_low=0.84, ci_high=0.94, n=200)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A store whose champion has an interval from 0.84 to 0.94."""
    store = LocalStore(tmp_path / "store")
    drop(tmp_path, "a.jsonl", rows(40))
    promoted(store, spec_of(tmp_path), tmp_path)
    return store


def in_use_for(days: float) -> datetime:
    """A moment so long after the champions of these tests came into use: now."""
    return datetime.now(NOW.tzinfo) + timedelta(days=days)


def feedback(folder: Path, scores: Sequence[float], until: datetime) -> RunSpec:
    """Write one score a minute, the last one at a moment; return the spec that names the file."""
    lines = [{"score": score, "at": stamp(until - timedelta(minutes=age))} for age, score in enumerate(reversed(scores))]
    write_jsonl(folder / "feedback.jsonl", lines)
    return spec_of(folder, watch={"feedback": str(folder / "feedback.jsonl")})


def answers(share: float, count: int, seed: int = 0) -> list[float]:
    """Return right and wrong answers in an order by lot, of which a share is right."""
    right = round(share * count)
    scores = [1.0] * right + [0.0] * (count - right)
    random.Random(seed).shuffle(scores)
    return scores


def test_a_drop_is_a_signal(tmp_path: Path, store: LocalStore) -> None:
    """Two hundred answers of which 65 % are right fall below 0.84; the signal names the champion and the week."""
    now = in_use_for(30)
    found = look_at_quality(store, feedback(tmp_path, answers(0.65, 200), now), now)
    assert isinstance(found, Signal)
    year, week, _ = now.isocalendar()
    assert found.digest == f"{CHAMPION}-{year}-W{week:02d}"
    assert "averages 0.650" in found.reason
    assert found.figures["feedback_p"] < 0.01


def test_a_drop_that_lasts_is_one_occurrence_a_week(tmp_path: Path, store: LocalStore) -> None:
    """Later looks of the same week give the same event, and the next week's another one."""
    monday = in_use_for(30)
    monday -= timedelta(days=monday.weekday())
    looks = [
        look_at_quality(store, feedback(tmp_path, answers(0.5, 100 + day), monday + timedelta(days=day)), monday + timedelta(days=day))
        for day in (1, 3, 8)
    ]
    ids = [look.id for look in looks if isinstance(look, Signal)]
    assert len(ids) == 3
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize("scores", [[0.0] * 3, answers(0.78, 50), answers(0.86, 2000)])
def test_what_chance_shows_as_well_is_none(tmp_path: Path, store: LocalStore, scores: list[float]) -> None:
    """Three wrong answers, a mean below the interval by luck's measure, and a mean inside the interval start nothing."""
    now = in_use_for(30)
    assert isinstance(look_at_quality(store, feedback(tmp_path, scores, now), now), Quiet)


def test_answers_of_an_earlier_champion_do_not_count(tmp_path: Path, store: LocalStore) -> None:
    """Feedback from before the champion came into use says nothing about it."""
    found = look_at_quality(store, feedback(tmp_path, answers(0.2, 200), in_use_for(-1)), in_use_for(0))
    assert isinstance(found, Quiet)
    assert "0 scored answers" in found.reason


def test_rows_that_are_no_feedback_are_counted(tmp_path: Path, store: LocalStore) -> None:
    """A score that is none, a moment that is none and a broken line count as unreadable, and nothing fails."""
    now = in_use_for(30)
    spec = feedback(tmp_path, answers(0.9, 60), now)
    with (tmp_path / "feedback.jsonl").open("a") as file:
        file.write('{"score": "good", "at": "2026-11-25"}\n{"score": 0.5}\n{"score": 3, "at": "2026-11-25T10:00:00"}\n{"score": 0.1, "at')
    found = look_at_quality(store, spec, now)
    assert found.figures["feedback"] == 60
    assert found.figures["feedback_unreadable"] == 4


def test_nothing_is_kept(tmp_path: Path, store: LocalStore) -> None:
    """Without feedback, an evaluation or a champion the look says so."""
    assert look_at_quality(store, spec_of(tmp_path), NOW).reason == (
        "no watch.feedback is kept; the holdout was not asked again in the last 7 days"
    )
    assert "no champion" in look_at_quality(LocalStore(tmp_path / "empty"), spec_of(tmp_path), NOW).reason
    missing = spec_of(tmp_path, watch={"feedback": str(tmp_path / "gone.jsonl")})
    assert "no feedback can be read" in look_at_quality(store, missing, NOW).reason


@given(st.integers(1, 300), st.integers(0, 5), st.integers(1, 60))
def test_the_window_depends_on_times_alone(count: int, seed: int, least: int) -> None:
    """The rows that count are the newest ones, in order, at least as many as asked for or all, and begin with a Monday."""
    rng = random.Random(seed)
    rows_ = [Logged(NOW - timedelta(hours=rng.randint(0, 2000)), {}) for _ in range(count)]
    since = NOW - timedelta(days=60)
    window = recent(rows_, NOW, since, least)
    known = sorted(row.at for row in rows_ if row.at >= since)
    assert [row.at for row in window] == known[len(known) - len(window) :]
    assert len(window) >= min(least, len(known))
    this_week = [at for at in known if at >= datetime(2026, 11, 23, tzinfo=NOW.tzinfo)]
    assert len(window) >= len(this_week)
    if len(this_week) >= least:
        assert len(window) == len(this_week)


@pytest.mark.parametrize("truth", [0.84, 0.9])
def test_false_alarms_are_as_rare_as_promised_however_often_one_looks(truth: float) -> None:
    """Of 400 weeks in which nothing dropped, looked at after every answer, at most 5 % end in an alarm, give or take luck."""
    rng = random.Random(7)
    alarms = sum(drop_p([float(rng.random() < truth) for _ in range(300)], 0.84) <= 0.05 for _ in range(400))
    assert alarms <= 400 * 0.05 + 2 * (400 * 0.05 * 0.95) ** 0.5


def test_a_real_drop_is_found() -> None:
    """A drop by 0.14 below the interval is found within 200 answers in at least 8 of 10 weeks; graded scores are found sooner."""
    rng = random.Random(7)
    found = sum(drop_p([float(rng.random() < 0.7) for _ in range(200)], 0.84) <= 0.05 for _ in range(100))
    assert found >= 80
    assert drop_p([0.7 + 0.02 * (number % 3) for number in range(60)], 0.84) < 1e-4


@given(st.lists(st.floats(0, 1), max_size=80), st.floats(0, 1))
def test_the_p_value_is_one(scores: list[float], least: float) -> None:
    """It lies between 0 and 1, never rises with more answers, and is 1 where no answer is below the bound."""
    p = drop_p(scores, least)
    assert 0 <= p <= 1
    assert drop_p([*scores, 0.5], least) <= p
    assert drop_p([max(score, least) for score in scores], least) == 1


def again(champion: str, value: float, p_value: float, at: datetime) -> Reevaluation:
    """Return a nightly evaluation."""
    metric = Metric(name="exact_match", value=value, ci_low=value - 0.05, ci_high=value + 0.05, n=200)
    return Reevaluation(
        champion=champion,
        at=at,
        metric="exact_match",
        value=value,
        published=PUBLISHED,
        difference=value - 0.9,
        ci_low=value - 0.95,
        ci_high=value - 0.85,
        p_value=p_value,
        n=200,
        changed=40,
        evaluation=evaluation(metric),
        libraries={},
    )


@pytest.mark.parametrize(
    ("champion", "value", "p_value", "age_days", "fires"),
    [
        (CHAMPION, 0.7, 0.001, 0, True),
        (CHAMPION, 0.86, 0.001, 0, False),
        (CHAMPION, 0.8, 0.2, 0, False),
        (CHAMPION, 0.7, 0.001, 8, False),
        ("toy-other", 0.7, 0.001, 0, False),
    ],
)
def test_the_holdout_asked_again(
    tmp_path: Path, store: LocalStore, champion: str, value: float, p_value: float, age_days: int, fires: bool
) -> None:
    """A significant fall below the interval is a signal; one inside it, by chance, of last week or of another champion is none."""
    at = NOW - timedelta(days=age_days)
    store.put(f"{FOLDER}toy/evaluations/{at:%Y-%m-%d}-{champion}.json", again(champion, value, p_value, at).model_dump_json().encode())
    assert isinstance(look_at_quality(store, spec_of(tmp_path), NOW), Signal) is fires


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Trained:
    """A candidate that was trained for a moment."""
    return train_toy(tmp_path_factory.mktemp("trained") / "run", tiny_model, toy_rows(240), epochs=0.3)


def test_a_champion_answers_its_holdout_as_it_did(tmp_path: Path, trained: Trained) -> None:
    """Asked again on the same machine, a local champion gives the same answers; a second time on the same day it is not asked at all."""
    store = LocalStore(tmp_path / "store")
    decision = Decision(verdict="promote", reasons=("made up",))
    evaluations = [one.model_dump(mode="json") for one in trained.evaluations]
    facts = {"run_id": CHAMPION, "name": NAME, "decision": decision.model_dump(mode="json"), "evaluations": evaluations, "stages": []}
    (trained.folder / "report.html").write_text("")
    register(store, NAME, CHAMPION, publish(store, CHAMPION, trained.files(), facts), decision)
    spec = parse_spec({"name": NAME, "data": {"source": "-"}})
    now = in_use_for(0)
    found = evaluate_again(store, spec, now)
    assert found is not None
    assert (found.changed, found.difference, found.p_value) == (0, 0, 1)
    assert found.value == found.published.value
    assert evaluate_again(store, spec, now + timedelta(seconds=1)) == found == newest_evaluation(store, NAME, CHAMPION)
    assert "asked again" in look_at_quality(store, spec, now).reason
    assert evaluate_again(store, parse_spec({"name": "none", "data": {"source": "-"}}), now) is None
