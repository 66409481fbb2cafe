"""The commands ``watch`` and ``listen``: the sensors from the command line, and the webhook's receiver."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextvars import copy_context
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prooftune.errors import EnvironmentLacks, ProoftuneError
from prooftune.spec import load_spec, store_at
from prooftune.storage.objects import open_store
from prooftune.watching.signals import Signal

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET, BLOCK = "PROOFTUNE_WEBHOOK_SECRET", "prooftune-webhook"


def look_once(path: Path, overrides: Sequence[str], emit: bool) -> dict[str, Any]:
    """Let every sensor look once, and return what each says; with ``emit`` signals are told to the Prefect server.

    Raises:
        SpecError: the spec is unusable.
        EnvironmentLacks: signals are to be told, and the configured server does not answer.
    """
    spec = load_spec(path, overrides)
    from prooftune.watching.looks import Quiet
    from prooftune.watching.sensors import SENSORS
    from prooftune.watching.told import handled

    store = open_store(spec.store)
    store.check()
    tell = _teller(_server()) if emit else None
    rows = []
    for kind, sensor in SENSORS.items():
        row: dict[str, Any] = {"kind": kind, "signal": False, "told": False, "known": "", "trouble": None}
        try:
            found = sensor(store, spec, datetime.now(UTC))
            row |= {"reason": found.reason, "figures": found.figures}
            if isinstance(found, Quiet) and found.trouble:
                row["trouble"] = found.reason
            if isinstance(found, Signal):
                known = handled(store, found, datetime.now(UTC))
                row |= {"signal": True, "digest": found.digest, "event": found.event, "id": str(found.id), "known": known}
                row["told"] = bool(tell and not known and tell(found))
        except ProoftuneError as error:  # of this sensor; the others look all the same
            row["trouble"] = str(error)
        rows.append(row)
    return {"task": spec.name, "store": store.uri, "emit": emit, "looks": rows}


def listen(host: str, port: int, store_uri: str, endpoint_url: str | None, as_json: bool) -> None:
    """Receive requests for retrainings until the process is asked to end.

    Raises:
        EnvironmentLacks: there is no secret, the server does not answer, or the port is taken.
        SpecError: the secret is too short.
    """
    from prooftune.watching.webhook import Receiver, listening

    store = open_store(store_at(store_uri, endpoint_url))
    store.check()
    api = _server()
    receiver = Receiver(store, os.environ.get(SECRET) or _secret_block(api), _teller(api))
    over = threading.Event()
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, lambda *_: over.set())
    with listening(receiver, host, port) as address:
        told = {"address": address, "post": f"{address}/events/TASK", "store": store.uri}
        if as_json:
            print(json.dumps(told), flush=True)  # noqa: T201 - the command's answer
        else:
            print(f"requests are taken at {told['post']}; end with Ctrl-C", file=sys.stderr, flush=True)  # noqa: T201 - to a person
        over.wait()


def _server() -> str:
    """Return the address of the API of the configured or the local Prefect server. Raises EnvironmentLacks."""
    from flows.running import prepare_environment, server_address

    prepare_environment(fresh=False)
    return str(server_address()["api"])


def _teller(api: str) -> Callable[[Signal], bool]:
    """Return what tells a signal to a Prefect server, from whatever thread."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from tasks.events import emit

    def tell(found: Signal) -> bool:
        with temporary_settings({PREFECT_API_URL: api}):
            return emit(found)

    context = copy_context()  # a thread of its own would not know which Prefect profile is meant
    return lambda found: context.copy().run(tell, found)


def _secret_block(api: str) -> str:
    """Return the webhook's secret from a block of the Prefect server. Raises EnvironmentLacks where there is none."""
    from prefect.blocks.system import Secret
    from prefect.settings import PREFECT_API_URL, temporary_settings

    try:
        with temporary_settings({PREFECT_API_URL: api}):
            block = cast(Secret[str], Secret.load(BLOCK))
    except ValueError:  # Prefect's word for a block that is not there
        raise EnvironmentLacks(f"there is no secret to know senders by: set {SECRET}, or make a Prefect Secret block {BLOCK}") from None
    return str(block.get())
