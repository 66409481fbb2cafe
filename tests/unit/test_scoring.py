"""A contestant's evaluation: what is counted, what is written, and what every contestant has in common."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from fixtures_tokenizer import write_tokenizer

from prooftune.data.counting import Counter, TokenizerCounter
from prooftune.data.lines import read_lines, write_lines
from prooftune.errors import DataError, EnvironmentLacks, SpecError
from prooftune.evaluation.answers.answering import Answer
from prooftune.evaluation.scoring import evaluate, figures, open_contest, open_unsealed_contest
from prooftune.models.loading import load_tokenizer
from prooftune.spec import Task
from prooftune.types import Evaluation, Example, Message, Prediction, Progress, Report, no_report

TARGETS = ("billing", "account", "billing", "account", "billing")
SAID = ("Billing.", "billing", "I'm sorry, but I can't help with that.", " ", "billing")


class Scripted:
    """A host whose model says what it is told to."""

    model = "scripted"
    batch_size = 3

    def __init__(self, said: Sequence[str]) -> None:
        self.said = said
        self.prompts: list[list[Message]] = []
        self.limit = 0

    def answer(self, prompts: Sequence[Sequence[Message]], *, max_new_tokens: int, report: Report = no_report) -> list[Answer]:
        """Say it, one word a token."""
        self.prompts, self.limit = [list(prompt) for prompt in prompts], max_new_tokens
        report(Progress(done=len(prompts), total=len(prompts), unit="answers"))
        return [Answer(text, 7, len(text.split()) + 1, True, 0.1 * (at + 1)) for at, text in enumerate(self.said)]


def examples(targets: Sequence[str]) -> list[Example]:
    """Return an example a target."""
    return [
        Example(
            id=f"{n:016x}",
            source=f"x:{n + 1}",
            messages=(Message(role="user", content=f"q{n}"), Message(role="assistant", content=target)),
        )
        for n, target in enumerate(targets)
    ]


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Counter:
    """One token a byte."""
    return TokenizerCounter(load_tokenizer(write_tokenizer(tmp_path_factory.mktemp("tokenizer"))))


def run(folder: Path, counter: Counter, task: Task, report: Report = no_report) -> tuple[Evaluation, Scripted]:
    """Evaluate the scripted contestant on the holdout."""
    holdout = folder / "holdout.jsonl"
    write_lines(holdout, examples(TARGETS))
    contest = open_contest(examples(TARGETS), holdout, hashlib.sha256(holdout.read_bytes()).hexdigest(), task, counter)
    host = Scripted(SAID)
    return evaluate("few_shot", "as told", lambda example: example.prompt, contest, host, folder, report, model="larger"), host


def test_an_evaluation_says_what_came_back(tmp_path: Path, counter: Counter) -> None:
    """Lengths, latencies, refusals, empty answers, the contestant's model and its batch size."""
    seen: list[Progress] = []
    found, host = run(tmp_path, counter, Task(), seen.append)
    assert [prompt[-1].content for prompt in host.prompts] == ["q0", "q1", "q2", "q3", "q4"]
    assert host.limit == 12  # half as long again as "billing" and its end of turn
    assert (found.name, found.description, found.model, found.batch_size) == ("few_shot", "as told", "larger", 3)
    assert found.answer_tokens_mean == (2 + 2 + 9 + 1 + 2) / 5
    assert (found.answer_tokens_p50, found.prompt_tokens_mean) == (2, 7)
    assert (found.latency_p50_s, found.latency_p95_s) == (pytest.approx(0.3), pytest.approx(0.48))
    assert (found.refusals, found.empty) == (0.2, 0.2)
    assert found.seconds > 0
    assert found.tokens_per_second == pytest.approx(16 / found.seconds)
    assert found.holdout_sha256 == hashlib.sha256((tmp_path / "holdout.jsonl").read_bytes()).hexdigest()
    assert [(one.done, one.total, one.text) for one in seen] == [(5, 5, "few_shot")]
    handed_on = figures(found)
    assert not any("latency" in key or "second" in key for key in handed_on)


def test_answers_evaluation_and_confusion_are_written(tmp_path: Path, counter: Counter) -> None:
    """Answers in the holdout's order with their scores; labels get a confusion matrix."""
    found, _ = run(tmp_path, counter, Task())
    assert Evaluation.model_validate_json((tmp_path / "few_shot.evaluation.json").read_text()) == found
    answers = list(read_lines(tmp_path / "few_shot.predictions.jsonl", Prediction))
    assert [one.answer for one in answers] == list(SAID)
    assert [one.scores["label_accuracy"] for one in answers] == [1.0, 0.0, 0.0, 0.0, 1.0]
    assert list(found.metrics) == ["exact_match", "label_accuracy", "macro_f1"]
    with (tmp_path / "few_shot.confusion.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["target", "account", "billing", "(other)"],
            ["account", "0", "1", "1"],
            ["billing", "0", "2", "1"],
        ]


def test_other_answers_have_no_confusion(tmp_path: Path, counter: Counter) -> None:
    """A matrix of JSON objects would say nothing."""
    targets = [json.dumps({"n": n}) for n in range(5)]
    contest = open_unsealed_contest([], examples(targets), Task(max_answer_tokens=5), counter)
    found = evaluate("zero_shot", "", lambda example: example.prompt, contest, Scripted(targets), tmp_path)
    assert found.metrics["json_valid"].value == 1.0
    assert found.holdout_sha256 == ""
    assert not (tmp_path / "zero_shot.confusion.csv").exists()


def test_further_metrics_of_the_task_are_taken(tmp_path: Path, counter: Counter) -> None:
    """The task's options reach the metrics; one that fits no target is left out, unless it is the one that decides."""
    task = Task(metrics=("regex_match", "json_schema"), pattern="[a-z]+", json_schema={"type": "object"})
    found, _ = run(tmp_path, counter, task)
    assert "json_schema" not in found.metrics
    assert found.metrics["regex_match"].value == 0.4
    with pytest.raises(DataError, match="json_schema applies to none of the 5"):
        run(tmp_path, counter, task.model_copy(update={"metric": "json_schema"}))


def test_what_a_metric_lacks_is_said_before_anything_is_asked(tmp_path: Path, counter: Counter) -> None:
    """An unusable schema or a metric that is not installed must not cost an hour of answers."""
    with pytest.raises(SpecError, match="at type"):
        run(tmp_path, counter, Task(metrics=("json_schema",), json_schema={"type": "objekt"}))
    with pytest.raises(EnvironmentLacks, match="custom:absent"):
        run(tmp_path, counter, Task(metrics=("custom:absent",)))


def test_a_contest_without_questions_is_an_error(counter: Counter) -> None:
    """It says which share to raise."""
    with pytest.raises(DataError, match=r"raise data\.split\.validation"):
        open_unsealed_contest(examples(TARGETS), [], Task(), counter)
