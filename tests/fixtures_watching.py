"""A task with a published champion, made up: what sensors read of it, without a training."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests_support import toy_rows, write_jsonl

from prooftune.data.lines import read_lines
from prooftune.data.reading import read_source
from prooftune.data.validation import validate
from prooftune.spec import RunSpec, parse_spec
from prooftune.storage.manifest import publish
from prooftune.storage.objects import ObjectStore
from prooftune.storage.registry import register
from prooftune.types import Decision, Evaluation, Example, Metric, Verdict

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
"""A Wednesday."""
TASK = "toy"
CHAMPION = "toy-champion"


def spec_of(folder: Path, **blocks: Any) -> RunSpec:
    """Return a spec on ``folder/data``, whose store lies beside it."""
    data = {"source": str(folder / "data"), "on_invalid": "skip", "min_examples": 20} | blocks.pop("data", {})
    watch = {"min_new_examples": 10, "quiet_minutes": 0} | blocks.pop("watch", {})
    return parse_spec({"name": TASK, "data": data, "watch": watch, "store": {"uri": str(folder / "store")}, **blocks})


def drop(folder: Path, name: str, rows: Sequence[dict[str, Any]]) -> Path:
    """Put a data file into the task's folder, as an upstream system does."""
    (folder / "data").mkdir(exist_ok=True)
    return write_jsonl(folder / "data" / name, list(rows))


def rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Return rows that are all valid, and differ from those of another seed."""
    return [row | {"prompt": f"{row['prompt']} {seed} {number}"} for number, row in enumerate(toy_rows(count, seed))]


def promoted(
    store: ObjectStore,
    spec: RunSpec,
    folder: Path,
    *,
    run_id: str = CHAMPION,
    verdict: Verdict = "promote",
    metric: Metric | None = None,
    files: dict[str, Path] | None = None,
) -> None:
    """Publish and register a run that was made from what the source holds now."""
    out = folder / run_id
    out.mkdir()
    read_source(spec.data.source, out, on_invalid="skip")
    validate(out / "records.jsonl", out / "problems.jsonl", spec.data, out)
    examples = list(read_lines(out / "examples.jsonl", Example))
    chat = [{"messages": [{"role": one.role, "content": one.content} for one in example.messages]} for example in examples]
    (out / "spec.yaml").write_text(spec.resolved_yaml())
    write_jsonl(out / "train.openai.jsonl", chat)
    for name in ("report.html", "adapter/adapter_model.safetensors"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text(run_id)
    names = ("spec.yaml", "profile.csv", "train.openai.jsonl", "report.html", "adapter/adapter_model.safetensors")
    decision = Decision(verdict=verdict, reasons=("made up",))
    published = metric or Metric(name="exact_match", value=0.9, ci_low=0.84, ci_high=0.94, n=200)
    facts = {
        "run_id": run_id,
        "name": spec.name,
        "decision": decision.model_dump(mode="json"),
        "evaluations": [evaluation(published).model_dump(mode="json")],
        "stages": [],
    }
    manifest = publish(store, run_id, {name: out / name for name in names} | (files or {}), facts)
    register(store, spec.name, run_id, manifest, decision)


def evaluation(metric: Metric) -> Evaluation:
    """Return a candidate's evaluation with one metric."""
    return Evaluation(
        name="candidate",
        description="",
        metrics={metric.name: metric},
        answer_tokens_mean=1,
        answer_tokens_p50=1,
        answer_tokens_p95=1,
        prompt_tokens_mean=1,
        latency_p50_s=None,
        latency_p95_s=None,
        batch_size=1,
        tokens_per_second=None,
        seconds=None,
        refusals=0,
        empty=0,
        holdout_sha256="",
    )
