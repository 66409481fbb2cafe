"""Forgetting: the general suite is well formed, likelihoods are the model's own, and before and after are compared in pairs."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest

from prooftune.errors import DataError, EnvironmentLacks
from prooftune.evaluation.answers.likelihood import choice_scores, text_losses
from prooftune.evaluation.general import Answers, Question, Text, compare_suite, load_questions, load_texts, measure_forgetting
from prooftune.evidence import Forgetting
from prooftune.models.loading import load_base, load_tokenizer
from prooftune.spec import General

QUESTIONS = ["red road", "amber bridge in the morning fog", "green"]
CHOICES = [["stop", "wait now", "go"], ["go", "stop", "wait by the river"], ["old mill", "go", "wait"]]


def test_the_shipped_suite_is_well_formed() -> None:
    """Every question has four different choices, no position is favoured, and nothing occurs twice."""
    questions, texts = load_questions(), load_texts()
    assert len(questions) >= 100
    assert len(texts) >= 20
    assert all(len(set(question.choices)) == 4 and 0 <= question.answer < 4 for question in questions)
    assert len({question.question for question in questions}) == len(questions)
    assert len({text.text for text in texts}) == len(texts)
    assert max(Counter(question.answer for question in questions).values()) < 0.4 * len(questions)


def test_choices_are_scored_as_if_each_stood_alone(tiny_model: Path) -> None:
    """Batches, padding and the copied cache change nothing about a choice's log-likelihood per character."""
    import torch

    model, tokenizer = load_base(tiny_model, device="cpu"), load_tokenizer(tiny_model)
    found = choice_scores(model, tokenizer, QUESTIONS, CHOICES)
    for question, choices, scores in zip(QUESTIONS, CHOICES, found, strict=True):
        prompt = tokenizer(f"Question: {question}\nAnswer:")["input_ids"]
        for choice, score in zip(choices, scores, strict=True):
            answer = tokenizer(f" {choice}", add_special_tokens=False)["input_ids"]
            with torch.inference_mode():
                logits = torch.log_softmax(model(torch.tensor([prompt + answer])).logits[0], dim=-1)
            alone = sum(float(logits[len(prompt) + at - 1, token]) for at, token in enumerate(answer))
            assert score == pytest.approx(alone / len(choice), abs=1e-5)


def test_a_texts_loss_is_the_models_own(tiny_model: Path) -> None:
    """The summed loss over tokens is what the model itself computes for labels."""
    import torch

    model, tokenizer = load_base(tiny_model, device="cpu"), load_tokenizer(tiny_model)
    texts = ["road bridge tram", "the old mill by the river in the winter snow", "red stop"]
    for text, (loss, tokens) in zip(texts, text_losses(model, tokenizer, texts), strict=True):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.inference_mode():
            own = float(model(ids, labels=ids).loss)
        assert tokens == ids.shape[1] - 1
        assert loss / tokens == pytest.approx(own, rel=1e-4)


def test_changes_are_paired_and_negative_is_worse() -> None:
    """Lost answers are a negative change of accuracy, a higher loss a negative change of perplexity, relative to before."""
    questions = [Question("a", str(at), ("x", "y"), 0) for at in range(40)]
    texts = [Text("b", str(at)) for at in range(12)]
    before = Answers(tuple(at % 4 != 0 for at in range(40)), tuple((20.0 + at, 10) for at in range(12)))
    after = Answers(tuple(at % 2 != 0 for at in range(40)), tuple((loss + 1.0, tokens) for loss, tokens in before.losses))
    parts = {part.name: part for part in compare_suite(questions, texts, before, after)}
    assert list(parts)[:2] == ["multiple choice", "perplexity"]
    accuracy, perplexity = parts["multiple choice"], parts["perplexity"]
    assert (accuracy.before, accuracy.after, accuracy.change, accuracy.n) == (0.75, 0.5, -0.25, 40)
    assert accuracy.ci_high is not None
    assert accuracy.ci_high < 0
    assert perplexity.change == pytest.approx(-(math.exp(0.1) - 1))
    assert perplexity.ci_low == pytest.approx(perplexity.change)


def test_an_adapter_that_changes_nothing_forgets_nothing(tiny_model: Path, tmp_path: Path) -> None:
    """A fresh LoRA adapter is the identity, so every part is as before, and the files say so item by item."""
    from peft import LoraConfig, get_peft_model

    adapter, out = tmp_path / "adapter", tmp_path / "out"
    out.mkdir()
    get_peft_model(load_base(tiny_model, device="cpu"), LoraConfig(r=2, target_modules="all-linear")).save_pretrained(adapter)
    figures = measure_forgetting(tiny_model, adapter, General(), out)
    forgetting = Forgetting.model_validate_json((out / "forgetting.json").read_text())
    assert [part.change for part in forgetting.parts] == pytest.approx([0.0] * len(forgetting.parts))
    assert len(figures["parts"]) == len(forgetting.parts)
    items = [json.loads(line) for line in (out / "general.jsonl").read_text().splitlines()]
    assert len(items) == len(load_questions()) + len(load_texts())
    assert all(item["before"] == item["after"] for item in items)


def test_wanting_lm_eval_without_it_says_what_to_install(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the tasks and the package."""
    from prooftune.evaluation.general import harness

    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentLacks, match=r"arc_easy.*lm-eval"):
        harness.run_tasks(None, None, General(lm_eval=("arc_easy",)))  # type: ignore[arg-type]


def test_without_lm_eval_tasks_nothing_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check is free where no task is named."""
    from prooftune.evaluation.general import harness

    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    harness.check_tasks(General())
    with pytest.raises(EnvironmentLacks, match=r"arc_easy.*lm-eval"):
        harness.check_tasks(General(lm_eval=("arc_easy",)))


@pytest.fixture
def colours(tmp_path: Path) -> General:
    """A task of one's own with two filters, in a folder with a group of it and a task that measures something else."""
    pytest.importorskip("lm_eval", reason="lm-eval is not installed; the extra lm-eval has it")
    rows = [{"question": "red", "choices": ["stop", "wait", "go"], "gold": at % 3} for at in range(6)]
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder / 'rows.jsonl'}}}}}\ntest_split: test\n"
    (folder / "colours.yaml").write_text(
        f"task: colours\n{data}output_type: multiple_choice\ndoc_to_text: '{{{{question}}}}'\ndoc_to_choice: '{{{{choices}}}}'\n"
        "doc_to_target: gold\nmetric_list: [{metric: acc}]\n"
    )
    (folder / "meanings.yaml").write_text(
        f"task: meanings\n{data}output_type: generate_until\ndoc_to_text: '{{{{question}}}}'\ndoc_to_target: '{{{{choices[gold]}}}}'\n"
        "generation_kwargs: {until: ['.'], max_gen_toks: 2}\nmetric_list: [{metric: exact_match}]\nfilter_list:\n"
        "- {name: strict, filter: [{function: regex, regex_pattern: '(xyz)'}, {function: take_first}]}\n"
        "- {name: loose, filter: [{function: take_first}]}\n"
    )
    (folder / "loose.yaml").write_text(f"task: likeness\n{data}output_type: generate_until\nmetric_list: [{{metric: bleu}}]\n")
    (folder / "all.yaml").write_text("group: all_colours\ntask: [colours, meanings]\n")
    return General(suite="none", lm_eval=("colours", "meanings"), lm_eval_folder=str(folder))


def test_own_lm_eval_tasks_are_run_item_by_item(
    colours: General, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A task read from a local file gives one right or wrong an item, however many filters it has; the log shows that it goes on."""
    from prooftune.evaluation.general.harness import check_tasks, run_tasks

    monkeypatch.setattr("prooftune.evaluation.general.harness.SAY_EVERY_S", 0.0)
    caplog.set_level("INFO", logger="prooftune")
    check_tasks(colours)
    model, tokenizer = load_base(tiny_model, device="cpu"), load_tokenizer(tiny_model)
    values = run_tasks(model, tokenizer, colours)
    assert sorted(set(values["colours"])) == [0.0, 1.0]
    assert sum(values["colours"]) == 2
    assert values["meanings"] == [0.0] * 6
    assert "lm-eval's tasks go on: the model was asked 3 times" in caplog.text


def test_the_first_filter_counts() -> None:
    """Of two samples of a document, the one by the task's first filter is taken, in the documents' order."""
    from prooftune.evaluation.general.harness import _items

    samples = [{"doc_id": at, "filter": "strict", "exact_match": float(at == 1)} for at in (2, 0, 1)]
    samples += [{"doc_id": at, "filter": "loose", "exact_match": 1.0} for at in (0, 1, 2)]
    assert _items("gsm8k", samples) == [0.0, 1.0, 0.0]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "message"), [("no_such_task", "knows no task no_such_task"), ("mmlu", "mmlu is a group of tasks")])
def test_what_is_no_single_task_is_refused(colours: General, name: str, message: str) -> None:
    """Before anything is run; a group has no items of its own to compare."""
    from prooftune.evaluation.general.harness import check_tasks

    with pytest.raises(DataError, match=message):
        check_tasks(colours.model_copy(update={"lm_eval": ("colours", name)}))


@pytest.mark.parametrize(
    ("name", "message"),
    [("likeness", "likeness measures neither acc nor exact_match"), ("all_colours", "all_colours is a group of tasks")],
)
def test_own_tasks_that_cannot_be_compared_are_refused(colours: General, name: str, message: str) -> None:
    """A likeness cannot be counted in right answers, and its description tells before it runs."""
    from prooftune.evaluation.general.harness import check_tasks

    with pytest.raises(DataError, match=message):
        check_tasks(colours.model_copy(update={"lm_eval": (name,)}))


def test_without_the_suite_the_named_tasks_are_run_alone(colours: General, tiny_model: Path, tmp_path: Path) -> None:
    """The shipped questions are not asked, the tasks are, and the file says so."""
    from peft import LoraConfig, get_peft_model

    adapter, out = tmp_path / "adapter", tmp_path / "out"
    out.mkdir()
    get_peft_model(load_base(tiny_model, device="cpu"), LoraConfig(r=2, target_modules="all-linear")).save_pretrained(adapter)
    measure_forgetting(tiny_model, adapter, colours, out)
    parts = Forgetting.model_validate_json((out / "forgetting.json").read_text()).parts
    assert [(part.name, part.n, part.change) for part in parts] == [("lm-eval: colours", 6, 0.0), ("lm-eval: meanings", 6, 0.0)]
    assert (out / "general.jsonl").read_text() == ""
