"""``prooftune deploy``: the Prefect server gets the work pools, limits, deployments and automations that the files of a folder say.

Done again it changes only what differs from the files.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_UI_URL
from pydantic import ValidationError

from flows.automations import apply_automations, read_yaml, server_client
from prooftune.errors import SpecError
from prooftune.spec import store_at
from prooftune.watching.signals import EVENTS, resource_of

POOLS = Path("deployments/pools")
LIMITS = Path("deployments/limits.yaml")
LOG_LINES = 20


def deploy(folder: Path, store: str | None = None) -> dict[str, Any]:
    """Apply a folder's pools, limits, deployments and automations, in this order, and return what became of each.

    Args:
        folder: Holds ``prefect.yaml`` and ``deployments/``.
        store: Where the flows keep their results, in place of what ``prefect.yaml`` says.

    Raises:
        SpecError: a file is not there, or says what Prefect does not take; or the store's address cannot be one.
    """
    folder = folder.resolve()
    said = read_yaml(folder / "prefect.yaml")
    deployments = said.get("deployments", [])
    if store:
        deployments = [kept_at(one, store_at(store).uri) for one in deployments]
    check_triggers(deployments)
    with server_client() as client:
        pools = [{"name": pool.name, "became": apply_pool(client, pool)} for pool in read_pools(folder / POOLS)]
        limits = [
            {"tag": tag, "limit": limit, "became": apply_limit(client, tag, limit)}
            for tag, limit in read_yaml(folder / LIMITS)["tags"].items()
        ]
        deploy_all(folder, said | {"deployments": deployments}, str(client.api_url))
        ui = PREFECT_UI_URL.value() or str(client.api_url).rstrip("/").removesuffix("/api")
    names = [one["name"] for one in deployments]
    return {"ui": ui, "store": store, "pools": pools, "limits": limits, "deployments": names, **apply_automations(folder)}


def kept_at(deployment: dict[str, Any], uri: str) -> dict[str, Any]:
    """Return a deployment whose flow keeps its results at ``uri``: the parameter ``store``, or that of the parameter ``spec``."""
    moved = dict(deployment.get("parameters", {}))
    if "store" in moved:
        moved["store"] = {"uri": uri}
    if "spec" in moved:
        moved["spec"] = moved["spec"] | {"store": {"uri": uri}}
    return deployment | {"parameters": moved}


def check_triggers(deployments: list[dict[str, Any]]) -> None:
    """Check that a deployment which events start listens for those of its own spec's task: any other would never start it.

    Raises:
        SpecError: one listens for another task.
    """
    for one in deployments:
        wanted = resource_of(str(one.get("parameters", {}).get("spec", {}).get("name")))["prefect.resource.id"]
        for trigger in one.get("triggers", []):
            found = trigger.get("match", {}).get("prefect.resource.id")
            if found != wanted and set(EVENTS.values()) & set(trigger.get("expect", [])):
                raise SpecError(
                    f"prefect.yaml: the trigger of {one['name']} listens for {found}, but its spec's events are those of {wanted}, so none "
                    "would start it. Write the spec's name into the trigger's match"
                )


def read_pools(folder: Path) -> list[WorkPoolCreate]:
    """Return the work pools of a folder's files.

    Raises:
        SpecError: one is no work pool.
    """
    pools = []
    for file in sorted(folder.glob("*.yaml")):
        try:
            pools.append(WorkPoolCreate.model_validate(read_yaml(file)))
        except ValidationError as error:
            raise SpecError(f"{file} is no work pool: {error}") from None
    return pools


def apply_pool(client: SyncPrefectClient, wanted: WorkPoolCreate) -> str:
    """Make a work pool as a file says, or change it; whether it is paused is left to people.

    Raises:
        SpecError: there is one of another type, or the server refuses its job template.
    """
    said = wanted.model_dump(include={"description", "concurrency_limit", "base_job_template"})
    try:
        known = client.read_work_pool(wanted.name)
    except ObjectNotFound:
        known = None
    if known and known.type != wanted.type:
        raise SpecError(
            f"the work pool {wanted.name} is of type {known.type}, {POOLS}/{wanted.name}.yaml says {wanted.type}, and no pool changes its "
            f"type. Give the file's another name, or delete the server's: prefect work-pool delete {wanted.name}"
        )
    if known and said == known.model_dump(include=set(said)):
        return "unchanged"
    try:
        if known is None:
            client.create_work_pool(wanted)
            return "created"
        client.update_work_pool(wanted.name, WorkPoolUpdate(**said))
    except PrefectHTTPStatusError as error:
        raise SpecError(f"the server refuses {POOLS}/{wanted.name}.yaml: {error.response.text}") from None
    return "changed"


def apply_limit(client: SyncPrefectClient, tag: str, limit: int) -> str:
    """Let at most ``limit`` tasks with a tag run at once; those that run already go on."""
    name = f"tag:{tag}"  # as Prefect's task engine asks for it
    try:
        known = client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        known = None
    if known and known.limit == limit:
        return "unchanged"
    client.upsert_global_concurrency_limit_by_name(name, limit)
    return "changed" if known else "created"


def deploy_all(folder: Path, said: dict[str, Any], api_url: str) -> None:
    """Let Prefect create or update every deployment that is said, as a ``prefect.yaml`` of the folder would say it.

    Raises:
        SpecError: it refuses; the message ends with what it says.
    """
    env = os.environ | {"PREFECT_API_URL": api_url, "PWD": str(folder), "NO_COLOR": "1"}  # prefect.yaml asks for PWD
    with TemporaryDirectory() as temporary:  # the folder itself may be one that cannot be written to
        file = Path(temporary) / "prefect.yaml"
        file.write_text(yaml.safe_dump(said))
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
        done = subprocess.run(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        told = "\n".join(f"{done.stdout}\n{done.stderr}".strip().splitlines()[-LOG_LINES:])
        raise SpecError(f"`prefect deploy --all` does not take {folder / 'prefect.yaml'}. It says:\n{told}")
