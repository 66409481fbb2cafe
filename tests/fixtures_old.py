"""A champion made from old examples, and new ones, for the tests of retraining."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fixtures_runs import examples_of
from tests_support import toy_rows

from prooftune.data.lines import write_lines
from prooftune.data.old import OldRun
from prooftune.spec import RunSpec, parse_spec
from prooftune.storage.local import LocalStore
from prooftune.storage.manifest import publish
from prooftune.storage.registry import register
from prooftune.types import Decision, Example, Message

CHAMPION = "toy-champion"
ROWS = toy_rows(200, seed=0)
OLD_EXAMPLES = examples_of(ROWS[:120])
OLD = OldRun(CHAMPION, {"train": tuple(OLD_EXAMPLES[:80]), "validation": tuple(OLD_EXAMPLES[80:90]), "holdout": tuple(OLD_EXAMPLES[90:])})
NEW = examples_of(ROWS[120:])


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A local store."""
    return LocalStore(tmp_path / "store")


def spec_of(**blocks: dict[str, Any]) -> RunSpec:
    """Return a spec of the task ``toy``."""
    return parse_spec({"name": "toy", "data": {"source": "toy.jsonl"}} | blocks)


def crown(
    store: LocalStore,
    folder: Path,
    spec: RunSpec,
    old: OldRun = OLD,
    drop: Sequence[str] = (),
    weights: dict[str, str] | None = None,
    run_id: str = CHAMPION,
) -> str:
    """Publish a run that was made from ``old`` and make it the champion of the task."""
    folder.mkdir(parents=True)
    files: dict[str, Path] = {}
    for name, examples in old.splits.items():
        files[f"{name}.jsonl"] = folder / f"{name}.jsonl"
        write_lines(files[f"{name}.jsonl"], examples)
    files["spec.yaml"] = folder / "spec.yaml"
    files["spec.yaml"].write_text(spec.resolved_yaml())
    files["profile.csv"] = folder / "profile.csv"
    with files["profile.csv"].open("w", newline="") as file:
        table = csv.writer(file)
        table.writerows([["id", "status"], *([example.id, "kept"] for part in old.splits.values() for example in part)])
    for number, (name, content) in enumerate((weights or {"adapter/adapter_model.safetensors": "w"}).items()):
        files[name] = folder / f"weights-{number}"
        files[name].write_text(content)
    decision = Decision(verdict="promote", reasons=("It is better.",))
    kept = {name: path for name, path in files.items() if name not in drop}
    facts = {"name": "toy", "decision": decision.model_dump(mode="json"), "lineage": {"model": {"sha256": "base"}}}
    register(store, "toy", run_id, publish(store, run_id, kept, facts), decision)
    return run_id


def ids(examples: Iterable[Example]) -> set[str]:
    """Ids of examples."""
    return {example.id for example in examples}


def rewritten(one: Example, target: str | None = None) -> Example:
    """Return an example as another export has it: in upper case, and with another target where one is given."""
    said = (Message(role="user", content=one.prompt[-1].content.upper()), Message(role="assistant", content=target or one.target))
    return one.model_copy(update={"id": f"new{target}{one.id}", "messages": said, "source": f"new/{one.source}"})
