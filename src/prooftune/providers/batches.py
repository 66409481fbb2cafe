"""Questions through a provider's batch API: submitted once, waited for, and found again after a crash.

No batch API takes an idempotency key. So a batch carries the digest of its questions, its id is written down before anything else happens,
and where no id is written down the provider is asked for a batch with that digest before a new one is submitted. A request that nobody
answered is written down too, and for an hour no second one is sent.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from prooftune.errors import EnvironmentLacks, OutcomeUnknown, TransientError
from prooftune.providers.calls import NotFoundError
from prooftune.providers.chat import Ask, ChatAnswer, Prompt, in_order
from prooftune.spec import Provider
from prooftune.spec.fields import digest
from prooftune.types import Progress, Report

log = logging.getLogger(__name__)

FIRST_POLL_S = 5.0
LONGEST_POLL_S = 300.0
POLL_GROWTH = 1.5
SEARCH_S = 180.0
"""How long one call looks for a batch in the provider's lists, after a request whose outcome is unknown."""
LISTED_WITHIN_S = 3600.0
"""A batch that no list has shown by then does not exist: until then further calls look, and none submits another."""
RESULTS_KEPT_S = 29 * 86_400
"""Both providers keep a batch's answers about this long; older batches are not looked at."""


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """How far a batch is."""

    text: str
    """In the provider's word."""
    done: int
    ended: bool
    failed: str = ""
    """Why there are no answers to any question, in the provider's words; empty = there are."""


class BatchQueue(Protocol):
    """One set of questions at a provider's batch API."""

    def find(self) -> str | None:
        """Return the id of the batch that was submitted for these questions and is good for an answer, if there is one."""

    def submit(self) -> str:
        """Create the batch, with a single attempt, and return its id. Raises as ``Caller.create``."""

    def status(self, batch: str) -> BatchStatus:
        """Return how far the batch is."""

    def answers(self, batch: str) -> dict[str, ChatAnswer]:
        """Return what was answered, by custom id; questions that failed or expired are missing."""


def batches_base(provider: str, options: Provider) -> bool:
    """Return whether a provider's base model is asked through its batch API, as far as the spec says.

    Azure works batches off anywhere in the world, so ``tier: standard``, which keeps data in the resource's region, asks directly.
    Source: https://learn.microsoft.com/azure/ai-foundry/openai/how-to/batch.
    """
    return options.batch and not (provider == "azure" and options.tier == "standard")


def batch_key(name: str, address: str, prompts: Sequence[Prompt], max_tokens: int) -> str:
    """Return the digest by which a batch is known again: the same questions to the same model at the same address have the same one."""
    return digest([name, address, max_tokens, [[message.model_dump() for message in prompt] for prompt in prompts]])[:32]


def custom_id(key: str, number: int) -> str:
    """Return the name of a question in its batch: at most 64 letters, digits and dashes, unique, and with the batch's digest."""
    return f"{key}-{number}"


def answer_through(queue: BatchQueue, key: str, prompts: Sequence[Prompt], ask: Ask, folder: Path, report: Report) -> list[ChatAnswer]:
    """Return the answer to each prompt, in order.

    Before a batch is submitted its first question is asked directly: a wrong key or model is refused before anything is uploaded, and the
    client learns which parameters the model takes. What the batch leaves unanswered is asked directly, at the full price.

    Raises:
        EnvironmentLacks: the provider rejected the batch as a whole, or somebody cancelled it.
    """
    if not prompts:
        return []
    found = _answers(queue, folder / f"batch-{key[:16]}.json", prompts, ask, report)
    ids = [custom_id(key, number) for number in range(len(prompts))]
    unanswered = [number for number, name in enumerate(ids) if name not in found]
    if unanswered:
        log.warning("the batch answered %d of %d requests; the others are asked directly", len(ids) - len(unanswered), len(ids))
        again = in_order(ask, [prompts[number] for number in unanswered])
        found |= {ids[number]: answer for number, answer in zip(unanswered, again, strict=True)}
    return [found[name] for name in ids]


@dataclass(frozen=True, slots=True)
class _Ticket:
    """What is written down of the batch for these questions."""

    batch: str | None = None
    asked_at: float | None = None
    """Seconds since the epoch: when one was asked for and no answer said what came of it."""


def _answers(queue: BatchQueue, path: Path, prompts: Sequence[Prompt], ask: Ask, report: Report) -> dict[str, ChatAnswer]:
    """Return what the batch on the ticket answered, or, where there is none or it is gone, one that is found or submitted."""
    written = _read(path)
    if written.batch is not None:
        try:
            return _read_batch(queue, written.batch, path, len(prompts), report)
        except NotFoundError:
            log.warning("batch %s, which an earlier call submitted, is gone; looking for another", written.batch)
            path.unlink()
    if written.asked_at is not None and time.time() < written.asked_at + LISTED_WITHIN_S:
        batch = _looked_for(queue, None, written.asked_at)
    else:
        found = queue.find()
        if found is None or found == written.batch:
            ask(prompts[0])
            found = _submitted(queue, written.batch, path)
        batch = found
    _write(path, _Ticket(batch))
    return _read_batch(queue, batch, path, len(prompts), report)


def _submitted(queue: BatchQueue, gone: str | None, path: Path) -> str:
    """Submit the batch; where no answer says what came of it, write that down and look for it: a second one would cost as much.

    Raises:
        OutcomeUnknown: it did not turn up.
    """
    try:
        return queue.submit()
    except OutcomeUnknown as error:
        log.warning("%s; looking for the batch", error)
    asked_at = time.time()
    _write(path, _Ticket(asked_at=asked_at))
    return _looked_for(queue, gone, asked_at)


def _looked_for(queue: BatchQueue, gone: str | None, asked_at: float) -> str:
    """Look for a batch of which nobody knows whether it was made, for a while: lists lag.

    Raises:
        OutcomeUnknown: it did not turn up; the next call looks again.
    """
    started, pause = time.monotonic(), FIRST_POLL_S
    while (batch := _found(queue)) in (None, gone):
        if time.monotonic() - started >= SEARCH_S:
            at, until = (f"{datetime.fromtimestamp(when, UTC):%H:%M}" for when in (asked_at, asked_at + LISTED_WITHIN_S))
            raise OutcomeUnknown(
                f"a batch was asked for at {at} UTC, and neither an answer nor a list says whether there is one; run the same command "
                f"again: it is looked for until {until}, and only then submitted anew"
            )
        time.sleep(pause)
        pause *= POLL_GROWTH
    return str(batch)


def _found(queue: BatchQueue) -> str | None:
    try:
        return queue.find()
    except TransientError as error:
        log.warning("%s", error)
        return None


def _read_batch(queue: BatchQueue, batch: str, ticket: Path, total: int, report: Report) -> dict[str, ChatAnswer]:
    """Wait for the batch and return what it answered, by custom id."""
    status = wait_for(queue, batch, total, report)
    if status.failed:
        ticket.unlink()
        raise EnvironmentLacks(f"batch {batch} came back without answers: {status.failed}; run the same command again to submit a new one")
    return queue.answers(batch)


def wait_for(queue: BatchQueue, batch: str, total: int, report: Report) -> BatchStatus:
    """Ask for the batch's status, less and less often, until it has ended."""
    pause = FIRST_POLL_S
    while not (status := queue.status(batch)).ended:
        report(Progress(done=status.done, total=total, unit="answers", text=f"batch {batch}: {status.text}"))
        time.sleep(pause * random.uniform(0.9, 1.1))  # noqa: S311 - jitter is no secret
        pause = min(pause * POLL_GROWTH, LONGEST_POLL_S)
    report(Progress(done=total, total=total, unit="answers", text=f"batch {batch}: {status.text}"))
    return status


def _read(path: Path) -> _Ticket:
    return _Ticket(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else _Ticket()


def _write(path: Path, ticket: _Ticket) -> None:
    """Write the ticket, whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps({name: value for name, value in asdict(ticket).items() if value is not None}), encoding="utf-8")
    part.replace(path)
