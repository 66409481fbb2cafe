"""How many tokens the evaluation of a managed run reads and writes at most: the ladder, the candidate, the general suite and the judge."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prooftune.data.counting import Counter
from prooftune.economics.billable import billable_counter
from prooftune.economics.estimate import PASSAGE_TOKENS
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
    """Tokens of the answers, at most."""
    tuned: bool = False
    batched: bool = False
    """Through the provider's batch API."""


def asked_by(spec: RunSpec, examples: Mapping[SplitName, Sequence[Example]], offer: str, counter: Counter) -> Iterator[Asked]:
    """Yield what a run asks of its own base model, the tuned one, the larger model and the judge.

    ``offer`` and ``counter`` are those of the base model. What is asked of this machine costs nothing here.
    """
    holdout, batched = examples["holdout"], spec.provider.batch
    sizes = _Sizes(spec, examples, counter)
    own = _prompts(holdout, spec.task.system, counter)
    suite_read, suite_written = _suite(spec, counter)
    if spec.baseline.model is None:
        read, written = _ladder(spec, sizes, len(holdout))
        yield Asked("baselines", offer, read + suite_read, written + suite_written, batched=batched)
        # What is asked next depends on what was answered: it never waits for a batch.
        yield Asked("baselines, looking for prompts", offer, *_search(spec, sizes))
    elif suite_read:
        yield Asked("general suite, base model", offer, suite_read, suite_written, batched=batched)
    # What is deployed is asked directly: its deployment would be paid for while a batch waits.
    through_batch = batched and spec.backend.provider not in DEPLOYED
    yield Asked("candidate", offer, own + suite_read, sizes.answer * len(holdout) + suite_written, tuned=True, batched=through_batch)
    yield from _larger(spec, examples)
    yield from _judge(spec, examples)


class _Sizes:
    """Lengths in tokens, each an upper one."""

    def __init__(self, spec: RunSpec, examples: Mapping[SplitName, Sequence[Example]], counter: Counter) -> None:
        system = spec.task.system if spec.baseline.system is None else spec.baseline.system
        train = examples["train"]
        self.chosen_on = min(spec.baseline.choose_on, len(examples["validation"]))
        self.questions = _prompts(examples["holdout"], system, counter)
        self.chosen_questions = self.chosen_on * max((_prompts([one], system, counter) for one in examples["validation"]), default=0)
        self.demonstration = max((counter.conversation_tokens(example.messages) for example in train), default=0)
        longest = max(counter.text_tokens([example.target for example in train]), default=0)
        self.answer = spec.task.max_answer_tokens or math.ceil(1.5 * longest)


def _prompts(examples: Sequence[Example], system: str, counter: Counter) -> int:
    return sum(counter.prompt_tokens(with_system(example.prompt, system)) for example in examples)


def _ladder(spec: RunSpec, sizes: _Sizes, questions: int) -> tuple[int, int]:
    """Return what the rungs on the own base model read and write on the holdout."""
    shots = spec.baseline.shots * sizes.demonstration
    beside = {"zero_shot": 0, "few_shot": shots, "retrieved": shots, "optimised": shots, "rag": spec.baseline.passages * PASSAGE_TOKENS}
    own = [rung for rung in spec.baseline.ladder if rung in beside]
    return sum(sizes.questions + beside[rung] * questions for rung in own), len(own) * sizes.answer * questions


def _search(spec: RunSpec, sizes: _Sizes) -> tuple[int, int]:
    """Return what choosing demonstrations and searching for a prompt read and write."""
    baseline = spec.baseline
    most = baseline.shots
    tried = [*(2**power for power in range(most.bit_length()) if 2**power < most), most] if most > 1 and sizes.chosen_on else []
    # The larger model is asked with the few-shot prompt, so its number is chosen for it too.
    rungs = {"few_shot" if rung == "larger_model" else rung for rung in baseline.ladder}
    choices = len(rungs.intersection(CHOOSES))
    read = choices * sum(sizes.chosen_questions + shots * sizes.demonstration * sizes.chosen_on for shots in tried)
    written = choices * len(tried) * sizes.chosen_on * sizes.answer
    if "optimised" in rungs:
        read += baseline.optimise.calls * sizes.demonstration * (most + 1)
        written += baseline.optimise.calls * sizes.answer
    return read, written


def _suite(spec: RunSpec, counter: Counter) -> tuple[int, int]:
    """Return what the general suite has a model read and write."""
    if spec.general.suite != "shipped":
        return 0, 0
    from prooftune.evaluation.general.asking import LETTER_TOKENS, as_prompt
    from prooftune.evaluation.general.items import load_questions

    questions = load_questions()
    return sum(counter.prompt_tokens(as_prompt(question)) for question in questions), LETTER_TOKENS * len(questions)


def _larger(spec: RunSpec, examples: Mapping[SplitName, Sequence[Example]]) -> Iterator[Asked]:
    larger = spec.baseline.larger
    if "larger_model" not in spec.baseline.ladder or larger.provider == "local" or larger.model is None:
        return
    sizes = _Sizes(spec, examples, billable_counter(larger.provider, larger.model, None))
    questions = len(examples["holdout"])
    read = sizes.questions + spec.baseline.shots * sizes.demonstration * questions
    yield Asked("larger model", f"{larger.provider}/{larger.model}", read, sizes.answer * questions)


def _judge(spec: RunSpec, examples: Mapping[SplitName, Sequence[Example]]) -> Iterator[Asked]:
    """Yield the judge's two requests a pair; its verdict is a word, but it may think before it speaks."""
    judge = spec.judge
    if judge.model is None:
        return
    from prooftune.evaluation.judge import through_batch
    from prooftune.evaluation.judge.prompt import judge_prompt

    counter = billable_counter(judge.provider, judge.model, None)
    answer = _Sizes(spec, examples, counter).answer
    pairs = sorted(examples["holdout"], key=lambda example: example.id)[: judge.max_pairs]
    read = 0
    for example in pairs:
        question = "\n".join(message.content for message in example.prompt)
        prompt = judge_prompt(
            rubric=judge.rubric, task=spec.task.system, question=question, reference=example.target, answer_a="", answer_b=""
        )
        read += 2 * (counter.prompt_tokens(prompt) + 2 * answer)
    yield Asked(
        "judge",
        f"{judge.provider}/{judge.model}",
        read,
        2 * len(pairs) * VERDICT_TOKENS,
        batched=through_batch(judge, 2 * len(pairs)),
    )


VERDICT_TOKENS = 500
"""Of a verdict, with what a model thinks before it."""
