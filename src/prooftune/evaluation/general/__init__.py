"""Forgetting: a general suite put to the base model and to the candidate.

On this machine, multiple choice: the choice whose characters are likeliest after the question wins (log-likelihood divided by length, as
``acc_norm`` of lm-evaluation-harness); and perplexity: exp of the mean loss over all tokens of the texts. Both are likelihoods, so nothing
is generated and an answer's form does not count. Behind an API there are none: the questions are asked in words, and there is no
perplexity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prooftune.errors import SpecError
from prooftune.evaluation.answers.answering import Answerer
from prooftune.evaluation.answers.likelihood import choice_scores, text_losses
from prooftune.evaluation.general.asking import ask_questions
from prooftune.evaluation.general.comparison import CHOICES, LOSSES, compare_harness, compare_suite
from prooftune.evaluation.general.items import Answers, Question, Text, load_questions, load_texts, write_items
from prooftune.evidence import Forgetting
from prooftune.evidence import General as Part
from prooftune.models.loading import Kind, load_base, load_candidate, load_tokenizer
from prooftune.spec import General
from prooftune.types import Progress, Report, no_report

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "Answers",
    "Question",
    "Text",
    "answer_suite",
    "ask_forgetting",
    "compare_suite",
    "load_questions",
    "load_texts",
    "measure_forgetting",
]

NO_LIKELIHOODS = "An API shows no likelihoods of a text."
NO_CHOICES = "No question was answered with one of its choices both before and after tuning."


def measure_forgetting(
    model_folder: Path,
    weights: Path,
    options: General,
    out: Path,
    report: Report = no_report,
    *,
    kind: Kind = "lora",
    trust_remote_code: bool = False,
) -> dict[str, object]:
    """Measure the base model and the candidate on the general suite; return the parts as figures.

    Writes ``forgetting.json`` and ``general.jsonl``, the suite's answers item by item. With ``suite`` none, lm-eval's tasks are run alone.
    With ``kind`` qlora both answer on the base model's 4-bit weights, so that what quantising costs is no part of the change.

    Raises:
        ModelUnavailable: the model or the candidate cannot be loaded safely.
        EnvironmentLacks: lm-eval's tasks are wanted, and the package is not installed.
        DataError: lm-eval knows no such task, or it measures no accuracy.
    """
    questions, texts = (load_questions(), load_texts()) if options.suite == "shipped" else ((), ())
    tokenizer = load_tokenizer(model_folder, trust_remote_code=trust_remote_code)
    tuned = load_candidate(model_folder, weights, kind=kind, trust_remote_code=trust_remote_code)
    after = answer_suite(tuned, tokenizer, questions, texts, _part(report, 0))
    harness_after = _harness(tuned, tokenizer, options)
    with _base(tuned, lambda: load_base(model_folder, kind=kind, trust_remote_code=trust_remote_code)) as base:
        before = answer_suite(base, tokenizer, questions, texts, _part(report, 1))
        harness_before = _harness(base, tokenizer, options)
    parts = [*compare_suite(questions, texts, before, after), *compare_harness(harness_before, harness_after)]
    write_items(out / "general.jsonl", questions, texts, before, after)
    return _write(parts, {}, out)


def ask_forgetting(
    base: Answerer, candidate: Callable[[], AbstractContextManager[Answerer]], options: General, out: Path, report: Report = no_report
) -> dict[str, object]:
    """Ask the base model and the candidate the general suite's questions in words; return the parts as figures.

    Writes ``forgetting.json`` and ``general.jsonl`` as ``measure_forgetting``. An answer that names no choice is unscored, and what could
    not be measured is told with its reason.

    Raises:
        SpecError: lm-eval's tasks are wanted: they are scored by likelihoods.
        TransientError, EnvironmentLacks: a model could not be asked.
    """
    check_askable(options)
    questions = load_questions()
    with candidate() as tuned:
        after = ask_questions(tuned, questions, _part(report, 0))
    before = ask_questions(base, questions, _part(report, 1))
    parts = list(compare_suite(questions, (), before, after))
    not_measured = (
        {LOSSES: NO_LIKELIHOODS} if any(part.name == CHOICES for part in parts) else {CHOICES: NO_CHOICES, LOSSES: NO_LIKELIHOODS}
    )
    write_items(out / "general.jsonl", questions, (), before, after)
    return _write(parts, not_measured, out)


def check_askable(options: General) -> None:
    """Check that what the spec wants measured can be asked in words.

    Raises:
        SpecError: it names tasks of lm-eval.
    """
    if options.lm_eval:
        raise SpecError(
            f"general.lm_eval names {', '.join(options.lm_eval)}; lm-eval scores by likelihoods, which no managed provider shows. Leave "
            "the list empty: the shipped suite is asked in words"
        )


def answer_suite(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    texts: Sequence[Text],
    report: Report = no_report,
) -> Answers:
    """Return what a model makes of questions and texts."""
    scores = choice_scores(model, tokenizer, [question.question for question in questions], [q.choices for q in questions], report)
    right = tuple(max(range(len(row)), key=row.__getitem__) == q.answer for q, row in zip(questions, scores, strict=True))
    return Answers(right, tuple(text_losses(model, tokenizer, [text.text for text in texts])))


@contextmanager
def _base(tuned: PreTrainedModel, load: Callable[[], PreTrainedModel]) -> Iterator[PreTrainedModel]:
    """Give the base model: the candidate without its adapter, or, where all weights were tuned, the base model loaded anew."""
    if not hasattr(tuned, "disable_adapter"):
        yield load()
        return
    with tuned.disable_adapter():
        yield tuned


def _harness(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, options: General) -> dict[str, list[float]]:
    if not options.lm_eval:
        return {}
    from prooftune.evaluation.general.harness import run_tasks

    return run_tasks(model, tokenizer, options)


def _part(report: Report, position: int) -> Report:
    def report_part(progress: Progress) -> None:
        name = ("candidate", "base model")[position]
        report(progress.model_copy(update={"done": progress.done + position * progress.total, "total": 2 * progress.total, "text": name}))

    return report_part


def _write(parts: Sequence[Part], not_measured: dict[str, str], out: Path) -> dict[str, object]:
    found = Forgetting(parts=tuple(parts), not_measured=not_measured)
    (out / "forgetting.json").write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return found.model_dump(mode="json")
