"""Adapters on Fireworks' deployments: a deployment of the base model, under a name of ours, onto which the adapter is loaded."""

from __future__ import annotations

import re
from functools import partial

from prooftune.errors import EnvironmentLacks, SpecError
from prooftune.providers.calls import NotFoundError
from prooftune.providers.fireworks_answers import Resource
from prooftune.providers.fireworks_connection import Connection, until
from prooftune.providers.tuning import MARK, Deployment

IDLE_S = 900
"""Without requests, a deployment costs nothing after so long, should nobody take it down."""
_NAME = re.compile(rf"{MARK}-[a-z0-9-]{{1,{62 - len(MARK)}}}")


class Deployments:
    """The deployments of one account that are ours."""

    def __init__(self, api: Connection) -> None:
        self._api = api

    def ensure(self, model: str, base: str, name: str) -> Deployment:
        """Make the deployment where it is not there, wait until it runs, load the adapter where it is not loaded."""
        if not _NAME.fullmatch(name):
            raise SpecError(
                f"{name[:80]!r} names no deployment of ours: such a name is {MARK}- and then a-z, 0-9 and -, 63 characters at most"
            )
        wanted = {
            "deployment_id": name,
            "base_model": base,
            "description": model,
            "enable_addons": True,
            "min_replica_count": 0,
            "max_replica_count": 1,
            "autoscaling_policy": {"scale_to_zero_window": f"{IDLE_S}s"},
        }
        self._api.make(lambda: self._api.client.deployments.create(**wanted))
        running = until(partial(self._look, name), lambda seen: seen.state in ("READY", "FAILED"), f"the deployment {name}")
        if running.state == "FAILED":
            raise EnvironmentLacks(f"Fireworks could not start the deployment {name}: {running.told}")
        if not any(one.model == model for one in self._adapters(running.name)):
            self._api.make(lambda: self._api.client.lora.load(model=model, deployment=running.name))
        return _deployment(running, self._adapters(running.name))

    def running(self) -> list[Deployment]:
        """Return those that run or start, by our names."""
        found = [one for page in self._api.pages(self._api.client.deployments) for one in page.deployments]
        ours = [one for one in found if one.id.startswith(f"{MARK}-") and one.state not in ("DELETING", "DELETED")]
        loaded = self._adapters() if ours else []
        return [_deployment(one, [adapter for adapter in loaded if adapter.deployment == one.name]) for one in ours]

    def delete(self, name: str) -> None:
        """Delete one, whatever is loaded on it; one that is gone is fine."""
        try:
            self._api.call(lambda: self._api.client.deployments.delete(name, ignore_checks=True))
        except NotFoundError:
            return

    def _look(self, name: str) -> Resource:
        """Return the deployment; one that was deleted, and whose name is still taken, is brought back."""
        found = self._api.read(Resource, lambda: self._api.client.deployments.with_raw_response.get(name))
        if found.state == "DELETED":
            self._api.make(lambda: self._api.client.deployments.undelete(name, body={}))
        return found

    def _adapters(self, deployment: str | None = None) -> list[Resource]:
        """Return what is loaded, on one deployment or on any."""
        found = [one for page in self._api.pages(self._api.client.lora) for one in page.deployed_models]
        return [one for one in found if deployment in (None, one.deployment)]


def _deployment(found: Resource, adapters: list[Resource]) -> Deployment:
    """Return a deployment in our words; what is loaded on it is ours, and until then its description names what will be."""
    adapter = adapters[0] if adapters else None
    model = (adapter.model if adapter else None) or found.description
    loaded = adapter.state if adapter else "no adapter"
    return Deployment(
        name=found.id,
        model=model,
        ready=found.state == "READY" and loaded == "DEPLOYED",
        told=found.state if found.state != "READY" else f"READY, {loaded}",
        chat=f"{model}#{found.name}",
        created_at=found.create_time,
        failed=found.state == "FAILED",
        idle_s=IDLE_S,
    )
