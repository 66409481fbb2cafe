"""Tuned models on hardware of their own: an endpoint under a name of ours with one deployment behind it. Billed by the minute."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from prooftune.errors import EnvironmentLacks, ModelUnavailable, SpecError
from prooftune.providers.calls import NotFoundError
from prooftune.providers.together_answers import (
    ConfigAnswer,
    ConfigPage,
    DeploymentAnswer,
    DeploymentSummary,
    EndpointAnswer,
    EndpointPage,
    HardwareList,
    ModelAnswer,
)
from prooftune.providers.together_connection import Connection, parsed, until
from prooftune.providers.tuning import MARK, Deployment

READY_WITHIN_S = 1800.0
STOPPED_WITHIN_S = 600.0
IDLE_MINUTES = 30
"""Without requests, after which a deployment stops by itself, should nobody take it down. The least that Together takes."""
PAGE = 100
READY, FAILED, STOPPED, STOPPING = (f"DEPLOYMENT_STATE_{word}" for word in ("READY", "FAILED", "STOPPED", "STOPPING"))
ONE, NONE = {"min_replicas": 1, "max_replicas": 1}, {"min_replicas": 0, "max_replicas": 0}
_NAME = re.compile(rf"{MARK}-[a-z0-9-]{{1,{62 - len(MARK)}}}")


class Endpoints:
    """The endpoints of one project that are ours."""

    def __init__(self, api: Connection) -> None:
        self._api = api
        self._resource = api.client.endpoints

    def ensure(self, model: str, name: str) -> Deployment:
        """Make endpoint and deployment where they are not there, start what has stopped, and wait until the model answers.

        Args:
            model: The tuned model, ``projects/PROJECT/models/ID``.
            name: Of the endpoint, and of its deployment.

        Raises:
            EnvironmentLacks: the deployment failed to start.
            TransientError: it did not start within half an hour.
        """
        if not _NAME.fullmatch(name):
            raise SpecError(
                f"{name[:80]!r} names no deployment of ours: such a name is {MARK}- and then a-z, 0-9 and -, 63 characters at most"
            )
        endpoint = self._api.call(lambda: self._find(name) or self._create_endpoint(name))
        config = None if endpoint.deployments else self._cheapest(model)
        self._api.call(lambda: self._start(endpoint.id, name, model, config))
        running = until(
            lambda: self._endpoint(endpoint.id), lambda seen: _state(seen) in (READY, FAILED), partial(_told, name), READY_WITHIN_S
        )
        if _state(running) == FAILED:
            raise EnvironmentLacks(f"Together could not start the deployment {name}: {self._why(running)}")
        return _deployment(running)

    def running(self) -> list[Deployment]:
        """Return ours, whatever state they are in: an endpoint is listed until it is deleted."""
        return [_deployment(one) for one in self._all() if _bare(one.name).startswith(f"{MARK}-")]

    def delete(self, name: str) -> None:
        """Stop and delete deployment and endpoint; what is gone is fine. It costs nothing from the moment it stops.

        Raises:
            TransientError: it did not stop within ten minutes.
        """
        endpoint = self._api.call(lambda: self._find(name))
        if endpoint is None:
            return
        try:
            for deployment in endpoint.deployments:
                self._stop(endpoint.id, deployment, name)
                self._delete(partial(self._resource.deployments.delete, deployment.id, **self._at(endpoint.id)))
        except NotFoundError:  # somebody else deleted it meanwhile
            pass
        self._delete(partial(self._resource.delete, endpoint.id, project_id=self._api.project))

    def _stop(self, endpoint: str, deployment: DeploymentSummary, name: str) -> None:
        resource = self._resource.deployments
        if deployment.state not in (STOPPED, STOPPING):
            self._api.call(lambda: resource.update(deployment.id, autoscaling=NONE, update_mask="autoscaling", **self._at(endpoint)))
        until(
            lambda: self._look(endpoint, deployment.id).status.state,
            lambda state: state in (STOPPED, FAILED),
            lambda state: f"the deployment {name} is {state}",
            STOPPED_WITHIN_S,
        )

    def _delete(self, request: Callable[[], object]) -> None:
        try:
            self._api.call(request)
        except NotFoundError:
            return

    def _start(self, identity: str, name: str, model: str, config: str | None) -> None:
        """Create the deployment, or start the one that has stopped. It is looked for in each attempt: an answer may have got lost."""
        endpoint, resource = self._endpoint(identity), self._resource.deployments
        if not endpoint.deployments:
            wanted = {"name": name, "model": model, "config": config, "autoscaling": ONE, "inactive_timeout": IDLE_MINUTES}
            parsed(DeploymentAnswer, resource.with_raw_response.create(endpoint.id, project_id=self._api.project, **wanted))
        elif _state(endpoint) in (STOPPED, STOPPING):
            resource.update(endpoint.deployments[0].id, autoscaling=ONE, update_mask="autoscaling", **self._at(endpoint.id))

    def _create_endpoint(self, name: str) -> EndpointAnswer:
        return parsed(EndpointAnswer, self._resource.with_raw_response.create(name=name, project_id=self._api.project))

    def _endpoint(self, identity: str) -> EndpointAnswer:
        resource = self._resource.with_raw_response
        return self._api.read(EndpointAnswer, lambda: resource.retrieve(identity, project_id=self._api.project))

    def _find(self, name: str) -> EndpointAnswer | None:
        return next((one for one in self._all() if _bare(one.name) == name), None)

    def _all(self) -> list[EndpointAnswer]:
        found: list[EndpointAnswer] = []
        after: dict[str, str] | None = {}
        while after is not None:
            page = self._api.call(partial(self._page, after))
            found += page.data
            after = {"after": page.next_cursor} if page.next_cursor else None
        return found

    def _page(self, after: dict[str, str]) -> EndpointPage:
        listing = self._resource.with_raw_response.list
        return parsed(EndpointPage, listing(project_id=self._api.project, limit=PAGE, **after))

    def _look(self, endpoint: str, deployment: str) -> DeploymentAnswer:
        resource = self._resource.deployments.with_raw_response
        return self._api.read(DeploymentAnswer, lambda: resource.retrieve(deployment, **self._at(endpoint)))

    def _why(self, endpoint: EndpointAnswer) -> str:
        return self._look(endpoint.id, endpoint.deployments[0].id).status.message or "it does not say why"

    def _at(self, endpoint: str) -> dict[str, str]:
        return {"project_id": self._api.project, "endpoint_id": endpoint}

    def _cheapest(self, model: str) -> str:
        """Return the configuration of the lowest price by which the model runs on its own, without slots for adapters.

        Raises:
            ModelUnavailable: there is none.
        """
        project, _, identity = model.removeprefix("projects/").partition("/models/")
        models = self._api.client.models
        found = self._api.read(ModelAnswer, lambda: models.with_raw_response.retrieve(identity, project_id=project))
        usable = [one for one in self._configs(found.base_model or model) if one.chosen("adapter_mode") in ("", "disabled", "unspecified")]
        if not usable:
            raise ModelUnavailable(
                f"Together has no hardware to serve {model} on, as for some base models; the weights can be downloaded and served elsewhere"
            )
        hardware = self._api.read(HardwareList, self._resource.hardware.with_raw_response.list)
        cents = {one.name: one.price_cents_per_hour for one in hardware.data}

        def price(config: ConfigAnswer) -> tuple[float, str]:
            asked = f"{config.chosen('accelerator_count')}x{config.chosen('accelerator_type')}"
            return float(cents.get(asked, "inf")), config.id

        best = min(usable, key=price)
        return f"projects/{best.project_id}/configs/{best.id}"

    def _configs(self, reference: str) -> list[ConfigAnswer]:
        listing = self._api.client.models.configs.with_raw_response.list
        found: list[ConfigAnswer] = []
        after: dict[str, str] | None = {}
        while after is not None:
            wanted = {"project_id": self._api.project, "reference_model": reference, "limit": PAGE, **after}
            page = self._api.read(ConfigPage, lambda wanted=wanted: listing(**wanted))  # type: ignore[misc]  # bound now
            found += page.data
            after = {"after": page.next_cursor} if page.next_cursor else None
        return found


def _bare(name: str) -> str:
    """Return the last part of ``PROJECT/ENDPOINT`` or ``PROJECT/ENDPOINT/DEPLOYMENT``."""
    return name.rpartition("/")[2]


def _state(endpoint: EndpointAnswer) -> str:
    return endpoint.deployments[0].state if endpoint.deployments else "no deployment"


def _told(name: str, endpoint: EndpointAnswer) -> str:
    return f"the deployment {name} is {_state(endpoint)}"


def _deployment(endpoint: EndpointAnswer) -> Deployment:
    """Return an endpoint in our words. Its deployment is asked by its own name, so that no traffic has to be routed to it."""
    deployment = endpoint.deployments[0] if endpoint.deployments else None
    return Deployment(
        name=_bare(endpoint.name),
        model=deployment.model if deployment else "",
        ready=_state(endpoint) == READY,
        told=_state(endpoint),
        chat=deployment.name if deployment else endpoint.name,
        created_at=deployment.created_at if deployment else endpoint.created_at,
        failed=_state(endpoint) == FAILED,
        idle_s=60.0 * IDLE_MINUTES,
    )
