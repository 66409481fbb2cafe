"""The ladder's local rungs on banking77: what the demo model reaches by prompting alone, each rung with its interval.

    python benchmarks/decision_ladder.py [FOLDER] [--rungs RUNG ...] [--set KEY=VALUE] [--embedding FOLDER] [--write]

1,000 training, 100 validation and 500 held-out queries, as examples/banking77/spec.yaml splits them. Skipped where the data set is not
there.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from banking77 import FOLDER, circumstances, missing, split_data, write_result

from prooftune.evaluation.answers.subject import open_local
from prooftune.evaluation.ladder.baselines import run_baselines
from prooftune.models.resolve import resolve_model
from prooftune.spec import Rung
from prooftune.types import Evaluation

NAME = "decision-ladder"
RUNGS: tuple[Rung, ...] = ("zero_shot", "few_shot", "retrieved", "optimised")
"""The rungs that need nothing but this machine and the data set."""


def main() -> None:
    """Run, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER, help="folder with train.csv and test.csv")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a field of the spec")
    parser.add_argument("--rungs", nargs="+", choices=get_args(Rung), default=RUNGS, help="rungs to run")
    parser.add_argument("--embedding", type=Path, help="folder of an encoder to retrieve by; without it TF-IDF")
    parser.add_argument("--write", action="store_true", help=f"also write results/{NAME}.json")
    arguments = parser.parse_args()
    figures = run(arguments.folder, rungs=arguments.rungs, overrides=arguments.set, embedding_folder=arguments.embedding)
    print(table(figures))
    if arguments.write and "skipped" not in figures:
        write_result(NAME, figures)


def run(
    folder: Path = FOLDER, *, rungs: Sequence[Rung] = RUNGS, overrides: Sequence[str] = (), embedding_folder: Path | None = None
) -> dict[str, Any]:
    """Return each rung's evaluation, its choice of demonstrations and its wall seconds, or why the benchmark was skipped."""
    if why := missing(folder):
        return {"skipped": why}
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        splits = split_data(folder, out, overrides)
        model = resolve_model(splits.spec.backend.model)
        evaluations: dict[str, Any] = {}
        for rung in rungs:  # one by one, so that each has its own seconds
            baseline = splits.spec.baseline.model_copy(update={"ladder": (rung,)})
            started = time.perf_counter()
            found = run_baselines(
                splits.train,
                splits.validation,
                splits.holdout,
                splits.holdout_sha256,
                open_local(model.path),
                splits.spec.task,
                baseline,
                out,
                embedding_folder=embedding_folder,
            )
            evaluation = Evaluation.model_validate_json((out / f"{rung}.evaluation.json").read_bytes())
            evaluations[rung] = evaluation.model_dump(mode="json") | {
                "choice": found[rung].get("choice"),
                "wall_seconds": round(time.perf_counter() - started, 1),
            }
    return circumstances() | {"model": model.name, "metric": splits.spec.task.metric, "evaluations": evaluations}


def table(figures: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    if "skipped" in figures:
        return str(figures["skipped"])
    lines = [f"{figures['date']}, {figures['machine']}, torch {figures['versions']['torch']}, {figures['model']}", ""]
    lines += [f"| rung | {figures['metric']} | 95 % interval | n | prompt tokens | wall s | how |", "|---|---|---|---|---|---|---|"]
    for rung, found in figures["evaluations"].items():
        metric = found["metrics"][figures["metric"]]
        lines.append(
            f"| {rung} | {metric['value']:.3f} | {metric['ci_low']:.3f} to {metric['ci_high']:.3f} | {metric['n']} "
            f"| {found['prompt_tokens_mean']:.0f} | {found['wall_seconds']:.0f} | {found['description']} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
