"""Automations of the Prefect server: made, changed and taken away until the server has what ``deployments/automations.yaml`` says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import BlockDocument
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import ValidationError

from flows.running import server_address
from prooftune.errors import SpecError

FILE = Path("deployments/automations.yaml")
MARK = "prooftune"
"""Tag of the automations that are ours: no other is ever changed or taken away."""
CHANNEL = "prooftune-notify-"
"""Blocks whose name begins so are sent every notification."""
PAGE = 200
REGISTER = (
    "python -c 'import os; from prefect.blocks.notifications import SlackWebhook; "
    f'SlackWebhook(url=os.environ["SLACK_WEBHOOK_URL"]).save("{CHANNEL}slack")\''
)
"""How a channel is registered without the UI; its secret comes from the environment and stays in the block."""


@contextmanager
def server_client() -> Iterator[SyncPrefectClient]:
    """Give a client of the configured Prefect server, or of the local one, started if need be."""
    with temporary_settings({PREFECT_API_URL: server_address()["api"]}), get_client(sync_client=True) as client:
        yield client


def apply_automations(folder: Path) -> dict[str, Any]:
    """Make the server's automations those of the file in a folder; one that a person paused stays paused.

    Raises:
        SpecError: the file is not there or not usable.
    """
    with server_client() as client:
        channels = read_channels(client)
        wanted, left_out = read_file(folder / FILE, channels)
        known = {one.name: one for one in our_automations(client)}
        rows = [{"name": one.name, "became": _put(client, one, known.get(one.name))} for one in wanted]
        for gone in known.keys() - {one.name for one in wanted}:
            client.delete_automation(known[gone].id)
            rows.append({"name": gone, "became": "removed"})
    return {
        "automations": rows,
        "channels": [channel.name for channel in channels],
        "left_out": left_out,
        "register": REGISTER if left_out else None,
    }


def list_automations() -> dict[str, Any]:
    """Return the automations of ours that the server has, and where notifications go."""
    with server_client() as client:
        rows = [{"name": one.name, "description": one.description, "enabled": one.enabled} for one in our_automations(client)]
        return {"automations": rows, "channels": [channel.name for channel in read_channels(client)]}


def read_file(file: Path, channels: Sequence[BlockDocument]) -> tuple[list[AutomationCore], list[str]]:
    """Return the automations of a file, and the names of those that would do nothing, for want of a channel to notify.

    Raises:
        SpecError: the file is not there or not usable.
    """
    wanted, left_out = [], []
    for number, raw in enumerate(read_yaml(file).get("automations", []), 1):
        actions = [action for one in raw["actions"] for action in _expanded(one, channels)]
        try:
            core = AutomationCore.model_validate(raw | {"actions": actions, "tags": [MARK]})
        except ValidationError as error:
            raise SpecError(f"{file}: automation {raw.get('name', number)!r} is none that Prefect knows: {error}") from None
        if actions:
            wanted.append(core)
        else:
            left_out.append(core.name)
    return wanted, left_out


def read_yaml(file: Path) -> dict[str, Any]:
    """Return what a file of ``deployments/`` says.

    Raises:
        SpecError: it is not there, or not YAML with names.
    """
    try:
        said = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError(f"{file} is not there; go to the folder that holds prefect.yaml and deployments/, or name it") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{file} is no YAML: {error}") from None
    if not isinstance(said, dict):
        raise SpecError(f"{file} holds a {type(said).__name__}; names with values are required")
    return said


def our_automations(client: SyncPrefectClient) -> list[Automation]:
    """Return the server's automations that carry our mark."""
    found: list[Automation] = []
    while page := client.read_automations(limit=PAGE, offset=len(found)):
        found += page
    return [one for one in found if MARK in one.tags]


def read_channels(client: SyncPrefectClient) -> list[BlockDocument]:
    """Return the registered blocks that notifications go to; their secrets stay on the server."""
    found: list[BlockDocument] = []
    while page := client.read_block_documents(limit=PAGE, offset=len(found), include_secrets=False):
        found += page
    return [one for one in found if (one.name or "").startswith(CHANNEL)]


def _put(client: SyncPrefectClient, wanted: AutomationCore, known: Automation | None) -> str:
    if known is None:
        client.create_automation(wanted)
        return "created"
    kept = wanted.model_copy(update={"enabled": known.enabled})
    if _comparable(kept) == _comparable(known):
        return "unchanged"
    client.update_automation(known.id, kept)
    return "changed"


def _comparable(automation: AutomationCore) -> dict[str, Any]:
    return AutomationCore.model_validate(automation.model_dump()).model_dump(exclude={"owner_resource"})


def _expanded(action: dict[str, Any], channels: Sequence[BlockDocument]) -> list[dict[str, Any]]:
    """Return Prefect's actions for one of the file: ``notify`` is one for each channel."""
    if action["type"] != "notify":
        return [action]
    return [_notification(action, channel) for channel in channels]


def _notification(action: dict[str, Any], channel: BlockDocument) -> dict[str, Any]:
    subject, body, block = action["subject"], action["body"], str(channel.id)
    if channel.block_type and channel.block_type.slug == "webhook":
        # Both are templates; their results are strings of a JSON document, whatever is in them.
        texts = f"{{% set subject %}}{subject}{{% endset %}}{{% set body %}}{body}{{% endset %}}"
        payload = f"{texts}{{{{ {{'subject': subject | string, 'body': body | string}} | tojson }}}}"
        return {"type": "call-webhook", "block_document_id": block, "payload": payload}
    return {"type": "send-notification", "block_document_id": block, "subject": subject, "body": body}
