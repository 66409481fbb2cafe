"""A bounded search for the best prompt the base model could be given: the instruction and the demonstrations, chosen on validation.

The search is GEPA's (Agrawal et al., 2025, https://arxiv.org/abs/2507.19457, package ``gepa``): change one part of a prompt in the light of
a few wrong answers to training examples, keep it if it does better on those, and rate what is kept on the validation examples. The model
that is prompted writes the new instructions itself; demonstrations are exchanged for training examples that went wrong.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from prooftune.errors import DataError
from prooftune.evaluation.answers.answering import Answerer
from prooftune.evaluation.ladder.demonstrations import choose_demonstrations
from prooftune.evaluation.ladder.prompts import Messages, Prompt, Room, ask, question_text, turns
from prooftune.evaluation.metrics import score
from prooftune.spec import Baseline, Task
from prooftune.training.encoding import with_system
from prooftune.types import Example, Message, Progress, Report, no_report

if TYPE_CHECKING:
    from gepa.core.adapter import EvaluationBatch
    from gepa.core.state import GEPAState

INSTRUCTION, DEMONSTRATIONS = "instruction", "demonstrations"
MINIBATCH = 8
"""Training examples that a change is tried on first."""
INSTRUCTION_TOKENS = 300
SHOWN, SHOWN_CHARACTERS = 4, 400
"""Wrong answers that the model sees when it writes an instruction, and how much of each text."""
log = logging.getLogger(__name__)

Trace = tuple[Example, str, float]
"""A training example, the answer that was given, and its score."""


def optimise_prompt(
    train: Sequence[Example],
    validation: Sequence[Example],
    answerer: Answerer,
    task: Task,
    baseline: Baseline,
    max_new_tokens: int,
    report: Report = no_report,
    room: Room | None = None,
) -> Prompt:
    """Return the prompt that does best on validation examples, after at most ``baseline.optimise.calls`` answers.

    The holdout has no part in it. Prompts are rated on ``baseline.choose_on`` validation examples (0 = all), but on no more than a quarter
    of the answers, so that some are left to search with. Deterministic as far as the answerer is; the same calls find the same prompt.
    ``room`` leaves out demonstrations that a question has no place for.

    Raises:
        DataError: ``task.metric`` scores no training or no validation example, or there is none.
    """
    from gepa.api import optimize

    calls, seed = baseline.optimise.calls, baseline.optimise.seed
    tried, rated = _scored("training", train, task), _scored("validation", validation, task)
    rated = rated[: min(baseline.choose_on or len(rated), calls // 4)]
    minibatch = min(MINIBATCH, len(tried), calls // 10)
    search = _Search(train, answerer, task, baseline, max_new_tokens, report, room, round_calls=2 * minibatch + 1 + len(rated))
    result = optimize(
        seed_candidate=search.start(),
        trainset=tried,
        valset=rated,
        adapter=search,
        candidate_selection_strategy="current_best",
        reflection_minibatch_size=minibatch,
        stop_callbacks=search.out_of_calls,
        cache_evaluation=True,
        seed=seed,
        logger=_Quiet(),
    )
    best: Mapping[str, str] = result.best_candidate
    log.info("prompt search: %d candidates, best %.3f on validation", len(result.candidates), max(result.val_aggregate_scores))
    return search.prompt_of(best)


def _scored(split: str, examples: Sequence[Example], task: Task) -> list[Example]:
    found = [example for example in examples if score(task.metric, example.target, example.target, task) is not None]
    if not found:
        raise DataError(
            f"{task.metric} scores none of the {len(examples)} {split} examples; the rung optimised needs at least one to search with: "
            f"set another task.metric, {'raise data.split.validation' if split == 'validation' else 'bring more data'}, or leave it out"
        )
    return found


class _Search:
    """What GEPA asks of the program under search (its ``GEPAAdapter``)."""

    def __init__(
        self,
        train: Sequence[Example],
        answerer: Answerer,
        task: Task,
        baseline: Baseline,
        max_new_tokens: int,
        report: Report,
        room: Room | None,
        round_calls: int,
    ) -> None:
        self._train = {example.id: example for example in train}
        self._answerer = answerer
        self._task = task
        self._baseline = baseline
        self._limit = max_new_tokens
        self._report = report
        self._room = room
        self._round_calls = round_calls
        """The most answers that one change costs: the minibatch before and after it, the new instruction, the validation examples."""
        self._calls = 0
        self._instructions = list(baseline.optimise.instructions)

    def start(self) -> dict[str, str]:
        """Return the few-shot prompt, from which the search sets out, with as many demonstrations as fit around an empty question."""
        system = self._task.system if self._baseline.system is None else self._baseline.system
        chosen = choose_demonstrations(list(self._train.values()), self._baseline.shots)
        if self._room is not None:
            empty = Message(role="user", content="")
            _, fitting = self._room.fit(chosen, lambda kept: with_system([*turns(kept), empty], system))
            chosen = chosen[:fitting]
        return {INSTRUCTION: system, DEMONSTRATIONS: json.dumps([example.id for example in chosen])}

    def out_of_calls(self, gepa_state: GEPAState[Any, Any]) -> bool:
        """Return whether one more change could cost more answers than are left."""
        return self._calls + self._round_calls > self._baseline.optimise.calls

    def prompt_of(self, candidate: Mapping[str, str]) -> Prompt:
        """Return a candidate as a prompt."""
        return Prompt(candidate[INSTRUCTION], tuple(self._train[each] for each in json.loads(candidate[DEMONSTRATIONS])))

    def evaluate(self, batch: list[Example], candidate: dict[str, str], capture_traces: bool = False) -> EvaluationBatch[Trace, str]:
        """Answer a batch; an example that is itself a demonstration is asked without it."""
        from gepa.core.adapter import EvaluationBatch

        prompt = self.prompt_of(candidate)
        asked = [self._ask(_without(prompt, example), example) for example in batch]
        answers = self._answers(asked, self._limit)
        scores = [
            score(self._task.metric, answer, example.target, self._task) or 0.0 for answer, example in zip(answers, batch, strict=True)
        ]
        calls = self._baseline.optimise.calls
        self._report(Progress(done=self._calls, total=calls, unit="answers", text=f"prompt search, {fmean(scores):.2f}"))
        traces = list(zip(batch, answers, scores, strict=True)) if capture_traces else None
        return EvaluationBatch(outputs=answers, scores=scores, trajectories=traces)

    def _answers(self, prompts: Sequence[Messages], limit: int) -> list[str]:
        """Answer prompts, and count them."""
        answers = [answer.text for answer in self._answerer.answer(prompts, max_new_tokens=limit)]
        self._calls += len(answers)
        return answers

    def _ask(self, prompt: Prompt, example: Example) -> Messages:
        if self._room is None:
            return prompt.ask(example)
        return self._room.fit(prompt.demonstrations, lambda kept: ask(example, prompt.system, kept))[0]

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: EvaluationBatch[Trace, str], components_to_update: list[str]
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Return the worst answers first, for each part of the prompt that is to be changed."""
        traces = sorted(eval_batch.trajectories or [], key=lambda trace: (trace[2], trace[0].id))
        rows = [
            {"id": example.id, "question": question_text(example), "answer": answer, "right answer": example.target, "score": value}
            for example, answer, value in traces
        ]
        return dict.fromkeys(components_to_update, rows)

    def propose_new_texts(
        self, candidate: dict[str, str], reflective_dataset: Mapping[str, Sequence[Mapping[str, Any]]], components_to_update: list[str]
    ) -> dict[str, str]:
        """Return new texts of the parts named."""
        propose = {INSTRUCTION: self._new_instruction, DEMONSTRATIONS: self._new_demonstrations}
        return {name: propose[name](candidate, reflective_dataset[name]) for name in components_to_update}

    def _new_instruction(self, candidate: Mapping[str, str], wrong: Sequence[Mapping[str, Any]]) -> str:
        """Take the user's next instruction; after the last one let the model write another."""
        if self._instructions:
            return self._instructions.pop(0)
        instruction = candidate[INSTRUCTION]
        prompt = _request(instruction, wrong[:SHOWN])
        if self._room is not None:
            room = replace(self._room, max_new_tokens=INSTRUCTION_TOKENS)
            prompt, _ = room.fit(wrong[:SHOWN], lambda shown: _request(instruction, shown))
        [answer] = self._answers([prompt], INSTRUCTION_TOKENS)
        return answer.strip() or instruction

    def _new_demonstrations(self, candidate: Mapping[str, str], wrong: Sequence[Mapping[str, Any]]) -> str:
        """Show the worst example that is not shown yet, before the others; where there is no room, the last one makes place."""
        present: list[str] = json.loads(candidate[DEMONSTRATIONS])
        new = next((row["id"] for row in wrong if row["id"] not in present), None)
        if new is None:
            return json.dumps(present[:-1])
        return json.dumps([new, *present][: self._baseline.shots])


def _request(instruction: str, wrong: Sequence[Mapping[str, Any]]) -> Messages:
    """Return the messages that ask for a better instruction."""
    parts = ("question", "answer", "right answer")
    shown = ["\n".join(f"{name.capitalize()}: {str(row[name])[:SHOWN_CHARACTERS]}" for name in parts) for row in wrong]
    content = "\n\n".join([f"An assistant works by this instruction:\n\n{instruction or '(none)'}", "Some of its answers:", *shown])
    wish = "Write a better instruction, so that its answers become the right ones. Reply with the instruction alone."
    return (Message(role="user", content=f"{content}\n\n{wish}"),)


def _without(prompt: Prompt, example: Example) -> Prompt:
    return Prompt(prompt.system, tuple(shown for shown in prompt.demonstrations if shown.id != example.id))


class _Quiet:
    """GEPA's log goes to ours, at the level for details."""

    def log(self, message: str) -> None:
        log.debug("%s", " ".join(str(message).split())[:200])
