"""Baselines and candidate on the sealed holdout: what is written, what is asked, and that the holdout never leaks."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fixtures_models import make_model, write_examples
from hypothesis import given, settings
from hypothesis import strategies as st

from prooftune.data.lines import read_lines, write_lines
from prooftune.errors import DataError, IntegrityError
from prooftune.evaluation.baselines import ask, run_baselines
from prooftune.evaluation.candidate import evaluate_candidate
from prooftune.evaluation.demonstrations import choose_demonstrations
from prooftune.spec import Baseline, Task
from prooftune.types import Evaluation, Example, Message, Prediction, Progress

TASK = Task(system="Shout the first word.", max_answer_tokens=6)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model's folder."""
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with train.jsonl and holdout.jsonl."""
    write_examples(tmp_path / "train.jsonl", 30, seed=1)
    write_examples(tmp_path / "holdout.jsonl", 9, seed=2)
    return tmp_path


def run(data: Path, model: Path, out: str = "out", task: Task = TASK, **options: Any) -> tuple[dict[str, Any], Path]:
    """Run the ladder into a fresh folder."""
    folder = data / out
    folder.mkdir()
    seal = hashlib.sha256((data / "holdout.jsonl").read_bytes()).hexdigest()
    baseline = Baseline(shots=3, **options.pop("baseline", {}))
    return run_baselines(data / "train.jsonl", data / "holdout.jsonl", seal, model, task, baseline, folder, **options), folder


def test_each_rung_leaves_predictions_an_evaluation_and_its_prompt(data: Path, model: Path) -> None:
    """Predictions are in holdout order and scored by every metric of the evaluation; figures hold no timings."""
    seen: list[Progress] = []
    figures, out = run(data, model, report=seen.append)
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f"{rung}.{kind}" for rung in ("zero_shot", "few_shot") for kind in ("evaluation.json", "predictions.jsonl", "prompt.json")
    )
    holdout = list(read_lines(data / "holdout.jsonl", Example))
    for rung in ("zero_shot", "few_shot"):
        predictions = list(read_lines(out / f"{rung}.predictions.jsonl", Prediction))
        evaluation = Evaluation.model_validate_json((out / f"{rung}.evaluation.json").read_text())
        assert [(p.example_id, p.prompt, p.target) for p in predictions] == [(e.id, e.prompt[-1].content, e.target) for e in holdout]
        assert all(p.scores.keys() == evaluation.metrics.keys() and 1 <= p.answer_tokens <= 6 for p in predictions)
        assert figures[rung]["metrics"]["exact_match"]["n"] == evaluation.metrics["exact_match"].n == 9
        assert not any("latency" in key or "second" in key for key in figures[rung])
    assert [(progress.done, progress.total, progress.text) for progress in seen] == [(9, 18, "zero_shot"), (18, 18, "few_shot")]


def test_running_twice_differs_in_timings_alone(data: Path, model: Path) -> None:
    """Answers, scores, metrics and prompts are the same each time."""
    timed = {"latency_s", "latency_p50_s", "latency_p95_s", "tokens_per_second"}
    first, second = run(data, model, "one"), run(data, model, "two")
    assert first[0] == second[0]
    for path in first[1].iterdir():
        texts = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        again = (second[1] / path.name).read_text()
        others = again.splitlines() if path.suffix == ".jsonl" else [again]
        for a, b in zip(map(json.loads, texts), map(json.loads, others), strict=True):
            if isinstance(a, dict):
                a, b = ({key: value for key, value in side.items() if key not in timed} for side in (a, b))
            assert a == b


def test_the_prompt_shows_training_examples_only(data: Path, model: Path) -> None:
    """System message, then as many question and answer turns as asked for, each from the training split."""
    _, out = run(data, model, baseline={"system": "A fuller instruction."})
    messages = json.loads((out / "few_shot.prompt.json").read_text())
    assert messages[0] == {"role": "system", "content": "A fuller instruction."}
    train = {tuple(message.content for message in example.messages) for example in read_lines(data / "train.jsonl", Example)}
    assert {(q["content"], a["content"]) for q, a in zip(messages[1::2], messages[2::2], strict=True)} <= train
    assert len(messages) == 1 + 2 * 3
    assert json.loads((out / "zero_shot.prompt.json").read_text()) == messages[:1]


def test_a_changed_holdout_is_refused(data: Path, model: Path) -> None:
    """The seal is checked before anything is asked."""
    with (data / "holdout.jsonl").open("a") as file:
        file.write("\n")
    (data / "out").mkdir()
    with pytest.raises(IntegrityError, match="sealed"):
        run_baselines(data / "train.jsonl", data / "holdout.jsonl", "0" * 64, model, TASK, Baseline(), data / "out")
    assert list((data / "out").iterdir()) == []


def test_a_metric_that_fits_no_target_is_refused(data: Path, model: Path) -> None:
    """Before the model has answered for an hour."""
    with pytest.raises(DataError, match="json_field_accuracy applies to none of the 9"):
        run(data, model, task=Task(metric="json_field_accuracy"))


def test_the_answer_limit_is_half_as_long_again_as_the_longest_target(data: Path, model: Path) -> None:
    """One token a byte: a target of five letters and its end of turn allow nine tokens."""
    _, out = run(data, model, task=Task())
    longest = max(len(example.target) for example in read_lines(data / "train.jsonl", Example))
    predictions = list(read_lines(out / "zero_shot.predictions.jsonl", Prediction))
    assert longest == 5
    assert {p.answer_tokens for p in predictions if not p.finished} <= {9}
    assert max(p.answer_tokens for p in predictions) <= 9


def test_few_shot_prompts_fit_into_half_of_the_context(data: Path, model: Path) -> None:
    """Demonstrations that do not fit are left out, and the description says how many there are."""
    long = [Message(role="user", content="word " * 30), Message(role="assistant", content="WORD")]
    examples = [Example(id=f"{n:016x}", source="x:1", messages=tuple(long)) for n in range(10)]
    write_lines(data / "train.jsonl", examples)
    figures, _ = run(data, model)
    assert figures["few_shot"]["description"].startswith("system message, 1 demonstration from")


def test_the_candidate_answers_under_the_system_message_of_its_training(data: Path, model: Path) -> None:
    """An adapter that changes nothing scores like the zero-shot baseline under the same system message, answer by answer."""
    from peft import LoraConfig, get_peft_model

    from prooftune.models.loading import load_base

    get_peft_model(load_base(model), LoraConfig(r=2, target_modules="all-linear")).save_pretrained(data / "adapter")
    _, out = run(data, model)
    seal = hashlib.sha256((data / "holdout.jsonl").read_bytes()).hexdigest()
    figures = evaluate_candidate(data / "train.jsonl", data / "holdout.jsonl", seal, model, data / "adapter", TASK, out)
    assert list(figures) == ["candidate"]
    candidate = list(read_lines(out / "candidate.predictions.jsonl", Prediction))
    baseline = list(read_lines(out / "zero_shot.predictions.jsonl", Prediction))
    assert [(p.answer, p.prompt_tokens, p.scores) for p in candidate] == [(p.answer, p.prompt_tokens, p.scores) for p in baseline]


def example(number: int, target: str, length: int = 10, system: str | None = None) -> Example:
    """One example with a prompt of the given length."""
    head = [Message(role="system", content=system)] if system else []
    messages = (*head, Message(role="user", content="x" * length), Message(role="assistant", content=target))
    return Example(id=f"{number:016x}", source=f"x:{number}", messages=messages)


def test_an_example_keeps_its_own_system_message() -> None:
    """Demonstrations stand between the system message and the question, without system messages of their own."""
    asked = ask(example(1, "a", system="Mine."), "Ours.", [example(2, "b", system="Theirs.")])
    assert [(m.role, m.content[:5]) for m in asked] == [
        ("system", "Mine."),
        ("user", "xxxxx"),
        ("assistant", "b"),
        ("user", "xxxxx"),
    ]


def test_demonstrations_are_spread_in_proportion() -> None:
    """Of 60 % a, 30 % b and 10 % c, ten demonstrations show six, three and one."""
    train = [example(n, target) for n, target in enumerate("a" * 60 + "b" * 30 + "c" * 10)]
    assert Counter(chosen.target for chosen in choose_demonstrations(train, 10)) == {"a": 6, "b": 3, "c": 1}
    assert len(choose_demonstrations(train[:4], 10)) == 4


def test_demonstrations_cover_the_fields_of_json_targets() -> None:
    """Each field counts by itself, so few demonstrations show every value."""
    targets = [json.dumps({"kind": kind, "urgent": urgent}) for kind in "abcd" for urgent in (True, False) for _ in range(5)]
    chosen = [json.loads(e.target) for e in choose_demonstrations([example(n, t) for n, t in enumerate(targets)], 4)]
    assert {found["kind"] for found in chosen} == set("abcd")
    assert Counter(found["urgent"] for found in chosen) == {True: 2, False: 2}


def test_demonstrations_are_short_but_not_stunted() -> None:
    """Among equals the one of about lower-quartile length is shown."""
    train = [example(n, "a", length) for n, length in enumerate([1, *[20] * 30, *[200] * 69])]
    assert len(choose_demonstrations(train, 1)[0].messages[0].content) == 20


@given(st.permutations([example(n, "abc"[n % 3], 5 + n * 7 % 40) for n in range(20)]), st.integers(1, 25))
@settings(deadline=None, max_examples=25)
def test_the_choice_does_not_depend_on_the_order(train: list[Example], shots: int) -> None:
    """The same training examples give the same demonstrations, none of them twice."""
    chosen = choose_demonstrations(train, shots)
    assert chosen == choose_demonstrations(sorted(train, key=lambda e: e.id), shots)
    assert len({e.id for e in chosen}) == len(chosen) == min(shots, 20)
