"""A contestant behind an API, asked in the same way as one on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from prooftune.errors import SpecError
from prooftune.evaluation.answers.answering import Answer, Answerer
from prooftune.providers.chat import REQUESTS_AT_ONCE, ChatAnswer, ChatModel, open_chat
from prooftune.spec import Contestant
from prooftune.types import Message, Progress, Report, no_report


class ApiAnswerer:
    """A model behind an API. A refusal is an answer like any other: it is what a user would get."""

    def __init__(self, chat: ChatModel) -> None:
        self.model = chat.name
        self.batch_size = REQUESTS_AT_ONCE
        self._chat = chat

    def answer(self, prompts: Sequence[Sequence[Message]], *, max_new_tokens: int, report: Report = no_report) -> list[Answer]:
        """Return the answer to each prompt, in order.

        Raises:
            TransientError, EnvironmentLacks, SpecError: the API could not be used.
        """
        answers: list[Answer] = []
        for answer in self._chat.complete(prompts, max_tokens=max_new_tokens):
            answers.append(_as_answer(answer))
            report(Progress(done=len(answers), total=len(prompts), unit="answers"))
        return answers


def api_answerer(contestant: Contestant) -> Answerer:
    """Return the contestant behind its API; nothing is sent yet.

    Raises:
        SpecError: the contestant is none behind an API, or has no model.
        EnvironmentLacks: the provider's key is not in the environment.
    """
    if contestant.provider == "local" or contestant.model is None:
        raise SpecError(
            f"provider {contestant.provider} with model {contestant.model} is no contestant behind an API; "
            "set provider to openai or anthropic, and model to its name of a model"
        )
    return ApiAnswerer(open_chat(contestant.provider, contestant.model, contestant.base_url))


def _as_answer(answer: ChatAnswer) -> Answer:
    if answer.latency_s is None:
        raise ValueError("an answer through a batch has no latency, which a contestant is measured by")
    return Answer(answer.text, answer.prompt_tokens, answer.answer_tokens, answer.finished, answer.latency_s)
