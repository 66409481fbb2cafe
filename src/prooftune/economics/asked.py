"""How many tokens the evaluation of a managed run reads and writes: the ladder, the candidate, the general suite and the judge.

Each answer is taken to be half as long again as the longest training target. A request allows more, at least ``ROOM_TO_THINK``, since a
model may think before it speaks: what that would come to is told beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prooftune.data.counting import Counter
from prooftune.economics.billable import billable_counter
from prooftune.economics.estimate import PASSAGE_TOKENS
from prooftune.evaluation.answers.api_answerer import ROOM_TO_THINK
from prooftune.providers.batches import batches_base
from prooftune.spec import RunSpec
from prooftune.training.encoding import with_system
from prooftune.types import Example, SplitName

DEPLOYED = ("azure", "bedrock", "together", "fireworks")
"""Providers whose tuned models answer from a deployment or a place that is paid for by time."""
CHOOSES = ("few_shot", "retrieved")
"""Rungs whose number of demonstrations is chosen on validation examples."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What one model is asked."""

    what: str
    offer: str
    """Entry of the price list."""
    read: int
    """Tokens of the prompts."""
    written: int
    """Tokens of the answers."""
    longest: tuple[int, int]
    """Tokens read and written if each answer were as long as its request allows."""
    tuned: bool = False
    batched: bool = False
    """Through the provider's batch API."""


def asked_by(spec: RunSpec, examples: Mapping[SplitName, Sequence[Example]], offer: str, counter: Counter) -> Iterator[Asked]:
    """Yield what a run asks of its own base model, the tuned one, the larger model and the judge.

    ``offer`` and ``counter`` are those of the base model. What is asked of this machine costs nothing here.
    """
    holdout = examples["holdout"]
    sizes = _Sizes(spec, examples, counter)
    own = _prompts(holdout, spec.task.system, counter)
    suite = _suite(spec, counter)
    if spec.baseline.model is None:
        ladder = _ladder(spec, sizes, len(holdout))
        fewest = min(len(holdout), suite.answers or len(holdout))
        yield _asked("baselines", offer, sizes, ladder, suite, batched=_through_batch(spec, fewest))
        # What is asked next depends on what was answered: it never waits for a batch.
        yield _asked("baselines, looking for prompts", offer, sizes, _search(spec, sizes))
    elif suite.answers:
        yield _asked("general suite, base model", offer, sizes, _Questions(), suite, batched=_through_batch(spec, suite.answers))
    candidate = _Questions(own, len(holdout))
    yield _asked("candidate", offer, sizes, candidate, suite, tuned=True, batched=_through_batch(spec, len(holdout), tuned=True))
    yield from _larger(spec, examples)
    yield from _judge(spec, examples)


class _Sizes:
    """Lengths in tokens: of an answer as it is taken to be, and as its request allows; all others are upper ones."""

    def __init__(self, spec: RunSpec, examples: Mapping[SplitName, Sequence[Example]], counter: Counter) -> None:
        system = spec.task.system if spec.baseline.system is None else spec.baseline.system
        train = examples["train"]
        self.chosen_on = min(spec.baseline.choose_on, len(examples["validation"]))
        self.questions = _prompts(examples["holdout"], system, counter)
        self.chosen_questions = self.chosen_on * max((_prompts([one], system, counter) for one in examples["validation"]), default=0)
        self.demonstration = max((counter.conversation_tokens(example.messages) for example in train), default=0)
        longest = max(counter.text_tokens([example.target for example in train]), default=0)
        self.answer = spec.task.max_answer_tokens or math.ceil(1.5 * longest)
        self.limit = max(self.answer, ROOM_TO_THINK)


@dataclass(frozen=True, slots=True)
class _Questions:
    """What a model is asked, and how many answers it gives."""

    read: int = 0
    """Tokens of the prompts."""
    answers: int = 0


def _asked(
    what: str,
    offer: str,
    sizes: _Sizes,
    task: _Questions,
    suite: _Questions | None = None,
    *,
    tuned: bool = False,
    batched: bool = False,
) -> Asked:
    """Return what a model is asked of the task and of the general suite."""
    from prooftune.evaluation.general.asking import LETTER_TOKENS

    suite = suite or _Questions()
    read, answers = task.read + suite.read, task.answers + suite.answers
    written = task.answers * sizes.answer + suite.answers * LETTER_TOKENS
    return Asked(what, offer, read, written, (read, answers * sizes.limit), tuned=tuned, batched=batched)


def _through_batch(spec: RunSpec, questions: int, *, tuned: bool = False) -> bool:
    """Return whether so many questions go through the provider's batch API.

    What is tuned and deployed is asked directly: its deployment would be paid for while a batch waits. Bedrock batches ``BATCH_MIN`` or
    more.
    """
    if not batches_base(spec.backend.provider, spec.provider) or (tuned and spec.backend.provider in DEPLOYED):
        return False
    if spec.backend.provider != "bedrock":
        return True
    from prooftune.providers.bedrock_chat import BATCH_MIN

    return questions >= BATCH_MIN


def _prompts(examples: Sequence[Example], system: str, counter: Counter) -> int:
    return sum(counter.prompt_tokens(with_system(example.prompt, system)) for example in examples)


def _ladder(spec: RunSpec, sizes: _Sizes, questions: int) -> _Questions:
    """Return what the rungs on the own base model are asked on the holdout."""
    shots = spec.baseline.shots * sizes.demonstration
    beside = {"zero_shot": 0, "few_shot": shots, "retrieved": shots, "optimised": shots, "rag": spec.baseline.passages * PASSAGE_TOKENS}
    own = [rung for rung in spec.baseline.ladder if rung in beside]
    return _Questions(sum(sizes.questions + beside[rung] * questions for rung in own), len(own) * questions)


def _search(spec: RunSpec, sizes: _Sizes) -> _Questions:
    """Return what choosing demonstrations and searching for a prompt ask."""
    baseline = spec.baseline
    most = baseline.shots
    tried = [*(2**power for power in range(most.bit_length()) if 2**power < most), most] if most > 1 and sizes.chosen_on else []
    # The larger model is asked with the few-shot prompt, so its number is chosen for it too.
    rungs = {"few_shot" if rung == "larger_model" else rung for rung in baseline.ladder}
    choices = len(rungs.intersection(CHOOSES))
    read = choices * sum(sizes.chosen_questions + shots * sizes.demonstration * sizes.chosen_on for shots in tried)
    answers = choices * len(tried) * sizes.chosen_on
    if "optimised" in rungs:
        read += baseline.optimise.calls * sizes.demonstration * (most + 1)
        answers += baseline.optimise.calls
    return _Questions(read, answers)


def _suite(spec: RunSpec, counter: Counter) -> _Questions:
    """Return what the general suite asks a model."""
    if spec.general.suite != "shipped":
        return _Questions()
    from prooftune.evaluation.general.asking import as_prompt
    from prooftune.evaluation.general.items import load_questions

    questions = load_questions()
    return _Questions(sum(counter.prompt_tokens(as_prompt(question)) for question in questions), len(questions))


def _larger(spec: RunSpec, examples: Mapping[SplitName, Sequence[Example]]) -> Iterator[Asked]:
    larger = spec.baseline.larger
    if "larger_model" not in spec.baseline.ladder or larger.provider == "local" or larger.model is None:
        return
    sizes = _Sizes(spec, examples, billable_counter(larger.provider, larger.model, None))
    questions = len(examples["holdout"])
    read = sizes.questions + spec.baseline.shots * sizes.demonstration * questions
    yield _asked("larger model", f"{larger.provider}/{larger.model}", sizes, _Questions(read, questions))


def _judge(spec: RunSpec, examples: Mapping[SplitName, Sequence[Example]]) -> Iterator[Asked]:
    """Yield the judge's two requests a pair; its verdict is a word, but it may think before it speaks."""
    judge = spec.judge
    if judge.model is None:
        return
    from prooftune.evaluation.judge import MAX_TOKENS, through_batch
    from prooftune.evaluation.judge.prompt import judge_prompt

    counter = billable_counter(judge.provider, judge.model, None)
    sizes = _Sizes(spec, examples, counter)
    pairs = sorted(examples["holdout"], key=lambda example: example.id)[: judge.max_pairs]
    read = 0
    for example in pairs:
        question = "\n".join(message.content for message in example.prompt)
        prompt = judge_prompt(
            rubric=judge.rubric, task=spec.task.system, question=question, reference=example.target, answer_a="", answer_b=""
        )
        read += 2 * counter.prompt_tokens(prompt)
    verdicts = 2 * len(pairs)
    yield Asked(
        "judge",
        f"{judge.provider}/{judge.model}",
        read + 2 * verdicts * sizes.answer,
        verdicts * VERDICT_TOKENS,
        (read + 2 * verdicts * sizes.limit, verdicts * MAX_TOKENS),
        batched=through_batch(judge, verdicts),
    )


VERDICT_TOKENS = 500
"""Of a verdict, with what a model thinks before it."""
