"""What the commands after the verdict answer, as JSON: promote, rollback, history, verify."""

from __future__ import annotations

import getpass
import shlex
from typing import Any

from prooftune.errors import EnvironmentLacks, ProoftuneError


def promote_run(
    task: str, run_id: str, reason: str, by: str | None, force: bool, store_uri: str, endpoint_url: str | None
) -> dict[str, Any]:
    """Make a published run the champion of its task.

    Raises:
        NoSuchObject, PromotionRefused: there is no such run, or it cannot be in use; the message says why.
        EnvironmentLacks: nobody says who it is.
    """
    from prooftune.storage.registry import promote

    store = open_named(store_uri, endpoint_url)
    registry = promote(store, task, run_id, reason=reason, by=by or user(), force=force)
    return _changed(registry, store_uri, endpoint_url, mirror_champion(registry, store_uri, endpoint_url))


def roll_back(task: str, reason: str, by: str | None, champion: str | None, store_uri: str, endpoint_url: str | None) -> dict[str, Any]:
    """Put the champion before the present one back in use.

    Raises:
        PromotionRefused: there is none.
        EnvironmentLacks: nobody says who it is.
    """
    from prooftune.storage.registry import rollback

    store = open_named(store_uri, endpoint_url)
    registry = rollback(store, task, reason=reason, by=by or user(), champion=champion)
    return _changed(registry, store_uri, endpoint_url, mirror_champion(registry, store_uri, endpoint_url))


def show_history(task: str, store_uri: str, endpoint_url: str | None) -> dict[str, Any]:
    """Return the champion, every change of it and every registered run.

    Raises:
        NoSuchObject: no run of the task is registered.
    """
    from prooftune.report.wording import with_flags
    from prooftune.storage.registry import history

    store = open_named(store_uri, endpoint_url)
    found, flags = history(store, task), store_flags(store_uri, endpoint_url)
    listed = ("verdict", "metric", "baseline", "baseline_value", "candidate_value", "difference", "n")
    runs = [
        {name: entry[name] for name in ("run_id", "registered_at", "champion_before", "met", "approval")}
        | {"held_back": with_flags(entry["held_back"], flags)}
        | {name: entry["decision"][name] for name in listed}
        for entry in found["history"]
    ]
    return {"store": store.uri, **{name: found[name] for name in ("task", "champion", "challenger", "changes")}, "runs": runs}


def verify_published(run_id: str, store_uri: str, endpoint_url: str | None) -> dict[str, Any]:
    """Compute every digest and figure of a published run again and list what does not match.

    Raises:
        NoSuchObject, IntegrityError: there is no such run, or its manifest cannot be read.
    """
    from flows.terminal import working
    from prooftune.verification import verify_run

    store = open_named(store_uri, endpoint_url)
    with working(f"computing {run_id} again"):
        return {"store": store.uri, **verify_run(store, run_id).model_dump(mode="json")}


def mirror_champion(registry: dict[str, Any], store_uri: str, endpoint_url: str | None) -> dict[str, Any] | None:
    """Bring MLflow's registry up to date where the champion's spec names a tracking server; None where it names none.

    A mirror that fails is told and not raised: the champion is changed by then, and promoting it again mirrors again.
    """
    import yaml

    from prooftune.storage.manifest import read_manifest

    store = open_named(store_uri, endpoint_url)
    files = read_manifest(store, registry["champion"]).files
    if "spec.yaml" not in files:
        return None
    tracking = (yaml.safe_load(store.fetch(files["spec.yaml"]).read_bytes()).get("tracking") or {}).get("mlflow")
    if tracking is None:
        return None
    from prooftune.tracking.mlflow_registry import mirror

    try:
        return {"failed": None, **mirror(tracking, store, registry["task"])}
    except ProoftuneError as error:
        return {"failed": str(error)}


def _changed(registry: dict[str, Any], store_uri: str, endpoint_url: str | None, mirrored: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "store": open_named(store_uri, endpoint_url).uri,
        "task": registry["task"],
        "champion": registry["champion"],
        "change": registry["changes"][-1],
        "mlflow": mirrored,
        "next": f"prooftune history {shlex.quote(registry['task'])}{store_flags(store_uri, endpoint_url)}",
    }


def store_flags(store_uri: str, endpoint_url: str | None) -> str:
    """Return what a command has to say of the store where it is not the default one, to be appended."""
    from prooftune.spec import store_at

    return store_at(store_uri, endpoint_url).flags


def open_named(store_uri: str, endpoint_url: str | None) -> Any:
    """Return the object store that a command line names."""
    from prooftune.spec import store_at
    from prooftune.storage.objects import open_store

    return open_store(store_at(store_uri, endpoint_url))


def user() -> str:
    """Return who runs the command. Raises EnvironmentLacks where the machine does not say."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise EnvironmentLacks("this machine does not say who you are; name yourself with --by, or set USER") from None
