"""What the Prefect UI shows while a run waits for a person: a tag and an artifact, on the flow run and on every run above it.

Only the run that asked is paused; a run that called it looks as if it were at work.
"""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.objects import FlowRun
from prefect.runtime import flow_run

from tasks.artifacts import if_reachable

WAITS = "waits-for-approval"
"""Tag of a flow run that waits for a person."""


def show_question(text: str, text_above: str) -> list[UUID]:
    """Show a question in the flow run, and in those above it with ``text_above``; return the artifacts for the answer."""
    shown: list[UUID] = []
    with if_reachable(), get_client(sync_client=True) as client:
        for at, run in enumerate(_runs(client)):
            client.update_flow_run(run.id, tags=sorted({*run.tags, WAITS}))
            told = ArtifactCreate(
                key="approval",
                type="markdown",
                description="It waits for a person's yes or no.",
                data=text_above if at else text,
                flow_run_id=run.id,
            )
            shown.append(client.create_artifact(told).id)
    return shown


def show_answer(shown: list[UUID], text: str, answer: str) -> None:
    """Put the answer above the question, whose ``text`` no longer says how to answer."""
    with if_reachable(), get_client(sync_client=True) as client:
        for known in shown:
            client.update_artifact(known, ArtifactUpdate(data=text, description=answer))


def stop_waiting() -> None:
    """Take the tag off, also where another process, which was killed since, put it on."""
    with if_reachable(), get_client(sync_client=True) as client:
        for run in _runs(client):
            if WAITS in run.tags:
                client.update_flow_run(run.id, tags=sorted({*run.tags} - {WAITS}))


def _runs(client: SyncPrefectClient) -> Iterator[FlowRun]:
    """Yield the flow run, the one that called it, and so on."""
    found: UUID | None = UUID(str(flow_run.id))
    while found is not None:
        run = client.read_flow_run(found)
        yield run
        found = client.read_task_run(run.parent_task_run_id).flow_run_id if run.parent_task_run_id else None
