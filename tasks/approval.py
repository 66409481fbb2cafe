"""A person's yes to what a run may cost, in the Prefect UI or by ``prooftune approve``."""

from __future__ import annotations

import threading
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

from prooftune.economics.approvals import Answer, answer, ask, read
from prooftune.spec import RunSpec
from prooftune.storage.objects import open_store
from prooftune.types import Decision, StageOutput
from tasks.artifacts import show_markdown
from tasks.gate import write_decision
from tasks.policies import policy
from tasks.stage import Stage

NOBODY = "nobody"


class Approval(RunInput):
    """What the Prefect UI asks for."""

    decision: Literal["approve", "reject"] = Field(description="Whether the run may spend what it estimates.")
    by: str = Field(default="Prefect UI", description="Who decides.")
    reason: str = Field(default="", description="Why, for those who read the record.")


def ask_person(spec: RunSpec, run_key: str, estimate: StageOutput) -> tuple[StageOutput, ...]:
    """Wait for a person where the estimate is above ``budget.approve_above_usd``; return the stages that this took.

    An answer is kept in the object store: a run that is started again does not ask again.
    """
    limit, usd = spec.budget.approve_above_usd, float(estimate.figures["usd"])
    if limit is None or usd <= limit:
        return (estimate,)
    said = read(open_store(spec.store), run_key, usd) or _wait(spec, run_key, usd)
    get_run_logger().info("%s: $%.2f %s by %s", run_key, usd, "approved" if said.approved else "rejected", said.by)
    return (estimate, record_answer(spec, said))


@task(**policy("approval", 1, 10, "managed"))
def record_answer(spec: RunSpec, said: Answer) -> StageOutput:
    """Hand on ``approval.json`` and, where the answer is no, ``decision.json``: not to fine-tune, which is a result and no crash."""
    stage = Stage(spec.store)

    def work(out: Path) -> dict[str, Any]:
        (out / "approval.json").write_text(said.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return said.model_dump(mode="json") | write_decision(None if said.approved else _declined(spec, said), out)

    return stage.perform(work)


def _wait(spec: RunSpec, run_key: str, usd: float) -> Answer:
    """Pause the flow run until somebody resumes it: the UI's form, `prooftune approve`, or the clock."""
    store, hours = open_store(spec.store), spec.budget.approve_within_hours
    ask(store, run_key, usd, str(flow_run.id))
    show_markdown(
        f"# ${usd:,.2f} need an approval\n\n`{run_key}` may cost ${usd:,.2f}; budget.approve_above_usd is "
        f"${spec.budget.approve_above_usd:,.2f}.\n\nResume this run in the UI, or: `prooftune approve {run_key}`. Nobody's answer within "
        f"{hours:g} hours is a no.",
        key="approval",
        description="A person has to say yes",
    )
    get_run_logger().warning("waits for an approval of $%.2f: prooftune approve %s", usd, run_key)
    late = [_resume, str(flow_run.id), "reject", NOBODY, f"no answer within {hours:g} hours"]
    clock = threading.Timer(hours * 3600, copy_context().run, late)  # a thread of its own would not know which server is meant
    clock.daemon = True
    clock.start()
    try:
        given = pause_flow_run(wait_for_input=Approval, timeout=int(hours * 3600) + 600, poll_interval=2, key=f"approve-{round(usd * 100)}")
    finally:
        clock.cancel()
    if given is None:
        raise RuntimeError("the flow run was resumed without an answer; resume it with one")
    if given.by == NOBODY:  # is not kept: a person who comes late may still say yes, and the next run finds that or asks anew
        at = datetime.now(UTC).isoformat(timespec="seconds")
        unanswered = Answer(key=run_key, usd=usd, approved=False, by=NOBODY, reason=given.reason, at=at)
        return read(store, run_key, usd) or unanswered
    return answer(store, run_key, usd, approved=given.decision == "approve", by=given.by, reason=given.reason)


def _resume(flow_run_id: str, decision: str, by: str, reason: str) -> None:
    resume_flow_run(UUID(flow_run_id), run_input={"decision": decision, "by": by, "reason": reason})


def _declined(spec: RunSpec, said: Answer) -> Decision:
    """Return the decision that a no is: a result, not a crash."""
    why = f": {said.reason}" if said.reason else ""
    return Decision(
        verdict="do_not_fine_tune",
        reasons=(f"The estimate of ${said.usd:,.2f} was rejected by {said.by} on {said.at[:10]}{why}.",),
        metric=spec.task.metric,
    )
