"""A retraining that finds another one under way waits for its turn, and holds neither a worker nor a slot meanwhile.

Its flow run is scheduled again, as ``AwaitingRetraining``, and its process ends; when the time has come a worker starts it, and it asks
anew. A limit of Prefect's would not do: it is one deployment's, and retrainings of a task have several.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import OrchestrationResult, SetStateStatus
from prefect.exceptions import Pause
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Scheduled

from prooftune.report.wording import visible
from prooftune.retraining.admission import Admission
from prooftune.spec import RunSpec
from prooftune.watching.signals import Signal
from tasks.artifacts import tag_run

AWAITS = "AwaitingRetraining"
"""Name of the state of a flow run that waits."""
ASK_AGAIN = timedelta(minutes=10)
"""As often as the sensors look: asking starts a process."""
WAITS_AT_MOST = timedelta(days=7)
"""From when the flow run was due; the calendar's next one is due by then, and a sensor says again what still holds."""


def wait_for_turn(spec: RunSpec, signal: Signal, told: Admission) -> Admission:
    """End the process and let the flow run ask again, where waiting helps; return what it ends with otherwise.

    Raises:
        Pause: it waits. Prefect ends the process, as for a flow run that is suspended.
    """
    again = _worth_asking(signal, told)
    if again is None or again - flow_run.scheduled_start_time > WAITS_AT_MOST:
        return told
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(str(flow_run.id)))
        if run.deployment_id is None:  # no worker would start it again
            return told
        occurrence = f"{signal.kind} {signal.digest[:12]}"
        if other := _waits_already(client, run, [spec.name, occurrence]):
            waits = f"the flow run {other.name!r} waits for {occurrence} already"
            return told.model_copy(update={"decision": "duplicate", "reason": waits})
        tag_run(spec.name, "retrain", occurrence)
        client.update_flow_run(run.id, name=f"{spec.name}: waits for its turn")
        text = f"waits: {visible(told.reason)}. It asks again at {again:%Y-%m-%d %H:%M} UTC"
        answer: OrchestrationResult[Any] = client.set_flow_run_state(run.id, Scheduled(scheduled_time=again, name=AWAITS, message=text))
    if answer.status != SetStateStatus.ACCEPT:  # somebody cancels it just now
        return told
    get_run_logger().info("%s", text)
    raise Pause(state=answer.state)


def _worth_asking(signal: Signal, told: Admission) -> datetime | None:
    """Return when to ask again; None = never: it starts, it is done, or a sensor says it again when it may start."""
    if told.decision == "running":
        return datetime.now(UTC) + ASK_AGAIN
    return told.until if told.decision == "cooling_down" and signal.kind == "schedule" else None


def _waits_already(client: SyncPrefectClient, run: FlowRun, tags: list[str]) -> FlowRun | None:
    """Return another flow run that waits for the same occurrence, which a sensor repeats; of several, all but the least id yield."""
    kinds = {"type": {"any_": ["SCHEDULED", "PENDING", "RUNNING"]}}
    found = client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate({"tags": {"all_": tags}, "state": kinds}))
    return next((one for one in found if one.id < run.id), None)
