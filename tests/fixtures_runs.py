"""Published runs of the toy task, made by the library's own stages, for tests of what comes after the verdict."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests_support import write_jsonl

from prooftune.data.counting import Counter, TokenizerCounter
from prooftune.data.formatting import format_splits
from prooftune.data.lines import read_lines, write_lines
from prooftune.data.splitting import split
from prooftune.evaluation.answers.answering import LocalAnswerer
from prooftune.evaluation.answers.subject import open_candidate
from prooftune.evaluation.candidate import Open, evaluate_candidate
from prooftune.evaluation.scoring import evaluate, open_contest
from prooftune.models.loading import load_base, load_tokenizer
from prooftune.spec import RunSpec, parse_spec
from prooftune.storage.disk import sha256_of
from prooftune.training.sft import train
from prooftune.types import Evaluation, Example, Message

NAME = "toy"


@dataclass(frozen=True)
class Trained:
    """What the stages of one run left in a folder, up to the candidate's evaluation."""

    folder: Path
    spec: RunSpec
    model: Path
    counts: dict[str, int]

    @property
    def holdout_sha256(self) -> str:
        """The seal."""
        return sha256_of(self.folder / "holdout.jsonl")

    @property
    def evaluations(self) -> list[Evaluation]:
        """Of the baseline and the candidate."""
        names = ("zero_shot", "candidate")
        return [Evaluation.model_validate_json((self.folder / f"{name}.evaluation.json").read_bytes()) for name in names]

    @property
    def opened(self) -> tuple[Open, Counter]:
        """What opens the candidate, and what counts its tokens."""
        tokenizer = load_tokenizer(self.model)
        return lambda: nullcontext(open_candidate(self.model, self.folder / "model", tokenizer, kind="full")), TokenizerCounter(tokenizer)

    def files(self) -> dict[str, Path]:
        """What a run publishes, by name."""
        kept = [path for path in self.folder.rglob("*") if path.is_file() and "checkpoints" not in path.parts]
        names = {path.relative_to(self.folder).as_posix(): path for path in kept}
        return {
            name: path
            for name, path in names.items()
            if name not in ("train.jsonl", "validation.jsonl", "examples.jsonl", "source.jsonl", "training.json")
        }


def examples_of(rows: list[dict[str, str]]) -> list[Example]:
    """Return the toy rows as examples, as validation makes them."""
    from prooftune.data.shapes import example_id

    made = []
    for number, row in enumerate(rows):
        messages = (Message(role="user", content=row["prompt"]), Message(role="assistant", content=row["completion"]))
        made.append(Example(id=example_id(messages), source=f"toy.jsonl:{number + 1}", messages=messages, metadata={"parity": number % 2}))
    return made


def train_toy(folder: Path, model: Path, rows: list[dict[str, str]], *, seed: int = 7, epochs: float = 6) -> Trained:
    """Split, format, train and evaluate: a zero-shot baseline and a candidate that learned the toy task, where it got the time."""
    folder.mkdir(parents=True)
    spec = parse_spec(
        {
            "name": NAME,
            "data": {"source": "toy.jsonl", "split": {"holdout": 60, "validation": 20, "seed": seed}},
            "baseline": {"ladder": ["zero_shot"]},
            "task": {"slices": ["parity"]},
            "backend": {
                "model": str(model),
                "method": {
                    "kind": "full",
                    "epochs": epochs,
                    "learning_rate": 5.0e-3,
                    "batch_size": 8,
                    "early_stopping": None,
                    "checks_per_epoch": 2,
                },
            },
            "general": {"suite": "none"},
        }
    )
    write_jsonl(folder / "source.jsonl", rows)
    write_lines(folder / "examples.jsonl", examples_of(rows))
    counts: Any = split(folder / "examples.jsonl", spec.data.split, folder)["counts"]
    training, held_out = folder / "train.jsonl", folder / "holdout.jsonl"
    format_splits(training, folder / "validation.jsonl", spec.task.system, folder)
    train(training, folder / "validation.jsonl", model, spec.task, spec.backend.method, folder)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    tokenizer = load_tokenizer(model)
    contest = open_contest(list(read_lines(training, Example)), held_out, sha256_of(held_out), spec.task, TokenizerCounter(tokenizer))
    evaluate("zero_shot", "no demonstrations", lambda example: example.prompt, contest, LocalAnswerer(load_base(model), tokenizer), folder)
    (folder / "spec.yaml").write_text(spec.resolved_yaml())
    trained = Trained(folder, spec, model, counts)
    candidate, counter = trained.opened
    evaluate_candidate(training, held_out, sha256_of(held_out), [candidate], counter, "full", spec.task, folder)
    return trained


def write_data_manifest(trained: Trained) -> None:
    """Write ``data_manifest.json`` as the upload stage does."""
    splits = {
        f"{name}.jsonl": {"sha256": sha256_of(trained.folder / f"{name}.jsonl"), "examples": trained.counts[name]}
        for name in ("train", "validation", "holdout")
    }
    source = {
        "files": ["source.jsonl"],
        "source_sha256": sha256_of(trained.folder / "source.jsonl"),
        "rows": sum(trained.counts.values()),
        "rejected": 0,
    }
    known = {
        "source": source,
        "examples": {"shape": "table", "kept": sum(trained.counts.values()), "findings": {}},
        "splits": splits,
        "seal": trained.holdout_sha256,
    }
    (trained.folder / "data_manifest.json").write_text(json.dumps(known))
