"""What Prooftune tells the Prefect server: signals of the sensors, verdicts, approvals that are needed. Automations go by these events.

Prefect's own ``emit_event`` hands an event to a thread and a websocket, and nobody learns whether it arrived. Here each is posted and the
server's answer is awaited: an event that was told has arrived, however soon the process ends.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import httpx
from prefect.client.orchestration import get_client
from prefect.events import Event, RelatedResource
from prefect.events.schemas.events import Resource
from prefect.logging import get_logger, get_run_logger
from prefect.runtime import flow_run

from prooftune.report.wording import reasons_of
from prooftune.types import RunResult
from prooftune.watching.signals import Signal, resource_of
from tasks.artifacts import asked_once_while_away, cannot_reach

VERDICT = "prooftune.verdict.reached"
APPROVAL = "prooftune.approval.needed"
PAUSES_S = (1.0, 4.0, 10.0)
"""Between tries, where the server cannot be reached at all; what its own client tries again is not counted."""


def emit(signal: Signal) -> bool:
    """Tell a signal; False = the server cannot be reached, and the log says so.

    A replay has the same id. The server's triggers take an id once within 30 minutes and its event feed keeps the first, so looking more
    often than that starts nothing twice, and an event that was lost is made good by a later look.
    """
    return _post(signal.event, signal.id, signal.resource, signal.model_dump(mode="json"))


def emit_verdict(task: str, result: RunResult) -> bool:
    """Tell how a run of the task ended; False = the server cannot be reached."""
    payload = {
        "task": task,
        "run_id": result.run_id,
        "verdict": result.verdict,
        "reasons": reasons_of(result.decision),
        "report": result.report,
        "ui_url": result.ui_url,
        "note": result.note,
    }
    return _post(VERDICT, id_of(VERDICT, task, result.run_id), resource_of(task) | {"prooftune.verdict": result.verdict}, payload)


def emit_approval_needed(task: str, run: str, what: str, command: str, figures: dict[str, Any]) -> bool:
    """Tell that a run waits for a person: ``what`` is asked, what ``command`` answers, ``figures`` it rests on. False = nobody was told."""
    payload = {"task": task, "run_id": run, "what": what, "command": command, "figures": figures, "ui_url": flow_run.ui_url}
    return _post(APPROVAL, id_of(APPROVAL, task, run, what), resource_of(task), payload)


def id_of(*parts: str) -> UUID:
    """Return the id of an occurrence: the same for every replay."""
    return uuid5(NAMESPACE_URL, ":".join(parts))


def _post(name: str, event_id: UUID, resource: dict[str, str], payload: dict[str, Any]) -> bool:
    log = get_run_logger() if flow_run.id else get_logger("prooftune")
    event = Event(
        event=name, id=event_id, occurred=datetime.now(UTC), resource=Resource(root=resource), related=_related(), payload=payload
    )
    trouble = ""
    for pause in (0.0, *PAUSES_S):
        time.sleep(pause)
        try:
            with asked_once_while_away(), get_client(sync_client=True) as client:
                client.request("POST", "/events", json=[event.model_dump(mode="json")])
        except httpx.HTTPStatusError as error:
            trouble = f"it answers {error.response.status_code}"
            if error.response.is_client_error:
                break
        except httpx.TransportError as error:
            trouble = type(error).__name__
        except RuntimeError as error:
            if not cannot_reach(error):
                raise
            trouble = "it cannot be reached"
        else:
            log.info("%s was told: %s", name, event_id)
            return True
    log.warning("%s was not told, the Prefect server was asked %d times: %s. A later look tells it again", name, len(PAUSES_S) + 1, trouble)
    return False


def _related() -> Sequence[RelatedResource]:
    """Return the flow run that tells, so that the UI shows the event beside it."""
    if not flow_run.id:
        return []
    known = {"prefect.resource.id": f"prefect.flow-run.{flow_run.id}", "prefect.resource.role": "flow-run"}
    return [RelatedResource(root=known | {"prefect.resource.name": str(flow_run.name)})]
