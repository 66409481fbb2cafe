"""Runs the main job from the command line: server, flow, progress on the terminal."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prooftune.errors import EnvironmentLacks, SpecError
from prooftune.results import result_json
from prooftune.spec import load_spec, store_at


def run_spec(path: Path, overrides: Sequence[str] = (), *, fresh: bool = False) -> dict[str, Any]:
    """Run ``finetune`` on a spec file in this process and return the result as JSON.

    Raises:
        ProoftuneError: as the stages raise it.
    """
    spec = load_spec(path, overrides)
    from prooftune.storage.objects import open_store

    open_store(spec.store).check()
    prepare_environment(fresh)
    api = server_address()["api"]
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.finetune import finetune
    from flows.live import live_progress

    with temporary_settings({PREFECT_API_URL: api}), live_progress():
        result = finetune(spec)
    return result_json(result)


def compare_spec(path: Path, backends: tuple[str, ...], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Run ``compare`` on a spec file in this process and return the comparison as JSON.

    Raises:
        SpecError: the spec has no such backend.
        ProoftuneError: as the stages raise it.
    """
    spec = load_spec(path, overrides)
    for name in backends:
        spec.on_backend(name)
    if len(backends) < 2:
        raise SpecError(f"--backends names {len(backends)} backend; a comparison needs at least two, such as local,openai")
    from prooftune.storage.objects import open_store

    open_store(spec.store).check()
    prepare_environment(fresh=False)
    api = server_address()["api"]
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.compare import compare
    from flows.live import live_progress
    from prooftune.results import address_of
    from prooftune.types import RunWaiting

    with temporary_settings({PREFECT_API_URL: api}), live_progress():
        result = compare(spec, backends)
    if isinstance(result, RunWaiting):
        return result_json(result)
    page = address_of(open_store(spec.store).uri, result.artifacts["comparison.html"].key)
    return {**result.figures, "page": page, "waiting": None}


def resume_waiting(store_uri: str, endpoint_url: str | None) -> dict[str, Any]:
    """Go on, in this process, with the runs whose job has ended; return what became of each run that waited."""
    store = store_at(store_uri, endpoint_url)
    prepare_environment(fresh=False)
    api = server_address()["api"]
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.live import live_progress
    from flows.resume import gone_on
    from prooftune.storage.objects import open_store

    with temporary_settings({PREFECT_API_URL: api}), live_progress():
        return {"store": open_store(store).uri, "runs": gone_on(store)}


def server_address() -> dict[str, Any]:
    """Return where the configured Prefect server is, or the local one, started if need be.

    Raises:
        EnvironmentLacks: the configured server does not answer, or the local one does not come up.
    """
    from flows.local_server import configured_api_url, healthy, start_server

    if url := configured_api_url():
        if not healthy(url):
            raise EnvironmentLacks(
                f"the configured Prefect server at {url} does not answer; start it, or unset PREFECT_API_URL to use a local one"
            )
        return {"running": True, "ui": url.removesuffix("/api"), "api": url, "local": False}
    server = start_server(lambda: print("Starting the local Prefect server …", file=sys.stderr))  # noqa: T201 - to a person
    return {"running": True, "ui": server.ui_url, "api": server.api_url, "local": True, "pid": server.pid}


def prepare_environment(fresh: bool) -> None:
    """Set what Prefect and the libraries read at import: logs go to the UI, our own display to the terminal, telemetry nowhere."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_INTERNAL_LOGGING_LEVEL", "CRITICAL")  # a server that is away is told once, and not at each request
    os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "prooftune")
    os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")  # what a lease's own thread says belongs to no flow run
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin for each other make a busy machine ten times slower
    if fresh:
        os.environ["PREFECT_TASKS_REFRESH_CACHE"] = "true"
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # nor at each line of the log that the server does not get
