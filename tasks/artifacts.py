"""What stages show in the Prefect UI. The UI is a window: when the server cannot be reached, the work goes on and the log says so.

Prefect's client tries for a minute before it gives up. A run waits so long once: as long as the server stays away, the next requests are
tried once each.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import httpx
from prefect import artifacts
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from prooftune.report.wording import flatten, name_of, number
from tasks.listening import Said, tell

_away = threading.Event()
"""Set while the server could not be reached when it was asked last."""


@contextmanager
def if_reachable() -> Iterator[None]:
    """Let a failed request to the Prefect server cost a warning, never the stage whose work is done or under way."""
    try:
        with asked_once_while_away():
            yield
    except (httpx.HTTPError, ObjectNotFound) as error:  # not found: somebody deleted what was to be updated
        get_run_logger().warning("the Prefect UI was not told: %s", type(error).__name__)
    except RuntimeError as error:
        if not cannot_reach(error):
            raise
        get_run_logger().warning("the Prefect UI was not told: %s", error)


@contextmanager
def asked_once_while_away() -> Iterator[None]:
    """Let Prefect's client give up after one try where the server could not be reached the last time."""
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0} if _away.is_set() else {}):
            yield
    except httpx.HTTPStatusError:
        _away.clear()  # it answers
        raise
    except (httpx.TransportError, RuntimeError) as error:
        if not _away.is_set() and (isinstance(error, httpx.TransportError) or cannot_reach(error)):
            _away.set()
            tell(Said("The Prefect server does not answer. The run goes on; its pages there miss what happens meanwhile."))
        raise
    else:
        _away.clear()


def cannot_reach(error: RuntimeError) -> bool:
    """Return whether Prefect says that its server cannot be reached; it has no class of its own for it."""
    return str(error).startswith("Failed to reach API")


def show_table(rows: list[dict[str, Any]], key: str, description: str) -> None:
    """Show rows as a table, names and figures as everywhere."""
    told = [{name_of(name): value if isinstance(value, list | dict) else number(value) for name, value in row.items()} for row in rows]
    with if_reachable():
        artifacts.create_table_artifact(told, key=key, description=description)


def show_markdown(text: str, key: str, description: str, known: UUID | None = None) -> UUID | None:
    """Show Markdown, or show it in the place of an artifact that is known; return the artifact's id for the next update."""
    with if_reachable():
        if known is None:
            return cast(UUID, artifacts.create_markdown_artifact(text, key=key, description=description))
        get_client(sync_client=True).update_artifact(known, ArtifactUpdate(data=text, description=description))
    return known


def show_link(address: str, key: str, description: str) -> None:
    """Show a link to a file of the store. Its text is the address: no browser follows a link from the UI into a folder or to ``s3://``."""
    with if_reachable():
        link = address if "://" in address else Path(address).absolute().as_uri()
        artifacts.create_link_artifact(link, key=key, link_text=address, description=description)


def show_figures(figures: Mapping[str, Any], key: str, description: str) -> None:
    """Show a stage's figures as a table of two columns, nested ones as ``train · examples``."""
    show_table([{"figure": name, "value": number(value)} for name, value in flatten(figures)], key=key, description=description)


def tag_run(*tags: str) -> None:
    """Add tags to the flow run, by which the UI filters runs."""
    with if_reachable(), get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(str(flow_run.id)))
        client.update_flow_run(run.id, tags=sorted({*run.tags, *tags}))


def show_progress(known: UUID | None, percent: float, key: str, description: str) -> UUID | None:
    """Show or update a progress bar; return its id for the next update."""
    with if_reachable():
        if known is None:
            return cast(UUID, artifacts.create_progress_artifact(percent, key=key, description=description))
        artifacts.update_progress_artifact(known, percent, description=description)
    return known
