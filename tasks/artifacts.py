"""What stages show in the Prefect UI. The UI is a window: when the server cannot be reached, the work goes on and the log says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast
from uuid import UUID

import httpx
from prefect import artifacts
from prefect.logging import get_run_logger


@contextmanager
def if_reachable() -> Iterator[None]:
    """Let a failed request to the Prefect server cost a warning, never the stage whose work is done or under way."""
    try:
        yield
    except httpx.HTTPError as error:
        get_run_logger().warning("the Prefect UI was not told: %s", type(error).__name__)
    except RuntimeError as error:
        if not str(error).startswith("Failed to reach API"):  # Prefect has no class of its own for it
            raise
        get_run_logger().warning("the Prefect UI was not told: %s", error)


def show_table(rows: list[dict[str, Any]], key: str, description: str) -> None:
    """Show rows as a table."""
    with if_reachable():
        artifacts.create_table_artifact(rows, key=key, description=description)


def show_markdown(text: str, key: str, description: str) -> None:
    """Show Markdown."""
    with if_reachable():
        artifacts.create_markdown_artifact(text, key=key, description=description)


def show_link(address: str, key: str, text: str) -> None:
    """Show a link to a file of the store."""
    with if_reachable():
        artifacts.create_link_artifact(address if "://" in address else f"file://{address}", key=key, link_text=text, description=address)


def show_progress(known: UUID | None, percent: float, key: str, description: str) -> UUID | None:
    """Show or update a progress bar; return its id for the next update."""
    with if_reachable():
        if known is None:
            return cast(UUID, artifacts.create_progress_artifact(percent, key=key, description=description))
        artifacts.update_progress_artifact(known, percent, description=description)
    return known
