"""The data of the banking77 benchmarks: cleaned and split as examples/banking77/spec.yaml says."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from prooftune.data.reading import read_source
from prooftune.data.splitting import split
from prooftune.data.validation import validate
from prooftune.environment import library_versions
from prooftune.spec import RunSpec, load_spec

ROOT = Path(__file__).parents[1]
SPEC = ROOT / "examples" / "banking77" / "spec.yaml"
FOLDER = ROOT.parent / "shared" / "data" / "banking77"
"""Where the data set is looked for: a folder with PolyAI's train.csv and test.csv (CC-BY-4.0)."""
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True, slots=True)
class Splits:
    """The three splits as files, and the holdout's seal."""

    spec: RunSpec
    train: Path
    validation: Path
    holdout: Path
    holdout_sha256: str


def missing(folder: Path) -> str:
    """Return why the benchmark cannot run, or an empty string."""
    absent = [name for name in ("train.csv", "test.csv") if not (folder / name).is_file()]
    return f"skipped: {folder} lacks {' and '.join(absent)}; fetch banking77 and name its folder" if absent else ""


def split_data(folder: Path, out: Path, overrides: Sequence[str] = ()) -> Splits:
    """Read, clean and split the data set into ``out``; ``overrides`` are of the spec, ``data.split.holdout=40``."""
    spec = load_spec(SPEC, [f"data.source={folder}", *overrides])
    read_source(str(folder), out)
    validate(out / "records.jsonl", out / "problems.jsonl", spec.data, out)
    figures = split(out / "examples.jsonl", spec.data.split, out)
    parts = (out / f"{name}.jsonl" for name in ("train", "validation", "holdout"))
    return Splits(spec, *parts, str(figures["holdout_sha256"]))


def circumstances() -> dict[str, Any]:
    """Return the date, the machine and the versions that a result was measured with."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB",
        "versions": library_versions(),
    }


def write_result(name: str, figures: dict[str, Any]) -> None:
    """Write a benchmark's figures as ``results/NAME.json``."""
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
