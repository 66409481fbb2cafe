"""A person's yes to what a run wants to do, in the Prefect UI or by ``prooftune approve``: to spend, or to put in use what it trained."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from prefect import task
from prefect.flow_runs import pause_flow_run, resume_flow_run
from prefect.input import RunInput
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from pydantic import Field

from prooftune.economics.approvals import PROMOTION, Answer, Question, answer, ask, read
from prooftune.spec import RunSpec
from prooftune.storage.objects import ObjectStore, open_store
from prooftune.storage.registry_document import NOBODY
from prooftune.types import Decision, StageOutput
from tasks.artifacts import show_figures, show_markdown
from tasks.events import emit_approval_needed
from tasks.gate import write_decision
from tasks.policies import policy
from tasks.stage import Stage

LOOK_S = 10.0
"""How often the store is asked for an answer while the flow run is paused."""


class Approval(RunInput):
    """What the Prefect UI asks for."""

    decision: Literal["approve", "reject"] = Field(description="Whether the run may do what it asks for: see its artifact `approval`.")
    by: str = Field(default="Prefect UI", description="Who decides.")
    reason: str = Field(default="", description="Why, for those who read the record.")


def ask_person(spec: RunSpec, run_key: str, estimate: StageOutput) -> tuple[StageOutput, ...]:
    """Wait for a person where the estimate is above ``budget.approve_above_usd``; return the stages that this took.

    An answer is kept in the object store: a run that is started again does not ask again.
    """
    limit, usd = spec.budget.approve_above_usd, float(estimate.figures["usd"])
    if limit is None or usd <= limit:
        return (estimate,)
    hours = spec.budget.approve_within_hours
    why = f"budget.approve_above_usd is ${limit:,.2f}."
    said = ask_for(open_store(spec.store), Question(key=run_key, usd=usd, task=spec.name), hours, why)
    return (estimate, record_answer(spec, said))


@task(**policy("approval", 1, 10, "managed"))
def record_answer(spec: RunSpec, said: Answer) -> StageOutput:
    """Hand on ``approval.json`` and, where the answer is no, ``decision.json``: not to fine-tune, which is a result and no crash."""
    stage = Stage(spec.store)

    def work(out: Path) -> dict[str, Any]:
        (out / "approval.json").write_text(said.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return said.model_dump(mode="json") | write_decision(None if said.approved else _declined(spec, said), out)

    output = stage.perform(work)
    word = "approved" if said.approved else "rejected"
    show_figures(said.model_dump(mode="json"), key="answer", description=f"The estimate of ${said.usd or 0:,.2f} was {word} by {said.by}.")
    return output


def ask_for(store: ObjectStore, question: Question, hours: float, why: str) -> Answer:
    """Return the answer that is there, or pause the flow run until somebody gives one: the UI's form, `prooftune approve`, or the clock."""
    key, usd = question.key, question.usd
    said = read(store, key, usd) or _wait(store, question, hours, why)
    get_run_logger().info("%s %s: %s by %s", key, question.text, "approved" if said.approved else "rejected", said.by)
    return said


def _wait(store: ObjectStore, question: Question, hours: float, why: str) -> Answer:
    key, usd = question.key, question.usd
    ask(store, key, usd, str(flow_run.id), question.task)
    show_markdown(
        f"# {key} {question.text}\n\n{why}\n\nResume this run in the UI, or: `prooftune approve {key}`. Nobody's answer within {hours:g} "
        "hours is a no.",
        key="approval",
        description="The run goes on when a person says yes.",
    )
    get_run_logger().warning("waits for an approval, %s %s: prooftune approve %s", key, question.text, key)
    emit_approval_needed(question.task, key, f"{key} {question.text}. {why}", {"usd": usd, "within_hours": hours})
    paused = PROMOTION if usd is None else round(usd * 100)
    with _woken(store, key, usd, hours):
        given = pause_flow_run(wait_for_input=Approval, timeout=int(hours * 3600) + 600, poll_interval=2, key=f"approve-{paused}")
    if given is None:
        raise RuntimeError("the flow run was resumed without an answer; resume it with one")
    if given.by == NOBODY:  # is not kept: a person who comes late may still say yes, and the next run finds that or asks anew
        at = datetime.now(UTC).isoformat(timespec="seconds")
        return read(store, key, usd) or Answer(key=key, usd=usd, approved=False, by=NOBODY, reason=given.reason, at=at)
    return answer(store, key, usd, approved=given.decision == "approve", by=given.by, reason=given.reason)


@contextmanager
def _woken(store: ObjectStore, run_key: str, usd: float | None, hours: float) -> Iterator[None]:
    """Resume the paused flow run, from a thread, as soon as the store has an answer, or when the clock has run out.

    Who answers on another machine may not reach this flow run's server, and who is quick answers before it is paused.
    """
    over, deadline = threading.Event(), time.monotonic() + hours * 3600
    paused, log = UUID(str(flow_run.id)), get_run_logger()

    def watch() -> None:
        while not over.wait(min(LOOK_S, hours * 3600)):
            try:
                if (said := read(store, run_key, usd)) is not None:
                    resume_flow_run(paused, run_input=_given("approve" if said.approved else "reject", said.by, said.reason))
                elif time.monotonic() >= deadline:
                    resume_flow_run(paused, run_input=_given("reject", NOBODY, f"no answer within {hours:g} hours"))
            except Exception as error:  # noqa: BLE001 - not paused yet, or not any more, or the server is away: the next look tells
                log.debug("%s was not resumed: %s", run_key, error)

    # A thread of its own would not know which server is meant.
    thread = threading.Thread(target=copy_context().run, args=[watch], name=f"approval-{run_key}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _given(decision: str, by: str, reason: str) -> dict[str, Any]:
    return {"decision": decision, "by": by, "reason": reason}


def _declined(spec: RunSpec, said: Answer) -> Decision:
    """Return the decision that a no is: a result, not a crash."""
    why = f": {said.reason}" if said.reason else ""
    return Decision(
        verdict="do_not_fine_tune",
        reasons=(f"The estimate of ${said.usd or 0:,.2f} was rejected by {said.by} on {said.at[:10]}{why}.",),
        metric=spec.task.metric,
    )
