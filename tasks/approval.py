"""A person's yes to what a run wants to do, in the Prefect UI or by ``prooftune approve``: to spend, or to put in use what it trained."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import httpx
from prefect import task
from prefect.exceptions import FlowPauseTimeout, NotPausedError, ObjectNotFound
from prefect.flow_runs import pause_flow_run, resume_flow_run
from prefect.input import RunInput
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from pydantic import Field

from prooftune.economics.approvals import PROMOTION, Answer, Question, answer, ask, read
from prooftune.economics.policy import told_kept
from prooftune.errors import ProoftuneError
from prooftune.report.story import question_story
from prooftune.report.wording import usd as dollars
from prooftune.spec import RunSpec, Store
from prooftune.storage.objects import ObjectStore, open_store
from prooftune.storage.registry_document import NOBODY
from prooftune.types import Decision, StageOutput
from tasks.artifacts import show_figures
from tasks.asking import show_answer, show_question, stop_waiting
from tasks.events import emit_approval_needed
from tasks.gate import write_decision
from tasks.policies import policy
from tasks.stage import Stage

LOOK_S = 10.0
"""How often the store is asked for an answer while the flow run is paused."""
NOT_RESUMED = (NotPausedError, FlowPauseTimeout, ObjectNotFound, httpx.HTTPError, RuntimeError, ProoftuneError)
"""The flow run is not paused yet, or not any more (a RuntimeError: Prefect has no form for it yet, or cannot reach its server), or the
server or the store is away: the next look tells."""


class Approval(RunInput):
    """What the Prefect UI asks for."""

    decision: Literal["approve", "reject"] = Field(description="Whether the run may do what it asks for.")
    by: str = Field(min_length=1, description="Who decides: a person's name.")
    reason: str = Field(default="", description="Why, for those who read the record.")


@dataclass(frozen=True)
class Asking:
    """A question as a person sees it."""

    question: Question
    hours: float
    """How long an answer is waited for."""
    why: str
    """Why a person is asked, in a sentence."""
    evidence: Sequence[str] = ()
    """What the answer can rest on, a point each."""
    places: Mapping[str, str] = field(default_factory=dict)
    """Address by what is there."""

    @property
    def text(self) -> str:
        """Why, and the evidence, as plain text of a line each."""
        return "\n- ".join([self.why, *self.evidence])

    def story(self, command: str = "", where: str = "") -> str:
        """Return the question in Markdown, with ``command`` also how to answer; ``where`` is the flow run that waits, if it is another."""
        return question_story(self.question, self.why, self.evidence, self.places, command, self.hours, where)


def ask_person(spec: RunSpec, run_key: str, estimate: StageOutput) -> tuple[StageOutput, ...]:
    """Wait for a person where the estimate is above ``budget.approve_above_usd``; return the stages that this took.

    An answer is kept in the object store: a run that is started again does not ask again.
    """
    limit, usd = spec.budget.approve_above_usd, float(estimate.figures["usd"])
    if limit is None or usd <= limit:
        return (estimate,)
    asked = Asking(
        question=Question(key=run_key, usd=usd, task=spec.name),
        hours=spec.budget.approve_within_hours,
        why=f"The estimate is ${usd:,.2f}, and budget.approve_above_usd is ${limit:,.2f}.",
        evidence=(
            *(f"{line['what']}: {dollars(line['usd'])}" for line in estimate.figures["lines"]),
            f"in all {dollars(usd)}, and {dollars(estimate.figures['longest_usd'])} with every answer as long as its request allows",
            *told_kept(spec),
        ),
    )
    said = ask_for(spec.store, asked)
    return (estimate, record_answer(spec, said))


@task(**policy("approval", 1, 10))
def record_answer(spec: RunSpec, said: Answer) -> StageOutput:
    """Hand on ``approval.json`` and, where the answer is no, ``decision.json``: not to fine-tune, which is a result and no crash."""
    stage = Stage(spec.store)

    def work(out: Path) -> dict[str, Any]:
        (out / "approval.json").write_text(said.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return said.model_dump(mode="json") | write_decision(None if said.approved else _declined(spec, said), out)

    output = stage.perform(work)
    show_figures(said.model_dump(mode="json"), key="answer", description=f"The estimate of ${said.usd or 0:,.2f} was {said.text}.")
    return output


def ask_for(store: Store, asked: Asking) -> Answer:
    """Return the answer that is there, or pause the flow run until somebody gives one: the UI's form, `prooftune approve`, or the clock."""
    question = asked.question
    objects = open_store(store)
    said = read(objects, question.key, question.usd) or _wait(objects, asked, f"prooftune approve {question.key}{store.flags}")
    stop_waiting()
    get_run_logger().info("%s %s: %s", question.key, question.text, said.text)
    return said


def _wait(store: ObjectStore, asked: Asking, command: str) -> Answer:
    question = asked.question
    key, usd, hours = question.key, question.usd, asked.hours
    ask(store, key, usd, str(flow_run.id), question.task)
    form = asked.story(command)
    shown = show_question(form, asked.story(command, where=str(flow_run.ui_url)))
    get_run_logger().warning("%s %s: it waits for a person. Resume this flow run, or: %s", key, question.text, command)
    emit_approval_needed(question.task, key, f"{key} {question.text}. {asked.text}", command, {"usd": usd, "within_hours": hours})
    paused = PROMOTION if usd is None else round(usd * 100)
    with _woken(store, key, usd, hours) as clock:
        wanted = Approval.with_initial_data(description=form)
        given = pause_flow_run(wait_for_input=wanted, timeout=int(hours * 3600) + 600, poll_interval=2, key=f"approve-{paused}")
    if given is None:
        raise RuntimeError("the flow run was resumed without an answer; resume it with one")
    if clock.is_set() and given.by == NOBODY:  # not kept: who comes late may still say yes, and the next run finds that or asks anew
        at = datetime.now(UTC).isoformat(timespec="seconds")
        said = read(store, key, usd) or Answer(key=key, usd=usd, approved=False, by=NOBODY, reason=given.reason, at=at)
    else:
        said = answer(store, key, usd, approved=given.decision == "approve", by=given.by, reason=given.reason)
    show_answer(shown, asked.story(), f"It was {said.text}.")
    return said


@contextmanager
def _woken(store: ObjectStore, run_key: str, usd: float | None, hours: float) -> Iterator[threading.Event]:
    """Resume the paused flow run, from a thread, as soon as the store has an answer, or when the clock has run out: then the event is set.

    Who answers on another machine may not reach this flow run's server, and who is quick answers before it is paused.
    """
    over, clock, deadline = threading.Event(), threading.Event(), time.monotonic() + hours * 3600
    paused, log = UUID(str(flow_run.id)), get_run_logger()

    def watch() -> None:
        while not over.wait(min(LOOK_S, hours * 3600)):
            try:
                if (said := read(store, run_key, usd)) is not None:
                    resume_flow_run(paused, run_input=_given("approve" if said.approved else "reject", said.by, said.reason))
                elif time.monotonic() >= deadline:
                    clock.set()
                    resume_flow_run(paused, run_input=_given("reject", NOBODY, f"no answer within {hours:g} hours"))
            except NOT_RESUMED as error:
                log.debug("%s was not resumed: %s", run_key, error)

    # A thread of its own would not know which server is meant.
    thread = threading.Thread(target=copy_context().run, args=[watch], name=f"approval-{run_key}", daemon=True)
    thread.start()
    try:
        yield clock
    finally:
        over.set()
        thread.join()


def _given(decision: str, by: str, reason: str) -> dict[str, Any]:
    return {"decision": decision, "by": by, "reason": reason}


def _declined(spec: RunSpec, said: Answer) -> Decision:
    """Return the decision that a no is: a result, not a crash."""
    return Decision(
        verdict="do_not_fine_tune",
        reasons=(f"The estimate of ${said.usd or 0:,.2f} was {said.text}.",),
        metric=spec.task.metric,
    )
