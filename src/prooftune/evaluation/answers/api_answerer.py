"""A contestant behind an API, asked in the same way as one on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock

from prooftune.errors import SpecError
from prooftune.evaluation.answers.answering import Answer, Answerer
from prooftune.evaluation.answers.kept import keep as keep_row
from prooftune.evaluation.answers.kept import read_kept
from prooftune.providers.chat import REQUESTS_AT_ONCE, ChatAnswer, ChatModel, Prompt, in_order, open_chat
from prooftune.spec import Contestant, digest
from prooftune.types import Frozen, Message, Progress, Report, no_report

ROOM_TO_THINK = 4096
"""Least token limit of a request. At an API the limit covers what a model thinks before it answers; with the few tokens that the answer
itself takes, a model that thinks first would say nothing."""
MOST_SILENT = 0.1
"""Share of answers that may be empty because the limit ran out; beyond it the model was not measured, only its limit."""
KEPT = "larger_model.answers.jsonl"


class KeptAnswer(Frozen):
    """A line of ``larger_model.answers.jsonl``: what the API said, as it came."""

    asked: str
    """Digest of model, limit and prompt: what was asked another way is asked again."""
    answer: ChatAnswer


class ApiAnswerer:
    """A model behind an API. A refusal is an answer like any other: it is what a user would get."""

    def __init__(self, chat: ChatModel, where: str, kept: Path | None = None) -> None:
        self.model = chat.name
        self.batch_size = REQUESTS_AT_ONCE
        self._chat = chat
        self._where = where
        self._kept = kept
        self._writing = Lock()

    def answer(self, prompts: Sequence[Sequence[Message]], *, max_new_tokens: int, report: Report = no_report) -> list[Answer]:
        """Return the answer to each prompt, in order; what an earlier call kept is not asked again, and the same prompt is asked once.

        ``max_new_tokens`` is raised to ``ROOM_TO_THINK``.

        Raises:
            SpecError: more than ``MOST_SILENT`` of the answers are empty because the token limit ran out before the model spoke.
            TransientError, EnvironmentLacks, SpecError: the API could not be used. Answers that came before are kept.
        """
        limit = max(max_new_tokens, ROOM_TO_THINK)
        keys = [digest([self._where, limit, [message.model_dump() for message in prompt]]) for prompt in prompts]
        answers = {row.asked: row.answer for row in read_kept(self._kept, KeptAnswer)} if self._kept else {}
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in answers}
        for key, answer in self._ask(missing, limit):
            answers[key] = answer
            report(Progress(done=len(prompts) - len(missing.keys() - answers.keys()), total=len(prompts), unit="answers"))
        found = [answers[key] for key in keys]
        self._require_heard(found, limit)
        return [_as_answer(answer) for answer in found]

    def _ask(self, missing: Mapping[str, Prompt], limit: int) -> Iterator[tuple[str, ChatAnswer]]:
        """Yield the answers in order; each is kept as soon as it comes, also those that overtake a slow one."""

        def ask(key: str) -> ChatAnswer:
            answer = self._chat.ask(missing[key], limit)
            if self._kept is not None:
                with self._writing:
                    keep_row(self._kept, KeptAnswer(asked=key, answer=answer))
            return answer

        keys = list(missing)
        return zip(keys, in_order(ask, keys), strict=True)

    def _require_heard(self, answers: Sequence[ChatAnswer], limit: int) -> None:
        silent = sum(not answer.text.strip() and not answer.finished and not answer.refusal for answer in answers)
        if silent > MOST_SILENT * len(answers):
            raise SpecError(
                f"{self._where} left {silent} of {len(answers)} answers empty: its {limit} tokens ran out before it began to answer, which "
                "says nothing about what it can do. Set baseline.larger.model to one that thinks less, or take larger_model out of "
                "baseline.ladder"
            )


def api_answerer(contestant: Contestant, keep: Path | None = None) -> Answerer:
    """Return the contestant behind its API; nothing is sent yet.

    ``keep`` is a folder for its answers (``larger_model.answers.jsonl``): after a failure only what is missing is asked and paid for.

    Raises:
        SpecError: the contestant is none behind an API, or has no model.
        EnvironmentLacks: the provider's key is not in the environment.
    """
    if contestant.provider == "local" or contestant.model is None:
        raise SpecError(
            f"provider {contestant.provider} with model {contestant.model} is no contestant behind an API; "
            "set provider to openai or anthropic, and model to its name of a model"
        )
    where = f"{contestant.provider} {contestant.model}" + (f" at {contestant.base_url}" if contestant.base_url else "")
    chat = open_chat(contestant.provider, contestant.model, contestant.base_url)
    return ApiAnswerer(chat, where, keep / KEPT if keep else None)


def _as_answer(answer: ChatAnswer) -> Answer:
    if answer.latency_s is None:
        raise ValueError("an answer through a batch has no latency, which a contestant is measured by")
    return Answer(answer.text, answer.prompt_tokens, answer.answer_tokens, answer.finished, answer.latency_s)
