"""Before and around a managed job: what a spec orders, which base models are refused, and runs that wait."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from fixtures_ledger import MemoryStore, MemoryTuner, order_of
from fixtures_stand_ins import example
from hypothesis import given
from hypothesis import strategies as st

from prooftune.data.lines import write_lines
from prooftune.errors import IntegrityError
from prooftune.providers.orders import order_of as ordered
from prooftune.providers.orders import write_rows
from prooftune.providers.probing import refusal
from prooftune.providers.submission import Rows
from prooftune.providers.tuning import MARK, Capability, suffix_of
from prooftune.providers.waiting import FOLDER, read_waiting, wait, went_on
from prooftune.spec import RunSpec, parse_spec

TODAY = date(2026, 11, 26)


def spec_of(**blocks: Any) -> RunSpec:
    """Return a managed spec."""
    blocks.setdefault("backend", {"provider": "openai", "model": "gpt-4.1-mini"})
    return parse_spec({"name": "triage", "data": {"source": "x.jsonl"}, **blocks})


class CopyingTuner(MemoryTuner):
    """A provider whose form of rows is ours, with the system message in front."""

    def write_rows(self, examples: Path, system: str, objective: Any, out: Path, model: str | None = None) -> None:
        out.write_text(system + examples.read_text())


def rows_of(spec: RunSpec, folder: Path, validation: int = 2) -> Rows:
    """Write six training rows, and so many of validation, as a run does."""
    splits = {"train": folder / "train", "validation": folder / "validation"}
    write_lines(splits["train"], map(example, range(6)))
    write_lines(splits["validation"], map(example, range(6, 6 + validation)))
    return write_rows(CopyingTuner(), spec, splits, folder / "rows")


def test_the_same_spec_and_examples_are_the_same_order(tmp_path: Path) -> None:
    """What changes the job changes the run key; how it is waited for, paid for and evaluated does not."""
    spec = spec_of(task={"system": "Sort."})
    key = ordered(CopyingTuner(), spec, rows_of(spec, tmp_path)).key
    same = spec_of(task={"system": "Sort."}, provider={"hold_minutes": 5}, budget={"max_usd": 1}, gate={"alpha": 0.01})
    assert ordered(CopyingTuner(), same, rows_of(same, tmp_path)).key == key
    others = [
        spec_of(task={"system": "Sort it."}),
        spec_of(task={"system": "Sort."}, provider={"hyperparameters": {"epochs": 4}}),
        spec_of(task={"system": "Sort."}, backend={"provider": "openai", "model": "gpt-4.1"}),
        spec_of(task={"system": "Sort."}, backend={"provider": "openai", "model": "gpt-4.1-mini", "method": {"seed": 8}}),
    ]
    keys = {ordered(CopyingTuner(), other, rows_of(other, tmp_path)).key for other in others}
    keys.add(ordered(CopyingTuner(address="https://other.example"), spec, rows_of(spec, tmp_path)).key)
    assert len(keys | {key}) == len(others) + 2


def test_a_validation_split_without_rows_is_none(tmp_path: Path) -> None:
    """No provider takes an empty file."""
    spec = spec_of()
    assert rows_of(spec, tmp_path).validation is not None
    rows = rows_of(spec, tmp_path, validation=0)
    assert rows.validation is None
    assert ordered(CopyingTuner(), spec, rows).validation_sha256 is None


@given(name=st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True), longest=st.integers(12, 64), seed=st.integers(0, 9))
def test_a_suffix_carries_the_key_within_any_limit(name: str, longest: int, seed: int) -> None:
    """A tuned model's name is cut in the task's part, never in the key's."""
    order = order_of(seed, name=name)
    suffix = suffix_of(order, longest)
    assert len(suffix) <= longest
    assert suffix.endswith(f"-{order.key.removeprefix(f'{MARK}-')[:10]}")


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({}, set()),
        ({"last_job": TODAY, "shutdown": date(2027, 1, 25)}, set()),
        ({"last_job": date(2026, 11, 25)}, {"closed"}),
        ({"shutdown": date(2027, 1, 24)}, {"sunset"}),
        ({"tunable": False, "objectives": ()}, {"not-tunable"}),
        ({"objectives": ("preference",)}, {"not-offered"}),
        ({"tunable": False, "last_job": date(2026, 1, 1), "shutdown": date(2026, 1, 1)}, {"not-tunable", "closed", "sunset"}),
    ],
)
def test_a_base_model_that_cannot_be_tuned_for_long_is_refused(changes: dict[str, Any], codes: set[str]) -> None:
    """60 days are required unless the spec says otherwise; the last day of a provider is still one. All that is wrong is told at once."""
    capability = Capability(tunable=True, why="it is").model_copy(update=changes)
    told = refusal(spec_of(), capability, TODAY)
    assert {problem.code for problem in (told.problems if told else ())} == codes
    if codes == {"sunset"}:
        assert "in 59 days; at least 60 are required" in str(told)
        assert refusal(spec_of(provider={"min_remaining_days": 59}), capability, TODAY) is None


def test_runs_that_wait_are_found_until_they_went_on() -> None:
    """With their spec, so that another host can go on; a damaged record is told."""
    store = MemoryStore()
    wait(store, spec_of(), "triage-0", "prooftune-0a", "f" * 64)
    wait(store, spec_of(), "triage-1", "prooftune-0b", "f" * 64)
    wait(store, spec_of(), "triage-1", "prooftune-0b", "f" * 64)
    assert [(one.run, one.key, one.spec) for one in read_waiting(store)] == [
        ("triage-0", "prooftune-0a", spec_of()),
        ("triage-1", "prooftune-0b", spec_of()),
    ]
    went_on(store, "triage-0")
    went_on(store, "triage-0")
    assert [one.run for one in read_waiting(store)] == ["triage-1"]
    store.objects[f"{FOLDER}triage-1.json"] = b"{}"
    with pytest.raises(IntegrityError, match="triage-1"):
        list(read_waiting(store))
    wait(store, spec_of(), "triage-2", "prooftune-0c", "f" * 64)
    unreadable: dict[str, str] = {}
    assert [one.run for one in read_waiting(store, unreadable)] == ["triage-2"]
    assert "run Field required" in unreadable["triage-1"]
