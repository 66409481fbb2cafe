"""The candidate's checkpoints on the holdout: which one is taken, what is written of it, and what is told of the others."""

from __future__ import annotations

import hashlib
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from fixtures_models import make_model, write_examples

from prooftune.data.counting import TokenizerCounter
from prooftune.data.lines import read_lines, write_lines
from prooftune.evaluation.answers.subject import open_candidate
from prooftune.evaluation.candidate import evaluate_candidate
from prooftune.models.loading import load_tokenizer
from prooftune.spec import Gate, Task
from prooftune.types import Evaluation, Example, Message, Prediction

TASK = Task(max_answer_tokens=4)
FILES = ["candidate.evaluation.json", "candidate.predictions.jsonl"]


def with_a_head_of_its_own(folder: Path) -> Path:
    """Write a tiny model that does not just repeat the last token, as one with tied embeddings does."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(make_model(folder), tie_word_embeddings=False)
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


class Contest:
    """A holdout whose targets are what one of two models answers: that one is always right, the other never."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wrong, self.right = make_model(folder / "wrong"), with_a_head_of_its_own(folder / "right")
        self.train, self.holdout = write_examples(folder / "train.jsonl", 20, seed=1), write_examples(folder / "holdout.jsonl", 12, seed=2)
        self.evaluate("right's answers", self.right)
        answers = {p.example_id: p.answer for p in read_lines(folder / "right's answers" / FILES[1], Prediction)}
        rows = [
            row.model_copy(update={"messages": (*row.prompt, Message(role="assistant", content=answers[row.id]))})
            for row in read_lines(self.holdout, Example)
        ]
        write_lines(self.holdout, rows)
        self.evaluate("baseline", self.wrong)
        self.baselines = {"zero_shot": list(read_lines(folder / "baseline" / FILES[1], Prediction))}

    def evaluate(self, name: str, weights: Path, **options: Any) -> dict[str, Any]:
        """Let a model and perhaps further ones answer the holdout."""
        seal = hashlib.sha256(self.holdout.read_bytes()).hexdigest()
        out = self.folder / name
        out.mkdir()
        tokenizer = load_tokenizer(self.wrong)
        candidates = [
            lambda folder=folder: nullcontext(open_candidate(self.wrong, folder, tokenizer, kind="full"))
            for folder in (weights, *options.pop("further", ()))
        ]
        return evaluate_candidate(self.train, self.holdout, seal, candidates, TokenizerCounter(tokenizer), "full", TASK, out, **options)


@pytest.fixture(scope="module")
def contest(tmp_path_factory: pytest.TempPathFactory) -> Contest:
    """One contest for all tests: none changes it."""
    return Contest(tmp_path_factory.mktemp("contest"))


def test_the_second_checkpoint_is_taken_where_it_alone_would_be_promoted(contest: Contest) -> None:
    """Its files and figures stand, with its look and share of alpha; the third is never loaded."""
    missing = contest.folder / "never loaded"
    further = [contest.right, missing]
    figures = contest.evaluate("second", contest.wrong, further=further, baselines=contest.baselines, gate=Gate(looks=3, min_holdout=2))
    out = contest.folder / "second"
    evaluation = Evaluation.model_validate_json((out / FILES[0]).read_bytes())
    assert (figures["look"], figures["alpha"]) == (2, 0.0125)
    assert figures["candidate"]["metrics"]["exact_match"]["value"] == evaluation.metrics["exact_match"].value == 1.0
    assert {p.scores["exact_match"] for p in read_lines(out / FILES[1], Prediction)} == {1.0}
    told = json.loads((out / "looks.json").read_text())
    assert told["planned"] == 3
    assert [(look["look"], look["share"], look["verdict"], look["candidate_value"]) for look in told["looks"]] == [
        (1, 0.025, "inconclusive", 0.0),
        (2, 0.0125, "promote", 1.0),
    ]
    assert not [path for path in out.iterdir() if path.is_dir()]


def test_the_first_is_taken_where_none_would_be_promoted(contest: Contest) -> None:
    """And the gate then decides on it at its own share, which it failed."""
    figures = contest.evaluate("none", contest.wrong, further=[contest.wrong], baselines=contest.baselines, gate=Gate(looks=2))
    assert (figures["look"], figures["alpha"]) == (1, 0.025)
    assert [look["look"] for look in json.loads((contest.folder / "none" / "looks.json").read_text())["looks"]] == [1, 2]
    assert figures["candidate"]["metrics"]["exact_match"]["value"] == 0.0


def test_the_share_of_a_look_is_handed_on_and_not_what_holm_left_of_it(contest: Contest) -> None:
    """The gate divides it among the metrics itself, once."""
    rules = Gate(looks=2, metrics=("label_accuracy",))
    figures = contest.evaluate("metrics", contest.wrong, further=[contest.wrong], baselines=contest.baselines, gate=rules)
    assert figures["alpha"] == 0.025
    assert json.loads((contest.folder / "metrics" / "looks.json").read_text())["looks"][0]["alpha"] == 0.0125


@pytest.mark.parametrize("rules", [None, Gate(), Gate(looks=1)])
def test_one_look_is_as_without_a_gate(contest: Contest, rules: Gate | None) -> None:
    """No further checkpoint is loaded, and there is nothing to tell of looks."""
    name = f"one {rules is None} {id(rules)}"
    figures = contest.evaluate(name, contest.right, further=[contest.folder / "never loaded"], baselines=contest.baselines, gate=rules)
    assert list(figures) == ["candidate"]
    assert sorted(path.name for path in (contest.folder / name).iterdir() if path.suffix != ".csv") == FILES


def test_looks_without_baselines_are_an_error(contest: Contest) -> None:
    """A checkpoint cannot be found better than nothing."""
    with pytest.raises(ValueError, match="2 checkpoints are to be tried, and there are no baselines"):
        contest.evaluate("no baselines", contest.wrong, further=[contest.right], gate=Gate(looks=4))
