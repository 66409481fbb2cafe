"""The main job on banking77: both baselines, the candidate, the interval, seconds per stage, overhead and peak memory.

    python benchmarks/main_job.py FOLDER [--json RESULT]

FOLDER holds the data set's train.csv and test.csv (PolyAI's banking77, CC-BY-4.0). The run is a fresh one in an empty store, in a process
of its own, as a user starts it; the Prefect server is started before and not counted.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from prooftune.data.lines import read_lines
from prooftune.environment import library_versions
from prooftune.evaluation.gate import decide
from prooftune.spec import Store, load_spec
from prooftune.storage.manifest import read_manifest
from prooftune.storage.objects import open_store
from prooftune.types import Prediction

SPEC = Path(__file__).parents[1] / "examples" / "banking77" / "spec.yaml"
PREDICTIONS = ".predictions.jsonl"
MEMORY_EVERY_S = 0.2


def main() -> None:
    """Run, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with train.csv and test.csv")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a field of the spec")
    arguments = parser.parse_args()
    subprocess.run(["prooftune", "up"], check=True, stdout=sys.stderr)
    with tempfile.TemporaryDirectory() as store:
        figures = measure(arguments.folder.resolve(), store, arguments.set)
    print(table(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def measure(folder: Path, store: str, overrides: list[str]) -> dict[str, Any]:
    """Run the spec once; return its result, wall seconds and the peak of its resident memory in bytes."""
    settings = [f"data.source={folder}", f"store.uri={store}", *overrides]
    command = ["prooftune", "run", str(SPEC), "--json", *(word for setting in settings for word in ("--set", setting))]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = Peak(process.pid)
    output, _ = process.communicate()
    wall = time.monotonic() - started
    if process.returncode:
        sys.exit(f"the run failed with exit code {process.returncode}: {output}")
    result = json.loads(output)
    stages = {stage["name"]: stage["seconds"] for stage in result["stages"]}
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB",
        "versions": library_versions(),
        "verdict": result["verdict"],
        "decision": result["decision"],
        "evaluations": {item["name"]: item for item in result["evaluations"]},
        "against": against_each_rung(store, result["run_id"]),
        "seconds": stages,
        "wall_seconds": round(wall, 1),
        "overhead": round(1 - sum(stages.values()) / wall, 4),
        "peak_gb": round(peak.stop() / 1e9, 2),
    }


def against_each_rung(store: str, run_id: str) -> dict[str, dict[str, Any]]:
    """Return the gate's decision on the candidate against each baseline by itself."""
    objects, spec = open_store(Store(uri=store)), load_spec(SPEC)
    files = read_manifest(objects, run_id).files
    answers = {
        name.removesuffix(PREDICTIONS): list(read_lines(objects.fetch(ref), Prediction))
        for name, ref in files.items()
        if name.endswith(PREDICTIONS)
    }
    candidate = answers.pop("candidate")
    return {rung: decide({rung: rows}, candidate, spec.task, spec.gate, seed=7).model_dump(mode="json") for rung, rows in answers.items()}


class Peak:
    """Highest resident memory of a process and its children, sampled."""

    def __init__(self, pid: int) -> None:
        self.process = psutil.Process(pid)
        self.peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> int:
        """Return the peak in bytes."""
        self._ended.set()
        self._thread.join()
        return self.peak

    def _watch(self) -> None:
        while not self._ended.wait(MEMORY_EVERY_S):
            try:
                family = [self.process, *self.process.children(recursive=True)]
                self.peak = max(self.peak, sum(member.memory_info().rss for member in family))
            except psutil.NoSuchProcess:
                continue  # one of them ended between listing and asking


def table(figures: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    lines = [f"{figures['date']}, {figures['machine']}, torch {figures['versions']['torch']}", ""]
    lines += ["| | exact match | 95 % interval | n |", "|---|---|---|---|"]
    for name, evaluation in figures["evaluations"].items():
        metric = evaluation["metrics"]["exact_match"]
        lines.append(f"| {name} | {metric['value']:.3f} | {metric['ci_low']:.3f} to {metric['ci_high']:.3f} | {metric['n']} |")
    level = 100 * (1 - load_spec(SPEC).gate.alpha)
    lines += ["", f"Verdict: {figures['verdict']}. Paired differences with {level:g} % intervals:", ""]
    lines += [
        f"- against {rung}: {found['difference']:+.3f} ({found['ci_low']:+.3f} to {found['ci_high']:+.3f}), "
        f"{found['test']} p = {found['p_value']:.2g}"
        for rung, found in figures["against"].items()
    ]
    lines += ["", "| stage | seconds |", "|---|---|"]
    lines += [f"| {name} | {seconds:.1f} |" for name, seconds in figures["seconds"].items()]
    lines += [
        f"| wall | {figures['wall_seconds']:.1f} |",
        "",
        f"Not the stages' own work: {100 * figures['overhead']:.1f} % of wall time (goal: under 5 %)",
        f"Peak memory: {figures['peak_gb']:.2f} GB (goal: 4 GB)",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
