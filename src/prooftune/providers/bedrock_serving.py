"""Tuned models on Bedrock made to answer: on demand, paid for by the token, where the family allows it, else by the hour."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from prooftune.errors import ProoftuneError, SpecError, TransientError
from prooftune.providers.bedrock_answers import OnDemand, Provisioned, shown
from prooftune.providers.bedrock_connection import Connection, pages
from prooftune.providers.bedrock_models import require_family
from prooftune.providers.calls import NotFoundError
from prooftune.providers.tuning import MARK, Deployment, PartlyListed

PAGE = 100
_NAME = re.compile(rf"{MARK}-(?:[0-9a-zA-Z][_-]?){{1,{62 - len(MARK)}}}")


class Deployments:
    """The deployments of one account and region that are ours, of both kinds. Names are unique in the account for each kind."""

    def __init__(self, api: Connection) -> None:
        self._api = api
        self._bedrock = api.bedrock
        self._kinds: dict[str, type[OnDemand] | type[Provisioned]] = {}
        """By name: the kind of what was made or listed here. A name stands for one tuned model, and that for one kind."""

    def ensure(self, model: str, name: str) -> Deployment:
        """Make the deployment where it is not there; one that failed is made anew."""
        if not _NAME.fullmatch(name) or len(name) > 63:
            raise SpecError(
                f"{name[:80]!r} names no deployment of ours: such a name is {MARK}- and then letters, digits and single - or _, "
                "63 characters at most"
            )
        on_demand = require_family(model).on_demand
        self._kinds[name] = OnDemand if on_demand else Provisioned
        look = self._on_demand if on_demand else self._provisioned
        found = look(name)
        if found is not None and found.status != "Failed":
            return shown(found)
        if found is not None:
            self.delete(name)
        try:
            self._api.call(partial(self._create, model, name, f"{name}-{uuid.uuid4().hex[:8]}", on_demand))
        except SpecError:
            # The name may be taken by one that another process made since.
            if (other := look(name)) is None:
                raise
            return shown(other)
        made = look(name)
        if made is None:
            raise NotFoundError(f"bedrock made the deployment {name} and does not show it; run the same command again")
        return shown(made)

    def _create(self, model: str, name: str, token: str, on_demand: bool) -> None:
        """Ask for it. Asking again under one token makes one; another call's token differs, since a token may outlive what it made."""
        if on_demand:
            self._bedrock.create_custom_model_deployment(modelDeploymentName=name, modelArn=model, clientRequestToken=token)
        else:
            # Without a commitment, which could not be ended: billed by the hour until it is deleted.
            self._bedrock.create_provisioned_model_throughput(
                provisionedModelName=name, modelId=model, modelUnits=1, clientRequestToken=token
            )

    def _on_demand(self, name: str) -> OnDemand | None:
        def request() -> OnDemand:
            found: dict[str, Any] = self._bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=name)
            return OnDemand.model_validate(found | {"customModelDeploymentName": found.get("modelDeploymentName")})

        try:
            return self._api.call(request)
        except NotFoundError:
            return None

    def _provisioned(self, name: str) -> Provisioned | None:
        def request() -> Provisioned:
            return Provisioned.model_validate(self._bedrock.get_provisioned_model_throughput(provisionedModelId=name))

        try:
            return self._api.call(request)
        except NotFoundError:
            return None

    def running(self) -> list[Deployment]:
        """Return those of both kinds under names of ours.

        Raises:
            PartlyListed: one kind was listed, and the list of the other was refused.
            TransientError: a list may be there later; what the other one shows must not pass for all meanwhile.
            ProoftuneError: neither was listed.
        """
        listings = (
            (OnDemand, self._bedrock.list_custom_model_deployments, "modelDeploymentSummaries"),
            (Provisioned, self._bedrock.list_provisioned_model_throughputs, "provisionedModelSummaries"),
        )
        found: list[Deployment] = []
        refused: list[ProoftuneError] = []
        for kind, listing, field in listings:
            try:
                listed = [kind.model_validate(one) for one in pages(self._api.call, listing, field, nameContains=MARK, maxResults=PAGE)]
            except TransientError:
                raise
            except ProoftuneError as error:
                refused.append(error)
                continue
            ours = [one for one in listed if one.name.startswith(f"{MARK}-")]
            self._kinds |= {one.name: kind for one in ours}
            found += [shown(one) for one in ours]
        if len(refused) == len(listings):
            raise refused[0]
        if refused:
            raise PartlyListed(str(refused[0]), tuple(found))
        return found

    def delete(self, name: str) -> None:
        """Delete it, of whichever kind it is; one that is gone is fine.

        Both are tried, first the kind that it is known to be. A refusal for the other one matters only where nobody knows the kind.

        Raises:
            ProoftuneError: it was not deleted, or nobody knows whether there is one: the account may not delete that kind.
        """
        known = self._kinds.get(name)
        requests: list[tuple[type[OnDemand] | type[Provisioned], Callable[[], object]]] = [
            (OnDemand, partial(self._bedrock.delete_custom_model_deployment, customModelDeploymentIdentifier=name)),
            (Provisioned, partial(self._bedrock.delete_provisioned_model_throughput, provisionedModelId=name)),
        ]
        refused: list[ProoftuneError] = []
        for kind, request in sorted(requests, key=lambda one: one[0] is not known):
            try:
                self._api.call(request)
                known, refused = kind, []
            except NotFoundError:
                continue
            except ProoftuneError as error:
                if known in (None, kind):
                    refused.append(error)
        if refused:
            raise refused[0]
