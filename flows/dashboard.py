"""Writes the dashboard of a store: a page here, or in the store itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flows.governance import open_named, store_flags
from prooftune.errors import EnvironmentLacks

PUBLISHED = "dashboard/index.html"
"""Key of the page in the store."""
PAGE = "dashboard.html"
"""Where it is written when nobody says where."""


def write_dashboard(output: Path | None, publish: bool, store_uri: str, endpoint_url: str | None) -> dict[str, Any]:
    """Read the store and write its page to ``output``, or into the store where ``publish``; both where both are asked for.

    Raises:
        StoreUnavailable, TransientError: the store cannot be read, or the page not be published.
        EnvironmentLacks: the page cannot be written to ``output``.
    """
    from prooftune.dashboard.page import matters, render
    from prooftune.dashboard.reading import read_dashboard
    from prooftune.results import address_of

    store = open_named(store_uri, endpoint_url)
    view, flags = read_dashboard(store, datetime.now(UTC)), store_flags(store_uri, endpoint_url)
    page = None
    if output is not None or not publish:
        page = _file_of(output or Path(PAGE))
        _write(page, render(view, _beside(store.uri, page), flags))
    if publish:
        up = "../" * PUBLISHED.count("/")
        store.put(PUBLISHED, render(view, lambda key: up + quote(key), flags).encode())
    return {
        "store": store.uri,
        "page": str(page) if page else None,
        "published": address_of(store.uri, PUBLISHED) if publish else None,
        "runs": len(view.runs),
        "tasks": len(view.tasks),
        "champions": {task.name: task.registry.champion for task in view.tasks if task.registry.champion},
        "waits": [{"what": one.name, "text": one.text, "command": one.command or None} for one in matters(view, flags)],
    }


def _file_of(output: Path) -> Path:
    """Return the file that ``output`` means: a folder gets an ``index.html``."""
    is_folder = output.is_dir() or (not output.exists() and not output.suffix)
    return (output / "index.html" if is_folder else output).resolve()


def _write(page: Path, text: str) -> None:
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise EnvironmentLacks(f"the page cannot be written to {page} ({error.strerror}); name another place with --output") from None


def _beside(store_uri: str, page: Path) -> Callable[[str], str | None]:
    """Return how a page beside the store reaches an object; no browser opens ``s3://``, so that a page of such a store links to nothing."""
    if "://" in store_uri:
        return lambda key: None
    return lambda key: quote(Path(os.path.relpath(Path(store_uri).resolve() / key, page.parent)).as_posix())


def screen(answer: dict[str, Any]) -> None:
    """Say where the page is and what waits for a person."""
    from flows.layout import command, marked, pairs, place_of, plain, show, unbroken
    from prooftune.report.wording import counted

    known = f"{counted(answer['runs'], 'run')} of {counted(answer['tasks'], 'task')}, {len(answer['champions']):,} with a champion"
    show(marked("✓", "green", known))
    places = {"  page": answer["page"], "  published": answer["published"]}
    show(pairs({name: place_of(place) for name, place in places.items() if place}))
    for one in answer["waits"]:
        show(marked("!", "yellow", f"{one['what']}. {one['text']}"))
        if one["command"]:
            show(*unbroken({"": command(one["command"])}))
    if not answer["waits"]:
        show(plain("  nothing waits for you", "dim"))
