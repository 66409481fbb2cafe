"""Baselines and candidate on the sealed holdout: what is written, what is asked, and that the holdout never leaks."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from fixtures_models import make_model, write_examples
from hypothesis import given, settings
from hypothesis import strategies as st

from prooftune.data.counting import TokenizerCounter
from prooftune.data.lines import read_lines, write_lines
from prooftune.errors import DataError, IntegrityError, SpecError
from prooftune.evaluation.answers.answering import Answer
from prooftune.evaluation.answers.subject import open_candidate, open_local
from prooftune.evaluation.candidate import evaluate_candidate
from prooftune.evaluation.ladder.baselines import run_baselines
from prooftune.evaluation.ladder.demonstrations import choose_demonstrations
from prooftune.evaluation.ladder.prompts import Asked, ask, question_text
from prooftune.evaluation.ladder.retrieval import Nearest
from prooftune.evaluation.ladder.shots import ShotsChoice, choose_shots, shots_to_try
from prooftune.evaluation.scoring import Contest
from prooftune.spec import Baseline, Task
from prooftune.types import Evaluation, Example, Message, Prediction, Progress, Report, no_report

TASK = Task(system="Shout the first word.", max_answer_tokens=6)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model's folder."""
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with train.jsonl, validation.jsonl and holdout.jsonl."""
    write_examples(tmp_path / "train.jsonl", 30, seed=1)
    write_examples(tmp_path / "validation.jsonl", 6, seed=3)
    write_examples(tmp_path / "holdout.jsonl", 9, seed=2)
    return tmp_path


def run(data: Path, model: Path, out: str = "out", task: Task = TASK, **options: Any) -> tuple[dict[str, Any], Path]:
    """Run a ladder of two rungs into a folder, with three demonstrations, unless told otherwise."""
    folder = data / out
    folder.mkdir(exist_ok=True)
    seal = hashlib.sha256((data / "holdout.jsonl").read_bytes()).hexdigest()
    baseline = Baseline(**{"ladder": ("zero_shot", "few_shot"), "shots": 3, "choose_on": 0, **options.pop("baseline", {})})
    splits = [data / f"{name}.jsonl" for name in ("train", "validation", "holdout")]
    base = open_local(model, options.pop("model_name", ""))
    return run_baselines(*splits, seal, base, task, baseline, folder, **options), folder


def test_each_rung_leaves_predictions_an_evaluation_and_its_prompt(data: Path, model: Path) -> None:
    """Predictions are in holdout order and scored by every metric of the evaluation; figures hold no timings."""
    seen: list[Progress] = []
    figures, out = run(data, model, report=seen.append)
    kinds = ("evaluation.json", "predictions.jsonl", "prompt.json", "confusion.csv")
    written = [f"{rung}.{kind}" for rung in ("zero_shot", "few_shot") for kind in kinds]
    assert sorted(path.name for path in out.iterdir()) == sorted([*written, "few_shot.choice.json"])
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
    timed = {"seconds", "latency_s", "latency_p50_s", "latency_p95_s", "tokens_per_second"}
    first, second = run(data, model, "one"), run(data, model, "two")
    assert first[0] == second[0]
    for path in (path for path in first[1].iterdir() if path.suffix != ".csv"):
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
    splits = [data / f"{name}.jsonl" for name in ("train", "validation", "holdout")]
    with pytest.raises(IntegrityError, match="sealed"):
        run_baselines(*splits, "0" * 64, open_local(model), TASK, Baseline(), data / "out")
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


def test_a_long_question_gets_fewer_demonstrations(data: Path, model: Path) -> None:
    """The worst ones are left out, for that question alone, and the description counts such questions."""
    holdout = list(read_lines(data / "holdout.jsonl", Example))
    long = Example(id="f" * 16, source="x:1", messages=(Message(role="user", content="x" * 420), Message(role="assistant", content="X")))
    write_lines(data / "holdout.jsonl", [*holdout, long])
    figures, out = run(data, model, baseline={"ladder": ("few_shot", "retrieved"), "system": ""})
    assert figures["few_shot"]["description"].endswith("; fewer with 1 of 10 questions, which leave no room for all")
    assert figures["retrieved"]["description"].endswith("; fewer with 1 of 10 questions, which leave no room for all")
    asked = {row.example_id: row.messages for row in read_lines(out / "retrieved.prompts.jsonl", Asked)}
    assert len(asked[long.id]) < 7 == len(asked[holdout[0].id])


def test_the_number_of_demonstrations_is_chosen_on_validation(data: Path, model: Path) -> None:
    """Powers of two up to ``shots`` are tried on the first validation examples by id, and the choice is kept with its scores."""
    seen: list[Progress] = []
    figures, out = run(data, model, baseline={"shots": 5, "choose_on": 4, "ladder": ("few_shot",)}, report=seen.append)
    choice = ShotsChoice.model_validate_json((out / "few_shot.choice.json").read_text())
    assert list(choice.scores) == [1, 2, 4, 5]
    assert (choice.n, choice.metric) == (4, "exact_match")
    assert figures["few_shot"]["choice"] == json.loads((out / "few_shot.choice.json").read_text())
    assert len(json.loads((out / "few_shot.prompt.json").read_text())) == 1 + 2 * choice.shots
    assert [(progress.done, progress.total) for progress in seen] == [(0, 9)] * 4 + [(9, 9)]
    assert seen[0].text == "few_shot: preparing, 4 of 16 answers"


class Scripted:
    """A model behind an API that answers right in as many cases as the script says for the number of demonstrations it sees."""

    model, batch_size = "scripted", 1

    def __init__(self, right: dict[int, int]) -> None:
        self.right = right
        self.asked: list[Sequence[Message]] = []

    def answer(self, prompts: Sequence[Sequence[Message]], *, max_new_tokens: int, report: Report = no_report) -> list[Answer]:
        """Answer RIGHT or WRONG."""
        self.asked += prompts
        texts = ["RIGHT" if at < self.right.get(len(prompt) // 2, 0) else "WRONG" for at, prompt in enumerate(prompts)]
        return [Answer(text, 1, 1, True, 0.1) for text in texts]


@given(st.lists(st.integers(0, 6), min_size=4, max_size=4))
@settings(deadline=None, max_examples=10)
def test_the_best_number_is_taken_and_of_equals_the_fewest(right: list[int]) -> None:
    """Whatever the scores are."""
    task = Task(metric="exact_match")
    questions = tuple(example(number, "RIGHT") for number in range(6))
    scripted = Scripted(dict(zip((1, 2, 4, 8), right, strict=True)))
    shown = [example(100 + number, "a") for number in range(8)]
    contest = Contest(questions, "", ("exact_match",), 4, task)
    choice = choose_shots(8, lambda asked, shots: ask(asked, "", shown[:shots]), contest, scripted)
    assert choice.scores == {shots: count / 6 for shots, count in scripted.right.items()}
    assert choice.shots == min(shots for shots, count in scripted.right.items() if count == max(right))
    assert shots_to_try(6) == [1, 2, 4, 6]
    assert shots_to_try(1) == [1]


def test_retrieved_shows_the_nearest_training_examples(data: Path, model: Path) -> None:
    """Each question sees those that share its words, the nearest one last, and the prompts are kept."""
    _, out = run(data, model, baseline={"ladder": ("retrieved",)})
    train = list(read_lines(data / "train.jsonl", Example))
    holdout = {example.id: example for example in read_lines(data / "holdout.jsonl", Example)}
    texts = [question_text(example) for example in train]
    index = Nearest().fit(texts)
    rows = list(read_lines(out / "retrieved.prompts.jsonl", Asked))
    assert [row.example_id for row in rows] == list(holdout)
    for row in rows:
        question = question_text(holdout[row.example_id])
        found, _ = index.search([question], 3)
        assert [m.content for m in row.messages if m.role == "user"] == [*(texts[at] for at in found[0][::-1]), question]
        assert [m.content for m in row.messages if m.role == "assistant"] == [train[at].target for at in found[0][::-1]]
    assert [message["role"] for message in json.loads((out / "retrieved.prompt.json").read_text())] == ["system"]


@pytest.mark.parametrize("split", ["holdout", "validation"])
def test_a_near_duplicate_is_never_shown_with_its_answer(split: str, data: Path, model: Path) -> None:
    """Splits that share a group are refused before anything is asked."""
    for name in ("train", split):
        rows = list(read_lines(data / f"{name}.jsonl", Example))
        write_lines(data / f"{name}.jsonl", [rows[0].model_copy(update={"group": "g"}), *rows[1:]])
    with pytest.raises(DataError, match=r"1 questions .* near-duplicate among the training examples"):
        run(data, model, baseline={"ladder": ("retrieved",), "choose_on": 6})


def test_rag_puts_the_nearest_passages_into_the_question(data: Path, model: Path) -> None:
    """Zero-shot instruction, then the passages fenced in the user's turn; the documents' other passages stay away."""
    (data / "facts.md").write_text("# Birds\n\nA bird is red.\n\n# Cats\n\nA cat is blue.\n\n# Zebras\n\nNobody asks about zebras.\n")
    figures, out = run(data, model, baseline={"ladder": ("rag",), "documents": "facts.md", "passages": 1}, documents=data / "facts.md")
    rows = list(read_lines(out / "rag.prompts.jsonl", Asked))
    holdout = list(read_lines(data / "holdout.jsonl", Example))
    for row, example in zip(rows, holdout, strict=True):
        assert [message.role for message in row.messages] == ["system", "user"]
        assert row.messages[1].content.endswith(f"</passage>\n\n{example.prompt[-1].content}")
        if "bird" in example.prompt[-1].content and "cat" not in example.prompt[-1].content:
            assert "A bird is red." in row.messages[1].content
    assert figures["rag"]["description"].startswith("system message, the 1 of 3 passages of the documents nearest to each question")
    with pytest.raises(SpecError, match=r"baseline\.documents"):
        run(data, model, "other", baseline={"ladder": ("rag",), "documents": "facts.md"})


def test_the_optimised_prompt_is_put_to_the_holdout(data: Path, model: Path) -> None:
    """What the search on validation found stands before every question, and its demonstrations are training examples."""
    figures, out = run(data, model, baseline={"ladder": ("optimised",), "optimise": {"calls": 10}})
    before = json.loads((out / "optimised.prompt.json").read_text())
    train = {example.target for example in read_lines(data / "train.jsonl", Example)}
    assert {message["content"] for message in before if message["role"] == "assistant"} <= train
    assert figures["optimised"]["description"].startswith("found by a search on validation examples: ")
    assert figures["optimised"]["metrics"]["exact_match"]["n"] == 9


def test_the_larger_model_gets_the_few_shot_prompt(data: Path, model: Path) -> None:
    """With the number of demonstrations that the base model did best with; the evaluation names who answered."""
    scripted = Scripted({})
    ladder = {"ladder": ("larger_model", "few_shot"), "larger": {"model": "scripted"}, "choose_on": 3}
    run(data, model, baseline=ladder, larger=lambda: scripted, model_name="small")
    few = json.loads((data / "out" / "few_shot.prompt.json").read_text())
    assert json.loads((data / "out" / "larger_model.prompt.json").read_text()) == few
    assert [[message.model_dump() for message in asked[:-1]] for asked in scripted.asked] == [few] * 9
    models = {name: json.loads((data / "out" / f"{name}.evaluation.json").read_text())["model"] for name in ladder["ladder"]}
    assert models == {"larger_model": "scripted", "few_shot": "small"}
    with pytest.raises(SpecError, match=r"baseline\.larger\.model"):
        run(data, model, "other", baseline=ladder)


def test_a_killed_ladder_goes_on_with_the_rung_it_was_at(data: Path, model: Path) -> None:
    """What has an evaluation is not asked again; what was left half done is done anew; the result is the same."""
    whole, out = run(data, model)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.name.startswith("zero_shot")}
    for path in out.glob("few_shot.*"):
        path.unlink()
    (out / "few_shot.unfinished").mkdir()
    (out / "few_shot.unfinished" / "few_shot.predictions.jsonl").write_text("{")
    seen: list[Progress] = []
    again, _ = run(data, model, report=seen.append)
    assert again == whole
    assert {progress.text for progress in seen} == {"few_shot"}
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.name.startswith("zero_shot")} == before
    assert not (out / "few_shot.unfinished").exists()


def test_a_rung_that_fails_leaves_no_evaluation(data: Path, model: Path) -> None:
    """A kill in the middle of the answers is taken up at that rung."""

    def stop(progress: Progress) -> None:
        if progress.text == "few_shot":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(data, model, report=stop)
    assert (data / "out" / "zero_shot.evaluation.json").exists()
    assert not (data / "out" / "few_shot.evaluation.json").exists()
    figures, _ = run(data, model)
    assert list(figures) == ["zero_shot", "few_shot"]


def test_the_candidate_answers_under_the_system_message_of_its_training(data: Path, model: Path) -> None:
    """An adapter that changes nothing scores like the zero-shot baseline under the same system message, answer by answer."""
    from peft import LoraConfig, get_peft_model

    from prooftune.models.loading import load_base, load_tokenizer

    get_peft_model(load_base(model), LoraConfig(r=2, target_modules="all-linear")).save_pretrained(data / "adapter")
    _, out = run(data, model)
    seal = hashlib.sha256((data / "holdout.jsonl").read_bytes()).hexdigest()
    tokenizer = load_tokenizer(model)
    candidate = [lambda: nullcontext(open_candidate(model, data / "adapter", tokenizer))]
    splits = data / "train.jsonl", data / "holdout.jsonl"
    figures = evaluate_candidate(*splits, seal, candidate, TokenizerCounter(tokenizer), "lora", TASK, out)
    assert list(figures) == ["candidate"]
    tuned = list(read_lines(out / "candidate.predictions.jsonl", Prediction))
    baseline = list(read_lines(out / "zero_shot.predictions.jsonl", Prediction))
    assert [(p.answer, p.prompt_tokens, p.scores) for p in tuned] == [(p.answer, p.prompt_tokens, p.scores) for p in baseline]


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
