"""A contestant behind an API, asked in the same way as one on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock

from prooftune.data.kept import keep as keep_row
from prooftune.data.kept import keep_together, read_kept
from prooftune.errors import SpecError
from prooftune.evaluation.answers.answering import Answer, Answerer
from prooftune.providers.chat import REQUESTS_AT_ONCE, ChatAnswer, ChatModel, Prompt, in_order, open_chat
from prooftune.spec import Contestant, digest
from prooftune.types import Frozen, Message, Progress, Report, no_report

ROOM_TO_THINK = 4096
"""Least token limit of a request. At an API the limit covers what a model thinks before it answers; with the few tokens that the answer
itself takes, a model that thinks first would say nothing."""
MOST_SILENT = 0.1
"""Share of answers that may be empty because the limit ran out; beyond it the model was not measured, only its limit."""
KEPT = "larger_model.answers.jsonl"
LARGER_THINKS = "Set baseline.larger.model to one that thinks less, or take larger_model out of baseline.ladder"


class KeptAnswer(Frozen):
    """A line of a file ``….answers.jsonl``: what the API said, as it came."""

    asked: str
    """Digest of model, limit and prompt: what was asked another way is asked again."""
    answer: ChatAnswer


class ApiAnswerer:
    """A model behind an API. A refusal is an answer like any other: it is what a user would get."""

    def __init__(
        self, chat: ChatModel, where: str, kept: Path | None = None, *, name: str = "", batches: Path | None = None, remedy: str = ""
    ) -> None:
        """Nothing is sent yet.

        Args:
            chat: Client of the model.
            where: Provider, model and address, as people and kept answers name them.
            kept: File for the answers as they come: after a failure only what is missing is asked and paid for.
            name: Of the model, as the spec calls it; empty = as the provider does.
            batches: Folder for the tickets of the provider's batch API, through which all is asked then; None = ask directly.
            remedy: What to do about a model whose limit runs out before it speaks, then an error; empty = its silence is an answer.
        """
        self.model = name or chat.name
        self.batch_size = REQUESTS_AT_ONCE
        self._chat = chat
        self._where = where
        self._kept = kept
        self._batches = batches
        self._remedy = remedy
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
        known = answers.keys() & set(keys)
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in known}
        if self._batches is not None and missing:
            answers |= self._ask_batch(missing, limit, self._batches, report)
        else:
            for key, answer in self._ask(missing, limit):
                answers[key] = answer
                report(Progress(done=len(prompts) - len(missing.keys() - answers.keys()), total=len(prompts), unit="answers"))
        self._require_heard([answers[key] for key in keys], limit)
        return [_as_answer(answers[key], kept=key in known) for key in keys]

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

    def _ask_batch(self, missing: Mapping[str, Prompt], limit: int, tickets: Path, report: Report) -> dict[str, ChatAnswer]:
        """Return the answers of a batch. All are kept at once: a batch is known again by all its questions, and by no part of them."""
        found = self._chat.complete_batch(list(missing.values()), max_tokens=limit, folder=tickets, report=report)
        answers = dict(zip(missing, found, strict=True))
        if self._kept is not None:
            keep_together(self._kept, (KeptAnswer(asked=key, answer=answer) for key, answer in answers.items()))
        return answers

    def _require_heard(self, answers: Sequence[ChatAnswer], limit: int) -> None:
        silent = sum(not answer.text.strip() and not answer.finished and not answer.refusal for answer in answers)
        if self._remedy and silent > MOST_SILENT * len(answers):
            raise SpecError(
                f"{self._where} left {silent} of {len(answers)} answers empty: its {limit} tokens ran out before it began to answer, which "
                f"says nothing about what it can do. {self._remedy}"
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
    return ApiAnswerer(chat, where, keep / KEPT if keep else None, remedy=LARGER_THINKS)


def _as_answer(answer: ChatAnswer, *, kept: bool) -> Answer:
    return Answer(answer.text, answer.prompt_tokens, answer.answer_tokens, answer.finished, answer.latency_s, kept)
