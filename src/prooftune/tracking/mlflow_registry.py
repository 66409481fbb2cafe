"""Mirrors a task's registry in the MLflow Model Registry: a registered model per task, a version per run, aliases for those in use.

The object store stays the truth; the mirror is brought up to date from it as a whole, so that one which was missed or interrupted is healed
by the next. Source: https://mlflow.org/docs/latest/ml/model-registry/.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prooftune.errors import EnvironmentLacks, TransientError
from prooftune.storage.manifest import read_manifest
from prooftune.storage.objects import NoSuchObject, ObjectStore
from prooftune.storage.registry import read_registry
from prooftune.storage.registry_contest import WEIGHTS

if TYPE_CHECKING:
    from mlflow import MlflowClient

PREFIX = "prooftune"
"""Of the registered model's name and of its versions' tags."""
RUN_ID = f"{PREFIX}.run_id"
ALIASES = ("champion", "challenger")
_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


def mirror(tracking_uri: str, store: ObjectStore, task: str) -> dict[str, Any]:
    """Give each registered run of the task that trained something a version, and the champion and the challenger their aliases.

    A run has one version, however often it is mirrored. Its tags are the run's id, verdict, metrics and digests; its source is the address
    of the run's manifest.

    Returns:
        Name of the registered model, version by run id, and run id by alias.

    Raises:
        EnvironmentLacks: the package ``mlflow`` is missing, or the tracking server refuses.
        TransientError: the tracking server cannot be reached.
    """
    client = require_server(tracking_uri)
    registry, name = read_registry(store, task), f"{PREFIX}-{task}"
    with refusals(tracking_uri):
        _require_model(client, name, store.uri)
        versions = _versions(client, name)
        for entry in registry["history"]:
            if entry["run_id"] not in versions and (tags := _tags(store, entry)) is not None:
                made = client.create_model_version(name, _source(store.uri, entry["manifest"]["key"]), tags=tags, await_creation_for=0)
                versions[entry["run_id"]] = str(made.version)
        aliases = {alias: registry[alias] for alias in ALIASES if registry[alias] in versions}
        for alias in ALIASES:
            if alias in aliases:
                client.set_registered_model_alias(name, alias, versions[aliases[alias]])
            else:
                client.delete_registered_model_alias(name, alias)
    return {"model": name, "versions": versions, "aliases": aliases}


def require_server(tracking_uri: str) -> MlflowClient:
    """Return a client whose server has answered, so that hours of work do not begin with an address that takes no records.

    Raises:
        EnvironmentLacks: the package ``mlflow`` is missing, or the tracking server, or MLflow itself, refuses.
        TransientError: the tracking server cannot be reached.
    """
    os.environ.setdefault(_RETRIES, "2")  # seven by default: minutes of silence before an absent server is called absent
    try:
        from mlflow import MlflowClient
    except ModuleNotFoundError as error:
        raise EnvironmentLacks(
            f"tracking.mlflow needs the package {error.name}; install it with `pip install 'prooftune[mlflow]'`"
        ) from None
    try:
        with refusals(tracking_uri):
            client = MlflowClient(tracking_uri, registry_uri=tracking_uri)
            client.search_experiments(max_results=1)
    except (FileNotFoundError, PermissionError) as error:
        raise EnvironmentLacks(f"MLflow at {tracking_uri} has no place for its records ({error}); check tracking.mlflow") from None
    return client


def _require_model(client: MlflowClient, name: str, store_uri: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, tags={f"{PREFIX}.store": store_uri})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _versions(client: MlflowClient, name: str) -> dict[str, str]:
    """Return the version of each run; the first one, should two mirrors at once have made two."""
    found = sorted(client.search_model_versions(f"name = '{name}'"), key=lambda version: int(version.version), reverse=True)
    return {version.tags[RUN_ID]: str(version.version) for version in found if RUN_ID in version.tags}


def _tags(store: ObjectStore, entry: Mapping[str, Any]) -> dict[str, str] | None:
    """Return what is told of a run; None where it trained nothing or is published no more."""
    try:
        manifest = read_manifest(store, entry["run_id"])
    except NoSuchObject:
        return None
    if not any(file.startswith(WEIGHTS) for file in manifest.files):
        return None
    facts: Mapping[str, Any] = manifest.facts
    lineage = facts.get("lineage") or {}
    metrics: Mapping[str, Any] = next((one["metrics"] for one in facts.get("evaluations", ()) if one["name"] == "candidate"), {})
    told = {
        "run_id": entry["run_id"],
        "verdict": entry["decision"]["verdict"],
        "manifest": _source(store.uri, entry["manifest"]["key"]),
        "manifest_sha256": entry["manifest"]["sha256"],
        "lineage_sha256": lineage.get("sha256"),
        "holdout_sha256": lineage.get("seal"),
        **{f"metric.{name}": metric["value"] for name, metric in metrics.items()},
    }
    return {f"{PREFIX}.{name}": str(value) for name, value in told.items() if value is not None}


def _source(store_uri: str, key: str) -> str:
    """Return a manifest's address. Tracking servers refuse paths of the caller's machine, so a local one gets a scheme of its own."""
    return f"{store_uri}/{key}" if "://" in store_uri else f"{PREFIX}://{(Path(store_uri).resolve() / key).as_posix()}"


@contextmanager
def refusals(tracking_uri: str) -> Iterator[None]:
    """Turn MLflow's errors into ours, which say what to do.

    Raises:
        EnvironmentLacks: the tracking server, or MLflow itself, refuses.
        TransientError: the tracking server cannot be reached.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        where, reason = f"MLflow at {tracking_uri}", " ".join(str(error).split())[:300]
        if error.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"):
            raise TransientError(f"{where} does not answer as it should ({reason}); check tracking.mlflow, then try again") from None
        raise EnvironmentLacks(f"{where} refuses: {reason}; check tracking.mlflow and the server's permissions") from None
