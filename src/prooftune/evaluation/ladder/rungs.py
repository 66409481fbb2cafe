"""How each rung of the ladder puts a question: what it shows beside it, and who is asked.

============  =====================================================================================================
rung          what stands before the question
============  =====================================================================================================
zero_shot     the instruction
few_shot      and demonstrations, the same for all questions; as many as did best on validation examples
retrieved     and the training examples nearest to the question, the nearest one last; as many as did best
optimised     the instruction and demonstrations that a bounded search on validation examples found
larger_model  what few_shot shows, put to another model
rag           the instruction; passages of the documents stand inside the question's turn
============  =====================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from prooftune.errors import DataError, SpecError
from prooftune.evaluation.answers.answering import Answerer
from prooftune.evaluation.answers.subject import Subject
from prooftune.evaluation.ladder.demonstrations import choose_demonstrations
from prooftune.evaluation.ladder.passages import read_passages, with_passages
from prooftune.evaluation.ladder.prompts import Messages, Prompt, Room, ask, question_text, turns
from prooftune.evaluation.ladder.retrieval import Nearest
from prooftune.evaluation.ladder.shots import ShotsChoice, choose_shots
from prooftune.evaluation.scoring import Contest, open_unsealed_contest
from prooftune.spec import Baseline, Rung, Task
from prooftune.training.encoding import with_system
from prooftune.types import Example, Message, Report


@dataclass(frozen=True)
class Setting:
    """What the rungs have in common."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    contest: Contest
    baseline: Baseline
    base: Subject
    """The model that is prompted; only ``larger_model`` asks another."""
    out: Path
    larger: Callable[[], Answerer] | None
    embedding_folder: Path | None
    documents: Path | None

    @property
    def task(self) -> Task:
        """What is asked for."""
        return self.contest.task

    @cached_property
    def room(self) -> Room:
        """How long a prompt may be."""
        return Room(self.base.counter, self.base.context, max(self.contest.max_new_tokens, self.base.least_answer_tokens))

    @property
    def system(self) -> str:
        """The instruction for prompting."""
        return self.task.system if self.baseline.system is None else self.baseline.system

    @cached_property
    def demonstrations(self) -> tuple[Example, ...]:
        """For all questions alike, the most useful first; without those that would fill more than half of the model's context."""
        chosen = choose_demonstrations(self.train, self.baseline.shots)
        while chosen and self.room.context is not None and self.tokens_around(self.system, chosen) > self.room.context // 2:
            chosen.pop()
        return tuple(chosen)

    @cached_property
    def chosen_on(self) -> tuple[Example, ...]:
        """The validation examples to choose the number of demonstrations on, the first by id."""
        return tuple(sorted(self.validation, key=lambda example: example.id)[: self.baseline.choose_on])

    def tokens_around(self, system: str, demonstrations: Sequence[Example]) -> int:
        """Return the tokens of a prompt whose question is empty."""
        return self.room.tokens_of(with_system([*turns(demonstrations), Message(role="user", content="")], system))


@dataclass(frozen=True, slots=True)
class Questions:
    """The holdout's questions as a rung puts them."""

    prompts: tuple[Messages, ...]
    """In the order of the holdout."""
    before: Messages
    """What stands before every question."""
    alike: bool
    """Whether they differ in nothing but the question."""
    description: str
    answerer: Answerer


def zero_shot(setting: Setting, report: Report) -> Questions:
    """Put the instruction alone."""
    return _behind(Prompt(setting.system), setting)


def few_shot(setting: Setting, report: Report) -> Questions:
    """Put demonstrations that are the same for all questions."""
    return _behind(_few_shot_prompt(setting, report), setting)


def retrieved(setting: Setting, report: Report) -> Questions:
    """Put the training examples nearest to each question.

    Raises:
        DataError: a near-duplicate group stands in training and in another split as well.
    """
    _require_apart(setting)
    nearest = _nearest_examples(setting)

    def put(example: Example, shots: int) -> tuple[Messages, int]:
        return setting.room.fit(nearest[example.id][:shots], lambda kept: ask(example, setting.system, kept[::-1]))

    choice = _choice("retrieved", min(setting.baseline.shots, len(setting.train)), lambda *asked: put(*asked)[0], setting, report)
    by = "embedding" if setting.embedding_folder else "TF-IDF"
    shown = f"the {_counted(choice.shots, 'training example')} nearest to each question by {by}, the nearest last"
    return _each(lambda example: put(example, choice.shots), choice.shots, shown, setting)


def optimised(setting: Setting, report: Report) -> Questions:
    """Put the instruction and demonstrations that a bounded search on validation examples found."""
    from prooftune.evaluation.ladder.optimised import optimise_prompt

    limit, room = setting.contest.max_new_tokens, setting.room
    prompt = optimise_prompt(setting.train, setting.validation, setting.base.searcher, setting.task, setting.baseline, limit, report, room)
    return _behind(prompt, setting, how="found by a search on validation examples: ")


def larger_model(setting: Setting, report: Report) -> Questions:
    """Put what ``few_shot`` shows to another model.

    Raises:
        SpecError: nobody said which.
    """
    if setting.larger is None:
        raise SpecError("the rung larger_model needs a model to ask; set baseline.larger.model")
    return _behind(_few_shot_prompt(setting, report), setting, answerer=setting.larger())


def rag(setting: Setting, report: Report) -> Questions:
    """Put passages of the documents inside each question's turn, and no demonstrations.

    Raises:
        SpecError: there are no documents.
    """
    if setting.documents is None:
        raise SpecError("the rung rag needs documents to show; set baseline.documents")
    passages = read_passages(setting.documents)
    questions = setting.contest.holdout
    index = Nearest(setting.embedding_folder).fit([passage.text for passage in passages])
    found, _ = index.search([question_text(example) for example in questions], setting.baseline.passages)
    nearest = {example.id: [passages[at] for at in row] for example, row in zip(questions, found, strict=True)}
    count = found.shape[1]
    shown = f"the {count} of {len(passages)} passages of the documents nearest to each question, no demonstrations"
    return _each(
        lambda example: setting.room.fit(nearest[example.id], partial(with_passages, ask(example, setting.system))), count, shown, setting
    )


RUNGS: Mapping[Rung, Callable[[Setting, Report], Questions]] = {
    "zero_shot": zero_shot,
    "few_shot": few_shot,
    "retrieved": retrieved,
    "optimised": optimised,
    "larger_model": larger_model,
    "rag": rag,
}


def _behind(prompt: Prompt, setting: Setting, *, how: str = "", answerer: Answerer | None = None) -> Questions:
    """Return the questions behind one prompt for all."""
    shown = prompt.demonstrations
    asked = [setting.room.fit(shown, partial(ask, example, prompt.system)) for example in setting.contest.holdout]
    demonstrations = f"{_counted(len(shown), 'demonstration')} from the training split" if shown else "no demonstrations"
    about = "" if setting.base.counter.exact else "about "
    around = f"{about}{setting.tokens_around(prompt.system, shown)} tokens around each question"
    description = f"{how}{_instruction(prompt.system)}, {demonstrations}, {around}{_left_out(asked, len(shown))}"
    return Questions(tuple(messages for messages, _ in asked), prompt.messages, True, description, answerer or setting.base.answerer)


def _each(put: Callable[[Example], tuple[Messages, int]], most: int, shown: str, setting: Setting) -> Questions:
    """Return the questions with something else shown with each."""
    asked = [put(example) for example in setting.contest.holdout]
    description = f"{_instruction(setting.system)}, {shown}{_left_out(asked, most)}"
    prompts = tuple(messages for messages, _ in asked)
    return Questions(prompts, with_system((), setting.system), False, description, setting.base.answerer)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _instruction(system: str) -> str:
    return "system message" if system else "no system message"


def _left_out(asked: Sequence[tuple[Messages, int]], most: int) -> str:
    short = sum(kept < most for _, kept in asked)
    return f"; fewer with {short} of {len(asked)} questions, which leave no room for all" if short else ""


def _few_shot_prompt(setting: Setting, report: Report) -> Prompt:
    def put(example: Example, shots: int) -> Messages:
        return setting.room.fit(setting.demonstrations[:shots], partial(ask, example, setting.system))[0]

    choice = _choice("few_shot", len(setting.demonstrations), put, setting, report)
    return Prompt(setting.system, setting.demonstrations[: choice.shots])


def _choice(name: str, most: int, put: Callable[[Example, int], Messages], setting: Setting, report: Report) -> ShotsChoice:
    """Return the number of demonstrations as it was chosen before, or choose it and write ``NAME.choice.json``."""
    path = setting.out / f"{name}.choice.json"
    if path.exists():
        return ShotsChoice.model_validate_json(path.read_bytes())
    if setting.chosen_on and most > 1:
        contest = open_unsealed_contest(setting.train, setting.chosen_on, setting.task, setting.base.counter)
        choice = choose_shots(most, put, contest, setting.base.searcher, report)
    else:
        choice = ShotsChoice(shots=most, metric=setting.task.metric, scores={}, n=0)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(f"{choice.model_dump_json(indent=1)}\n", encoding="utf-8")
    unfinished.replace(path)
    return choice


def _nearest_examples(setting: Setting) -> dict[str, list[Example]]:
    """Return the training examples nearest to each question, nearest first, by the question's id."""
    questions = [*setting.chosen_on, *setting.contest.holdout]
    index = Nearest(setting.embedding_folder).fit([question_text(example) for example in setting.train])
    found, _ = index.search([question_text(example) for example in questions], setting.baseline.shots)
    return {example.id: [setting.train[at] for at in row] for example, row in zip(questions, found, strict=True)}


def _require_apart(setting: Setting) -> None:
    """Refuse to show a near-duplicate of a question with its answer."""
    trained = {example.group or example.id for example in setting.train}
    shared = sorted(
        {example.source for example in (*setting.chosen_on, *setting.contest.holdout) if (example.group or example.id) in trained}
    )
    if shared:
        raise DataError(
            f"{len(shared)} questions (first: {shared[0]}) have a near-duplicate among the training examples, which would be shown with "
            "its answer; a group must stand in one split: split the data again"
        )
