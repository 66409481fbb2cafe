"""A bounded search for the best prompt the base model could be given: the instruction and the demonstrations, chosen on validation.

The search is GEPA's (Agrawal et al., 2025, https://arxiv.org/abs/2507.19457, package ``gepa``): change one part of a prompt in the light of
a few wrong answers to training examples, keep it if it does better on those, and rate what is kept on the validation examples. The model
that is prompted writes the new instructions itself; demonstrations are exchanged for training examples that went wrong.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from prooftune.evaluation.answers.answering import Answerer
from prooftune.evaluation.ladder.demonstrations import choose_demonstrations
from prooftune.evaluation.ladder.prompts import Prompt, question_text
from prooftune.evaluation.metrics import score
from prooftune.spec import Baseline, Task
from prooftune.types import Example, Message, Progress, Report, no_report

if TYPE_CHECKING:
    from gepa.core.adapter import EvaluationBatch

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
) -> Prompt:
    """Return the prompt that does best on the validation examples, after ``baseline.optimise.calls`` answers.

    The holdout has no part in it. Deterministic as far as the answerer is; the same calls find the same prompt.
    """
    from gepa.api import optimize

    search = _Search(train, answerer, task, baseline, max_new_tokens, report)
    rated = [example for example in validation if score(task.metric, "", example.target, task) is not None]
    tried = [example for example in train if score(task.metric, "", example.target, task) is not None]
    result = optimize(
        seed_candidate=search.start(),
        trainset=tried,
        valset=rated[: baseline.choose_on] if baseline.choose_on else rated,
        adapter=search,
        candidate_selection_strategy="current_best",
        reflection_minibatch_size=min(MINIBATCH, len(tried)),
        max_metric_calls=baseline.optimise.calls,
        cache_evaluation=True,
        seed=baseline.optimise.seed,
        logger=_Quiet(),
    )
    best: Mapping[str, str] = result.best_candidate
    log.info("prompt search: %d candidates, best %.3f on validation", len(result.candidates), max(result.val_aggregate_scores))
    return search.prompt_of(best)


class _Search:
    """What GEPA asks of the program under search (its ``GEPAAdapter``)."""

    def __init__(
        self, train: Sequence[Example], answerer: Answerer, task: Task, baseline: Baseline, max_new_tokens: int, report: Report
    ) -> None:
        self._train = {example.id: example for example in train}
        self._answerer = answerer
        self._task = task
        self._baseline = baseline
        self._limit = max_new_tokens
        self._report = report
        self._calls = 0
        self._instructions = list(baseline.optimise.instructions)

    def start(self) -> dict[str, str]:
        """Return the few-shot prompt, from which the search sets out."""
        system = self._task.system if self._baseline.system is None else self._baseline.system
        chosen = choose_demonstrations(list(self._train.values()), self._baseline.shots)
        return {INSTRUCTION: system, DEMONSTRATIONS: json.dumps([example.id for example in chosen])}

    def prompt_of(self, candidate: Mapping[str, str]) -> Prompt:
        """Return a candidate as a prompt."""
        return Prompt(candidate[INSTRUCTION], tuple(self._train[each] for each in json.loads(candidate[DEMONSTRATIONS])))

    def evaluate(self, batch: list[Example], candidate: dict[str, str], capture_traces: bool = False) -> EvaluationBatch[Trace, str]:
        """Answer a batch; an example that is itself a demonstration is asked without it."""
        from gepa.core.adapter import EvaluationBatch

        prompt = self.prompt_of(candidate)
        asked = [
            Prompt(prompt.system, tuple(shown for shown in prompt.demonstrations if shown.id != example.id)).ask(example)
            for example in batch
        ]
        answers = [answer.text for answer in self._answerer.answer(asked, max_new_tokens=self._limit)]
        scores = [
            score(self._task.metric, answer, example.target, self._task) or 0.0 for answer, example in zip(answers, batch, strict=True)
        ]
        self._calls += len(batch)
        calls = self._baseline.optimise.calls
        self._report(Progress(done=min(self._calls, calls), total=calls, unit="answers", text=f"prompt search, {fmean(scores):.2f}"))
        traces = list(zip(batch, answers, scores, strict=True)) if capture_traces else None
        return EvaluationBatch(outputs=answers, scores=scores, trajectories=traces)

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
        shown = "\n\n".join(
            "\n".join(f"{name.capitalize()}: {str(row[name])[:SHOWN_CHARACTERS]}" for name in ("question", "answer", "right answer"))
            for row in wrong[:SHOWN]
        )
        request = (
            f"An assistant works by this instruction:\n\n{candidate[INSTRUCTION] or '(none)'}\n\nSome of its answers:\n\n{shown}\n\n"
            "Write a better instruction, so that its answers become the right ones. Reply with the instruction alone."
        )
        [answer] = self._answerer.answer([(Message(role="user", content=request),)], max_new_tokens=INSTRUCTION_TOKENS)
        return answer.text.strip() or candidate[INSTRUCTION]

    def _new_demonstrations(self, candidate: Mapping[str, str], wrong: Sequence[Mapping[str, Any]]) -> str:
        """Show the worst example that is not shown yet; where there is no room, in place of the first one."""
        present: list[str] = json.loads(candidate[DEMONSTRATIONS])
        new = next((row["id"] for row in wrong if row["id"] not in present), None)
        if new is None:
            return json.dumps(present[:-1])
        return json.dumps([*present, new][-self._baseline.shots :])


def _without(prompt: Prompt, example: Example) -> Prompt:
    return Prompt(prompt.system, tuple(shown for shown in prompt.demonstrations if shown.id != example.id))


class _Quiet:
    """GEPA's log goes to ours, at the level for details."""

    def log(self, message: str) -> None:
        log.debug("%s", " ".join(str(message).split())[:200])
