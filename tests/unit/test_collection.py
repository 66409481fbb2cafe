"""What an ended job leaves in a run: the model's name, a log like that of a local training, and figures that follow from it."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from fixtures_ledger import FAILED, RUNNING, SUCCEEDED, MemoryTuner, intent_of, order_of
from fixtures_stand_ins import open_stand_in
from hypothesis import given
from hypothesis import strategies as st

from prooftune.errors import JobFailed, NeedsReconciliation
from prooftune.providers.collection import ManagedModel, collect, job_seconds, training_log
from prooftune.providers.ledger import Entry
from prooftune.providers.tuning import Capability, Event, Job

CAPABILITY = Capability(tunable=True, why="it is", shutdown=date(2027, 1, 14), owns_weights=True)
EMPTY = {"tokens": None, "learning_rate": None}


def event(number: int, **metrics: float) -> Event:
    """Return an event with metrics."""
    return Event(id=f"event-{number}", at=None, text=f"event {number}", metrics=metrics)


EVENTS = [
    event(1),
    event(2, step=1, train_loss=2.0),
    event(3, step=2, train_loss=1.0, valid_loss=1.5),
    event(4, step=3, train_loss=0.5, train_mean_token_accuracy=0.9),
    event(5, step=4, train_loss=0.25, valid_loss=1.75),
    event(6, step=4, full_valid_loss=1.8),
    event(7, step=4, train_mean_token_accuracy=0.95),
]


def test_the_log_has_a_row_a_step() -> None:
    """By hand: four steps of two epochs; what two events tell of one step stands in one row, and the whole validation loss counts."""
    assert training_log(EVENTS, epochs=2) == [
        {"step": 1, "epoch": 0.5, "loss": 2.0, "validation_loss": None, **EMPTY},
        {"step": 2, "epoch": 1.0, "loss": 1.0, "validation_loss": 1.5, **EMPTY},
        {"step": 3, "epoch": 1.5, "loss": 0.5, "validation_loss": None, **EMPTY},
        {"step": 4, "epoch": 2.0, "loss": 0.25, "validation_loss": 1.8, **EMPTY},
    ]


def test_a_log_of_nothing() -> None:
    """Providers that tell no losses, and one that tells the loss before the first step alone."""
    assert training_log([event(1), event(2, step=3.0), event(3, train_loss=1.0)], epochs=3) == []
    assert training_log([event(1, step=0, valid_loss=2.0)], epochs=3) == [
        {"step": 0, "epoch": 0.0, "loss": None, "validation_loss": 2.0, **EMPTY}
    ]


METRICS = st.fixed_dictionaries(
    {"step": st.integers(0, 30).map(float)},
    optional={name: st.floats(0, 10) for name in ("train_loss", "valid_loss", "full_valid_loss", "train_accuracy")},
)


@given(told=st.lists(METRICS, max_size=20), epochs=st.integers(1, 50))
def test_every_log_is_in_order(told: list[dict[str, float]], epochs: int) -> None:
    """Steps rise, epochs rise with them to the last one, and every loss that was told is in its step's row."""
    rows = training_log([event(number, **metrics) for number, metrics in enumerate(told)], epochs)
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps), key=float)  # type: ignore[arg-type]  # steps are numbers
    passed = [float(row["epoch"] or 0) for row in rows]
    assert passed == sorted(passed)
    assert not rows or passed[-1] == (epochs if rows[-1]["step"] else 0)
    losses = {metrics["step"] for metrics in told if metrics.keys() & {"train_loss", "valid_loss", "full_valid_loss"}}
    assert losses == set(map(float, steps))  # type: ignore[arg-type]  # steps are numbers
    assert all(row["loss"] is not None or row["validation_loss"] is not None for row in rows)


def ended(job: Job | None) -> Entry:
    """Return the ledger's entry of an order with this job."""
    return intent_of(order_of()).noted("created", job=job, state="ended")


def collected(tuner: MemoryTuner, folder: Path) -> dict[str, Any]:
    """Collect a job that succeeded."""
    return collect(tuner, ended(SUCCEEDED), CAPABILITY, 40, folder)


def test_what_is_left_in_the_stage_s_folder(tmp_path: Path) -> None:
    """The model's name stands where weights would; log, job with its events, and the provider's files lie beside it."""
    figures = collected(MemoryTuner(told=EVENTS), tmp_path)
    managed = ManagedModel.model_validate_json((tmp_path / "model" / "managed.json").read_text())
    assert managed == ManagedModel(
        provider="openai",
        address="https://api.example",
        base_model="gpt-4.1-mini",
        model="tuned-1",
        job="job-1",
        key=order_of().key,
        shutdown="2027-01-14",
        owns_weights=True,
    )
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log == training_log(EVENTS, 2)
    told = json.loads((tmp_path / "job.json").read_text())
    assert [one["id"] for one in told["events"]] == [one.id for one in EVENTS]
    assert [one["id"] for one in told["checkpoints"]] == ["checkpoint-1"]
    assert told["job"]["status"] == "succeeded"
    assert [step["what"] for step in told["history"]] == ["created"]
    assert {"at", "what"} == set(told["history"][0]), "who did it stays in the ledger"
    assert (tmp_path / "result" / "metrics.csv").is_file()
    json.dumps(figures, allow_nan=False)


def test_figures_follow_from_the_log(tmp_path: Path) -> None:
    """The best check, overfitting since then, the last training loss, and what was billed; nothing is made up."""
    figures = collected(MemoryTuner(told=EVENTS), tmp_path)
    overfit = figures.pop("overfitting")
    assert (overfit["overfit_from_step"], overfit["epochs_past_minimum"], overfit["loss_at_end"]) == (2, 1.0, 1.8)
    assert figures == {
        "steps": 4,
        "epochs": 2,
        "best_step": 2,
        "train_loss": 0.25,
        "validation_loss": 1.5,
        "provider": "openai",
        "job": "job-1",
        "tuned_model": "tuned-1",
        "trained_tokens": 600,
        "billed_usd": None,
        "job_seconds": None,
        "checkpoints": 1,
        "result_files": ["metrics.csv"],
        "examples": 40,
        "further_steps": [],
    }


def test_a_provider_that_tells_nothing_leaves_no_figures(tmp_path: Path) -> None:
    """None is not 0."""
    figures = collected(MemoryTuner(), tmp_path)
    assert {figures[name] for name in ("steps", "best_step", "train_loss", "validation_loss", "overfitting")} == {None}
    assert (tmp_path / "log.jsonl").read_text() == ""


def test_a_job_took_from_its_making_to_its_last_event() -> None:
    """With time zones or without; a provider that tells fewer than two times leaves it open."""
    at = [datetime(2026, 11, 26, 18, minute, tzinfo=UTC) for minute in (0, 3, 10)]
    made, told = SUCCEEDED.model_copy(update={"created_at": at[0]}), SUCCEEDED.model_copy(update={"created_at": None})
    events = [event(n).model_copy(update={"at": time}) for n, time in enumerate(at[1:])]
    assert job_seconds(made, events) == 600
    assert job_seconds(told, events) == 420
    assert job_seconds(told, [one.model_copy(update={"at": at[1].replace(tzinfo=None)}) for one in events]) is None
    assert job_seconds(made, [event(1)]) is None
    assert job_seconds(told, []) is None


def test_collecting_again_gives_the_same(tmp_path: Path) -> None:
    """A stage that was killed in the middle begins anew in the same folder."""
    entry = ended(SUCCEEDED)
    first = collect(MemoryTuner(told=EVENTS), entry, CAPABILITY, 40, tmp_path)
    files = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert collect(MemoryTuner(told=EVENTS), entry, CAPABILITY, 40, tmp_path) == first
    assert {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


CANCELLED = FAILED.model_copy(update={"status": "cancelled", "told": "cancelled", "error": ""})
AGAIN = f"`prooftune jobs again {order_of().key} --reason"


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (FAILED, ["job-1 is failed: row 7 is too long", AGAIN]),
        (
            FAILED.model_copy(update={"status": "cancelled", "told": "cancelled", "error": ""}),
            ["job-1 is cancelled: no reason given", AGAIN],
        ),
        (RUNNING, ["job-1 is running", AGAIN]),
        (None, ["there is no job", AGAIN]),
    ],
)
def test_a_job_without_a_model_is_told(tmp_path: Path, job: Job | None, words: list[str]) -> None:
    """With the provider's own reason and what lets it be tried again; nothing is written."""
    with pytest.raises(JobFailed) as told:
        collect(MemoryTuner(told=EVENTS), ended(job), CAPABILITY, 40, tmp_path)
    assert [one for one in words if one not in str(told.value)] == []
    assert not list(tmp_path.iterdir())


def test_a_model_that_nobody_names_is_for_a_person(tmp_path: Path) -> None:
    """It may still be shown, so the job has not failed; where it is not, another attempt is a person's decision."""
    with pytest.raises(NeedsReconciliation, match=r"(?s)names no model.*next run of this spec asks again.*jobs again"):
        collect(MemoryTuner(told=EVENTS), ended(SUCCEEDED.model_copy(update={"model": None})), CAPABILITY, 40, tmp_path)


def test_a_stand_in_s_job_is_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From OpenAI's events, checkpoints and result file, through the SDK."""
    with open_stand_in("openai", tmp_path, monkeypatch) as here:
        rows = here.rows()
        order = here.order(rows)
        made = here.tuner.create(order, here.uploaded(rows, order))
        here.api.works.settle()  # type: ignore[attr-defined]  # of OpenAI's stand-in
        entry = Entry(order=order, run="triage-0").noted("created", job=here.tuner.job(made.id), state="ended")
        out = tmp_path / "out"
        out.mkdir()
        figures = collect(here.tuner, entry, here.tuner.probe(here.model, "supervised"), 40, out)
    assert (figures["steps"], figures["epochs"], figures["job"]) == (2, 2, made.id)
    assert figures["trained_tokens"] > 0
    assert figures["train_loss"] < 2
    assert (out / "result" / figures["result_files"][0]).stat().st_size > 0
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [(row["step"], row["epoch"]) for row in log] == [(1, 1.0), (2, 2.0)]
