"""Azure's management API (ARM), as far as a fine-tuned model needs it: which models a resource may tune, and deployments.

Plain HTTP with a token of its own: the key of an Azure OpenAI resource opens its models, and none of this.
Source: https://learn.microsoft.com/rest/api/aiservices/accountmanagement.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, Field

from prooftune.errors import EnvironmentLacks, SpecError
from prooftune.providers.calls import TIMEOUT_S, Caller, Failure, NotFoundError, failure_of, retry_after

if TYPE_CHECKING:
    import httpx2

ADDRESS = "https://management.azure.com"
ADDRESS_VARIABLE = "AZURE_MANAGEMENT_ENDPOINT"
"""Another address of the API: of a sovereign cloud, or of a stand-in."""
TOKEN_VARIABLE = "AZURE_MANAGEMENT_TOKEN"  # noqa: S105 - a variable's name
LOGIN = "https://login.microsoftonline.com"
SERVICE_PRINCIPAL = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
RENEW_BEFORE_S = 300.0
VERSION = "2024-10-01"
Answer = TypeVar("Answer")
Kind = TypeVar("Kind", bound=BaseModel)


class _Dates(BaseModel):
    fine_tune: datetime | None = Field(default=None, alias="fineTune")
    inference: datetime | None = None


class AccountModel(BaseModel):
    """A model that the resource offers."""

    name: str
    version: str = ""
    capabilities: dict[str, str] | None = None
    deprecation: _Dates | None = None


class _Model(BaseModel):
    name: str


class _Properties(BaseModel):
    model: _Model
    state: str = Field(alias="provisioningState")


class _System(BaseModel):
    created: datetime | None = Field(default=None, alias="createdAt")


class DeploymentAnswer(BaseModel):
    """A deployment."""

    name: str
    properties: _Properties
    system: _System | None = Field(default=None, alias="systemData")


class _Models(BaseModel):
    value: list[AccountModel]
    next: str | None = Field(default=None, alias="nextLink")


class _Deployments(BaseModel):
    value: list[DeploymentAnswer]
    next: str | None = Field(default=None, alias="nextLink")


class _Token(BaseModel):
    access_token: str
    expires_in: float


class Management:
    """The management API of one resource."""

    def __init__(self, resource: str) -> None:
        """``resource`` is its id: ``/subscriptions/…/resourceGroups/…/providers/Microsoft.CognitiveServices/accounts/NAME``."""
        if not re.fullmatch(
            r"/subscriptions/[\w-]+/resourceGroups/[\w.()-]+/providers/Microsoft\.CognitiveServices/accounts/[\w-]+", resource
        ):
            raise SpecError(
                f"provider.resource {resource!r} is no id of an Azure OpenAI resource; it is of the form "
                "/subscriptions/ID/resourceGroups/GROUP/providers/Microsoft.CognitiveServices/accounts/NAME"
            )
        self.address = os.environ.get(ADDRESS_VARIABLE, "").rstrip("/") or ADDRESS
        self._base = f"{self.address}{resource}"
        self._token = ""
        self._expires = 0.0

    def models(self) -> Iterator[AccountModel]:
        """Yield the models that the resource offers."""
        address: str | None = self._at("/models")
        while address:
            page = self._request("GET", address, _Models)
            yield from page.value
            address = self._next(page.next)

    def deployments(self) -> Iterator[DeploymentAnswer]:
        """Yield the resource's deployments."""
        address: str | None = self._at("/deployments")
        while address:
            page = self._request("GET", address, _Deployments)
            yield from page.value
            address = self._next(page.next)

    def deploy(self, name: str, body: dict[str, Any]) -> DeploymentAnswer:
        """Make a deployment, or find the one of that name: the request names what there is to be, so it may be repeated."""
        return self._request("PUT", self._at(f"/deployments/{quote(name, safe='')}"), DeploymentAnswer, body)

    def delete(self, name: str) -> None:
        """Delete a deployment; one that is gone is fine."""
        try:
            self._send("DELETE", self._at(f"/deployments/{quote(name, safe='')}"), None, lambda _: None)
        except NotFoundError:
            return

    def _at(self, path: str) -> str:
        return f"{self._base}{path}?api-version={VERSION}"

    def _next(self, link: str | None) -> str | None:
        """Return where the next page is. The token goes to no other host."""
        if link and urlsplit(link)[:2] != urlsplit(self.address)[:2]:
            raise EnvironmentLacks(
                f"{self.address} says that its list goes on at {link}, which is another host; its token is not sent there"
            )
        return link

    def _request(self, method: str, address: str, kind: type[Kind], body: dict[str, Any] | None = None) -> Kind:
        return self._send(method, address, body, lambda response: kind.model_validate_json(response.content))

    def _send(self, method: str, address: str, body: dict[str, Any] | None, read: Callable[[httpx2.Response], Answer]) -> Answer:
        import httpx2

        token = self._authorised()

        def request() -> Answer:
            response = httpx2.request(method, address, json=body, headers={"authorization": f"Bearer {token}"}, timeout=TIMEOUT_S)
            return read(response.raise_for_status())

        return Caller(f"azure's management API at {self.address}", TOKEN_VARIABLE, token, httpx2.HTTPError, read_failure)(request)

    def _authorised(self) -> str:
        """Return a token: the one in the environment, or one for the service principal that the environment names."""
        if token := os.environ.get(TOKEN_VARIABLE, "").strip():
            return token
        if time.monotonic() > self._expires - RENEW_BEFORE_S:
            found = self._service_principal()
            self._token, self._expires = found.access_token, time.monotonic() + found.expires_in
        return self._token

    def _service_principal(self) -> _Token:
        import httpx2

        tenant, client, secret = (os.environ.get(name, "").strip() for name in SERVICE_PRINCIPAL)
        if not (tenant and client and secret):
            raise EnvironmentLacks(
                f"neither {TOKEN_VARIABLE} nor {', '.join(SERVICE_PRINCIPAL)} are set, and Azure deploys nothing without; for an hour's "
                "work set the first to what `az account get-access-token --resource https://management.azure.com` prints as accessToken"
            )
        authority = os.environ.get("AZURE_AUTHORITY_HOST", "").rstrip("/") or LOGIN
        form = {"grant_type": "client_credentials", "client_id": client, "client_secret": secret, "scope": f"{ADDRESS}/.default"}

        def request() -> _Token:
            response = httpx2.post(f"{authority}/{tenant}/oauth2/v2.0/token", data=form, timeout=TIMEOUT_S)
            return _Token.model_validate_json(response.raise_for_status().content)

        return Caller(f"azure's sign-in at {authority}", SERVICE_PRINCIPAL[2], secret, httpx2.HTTPError, read_failure)(request)


def read_failure(error: Exception) -> Failure:
    """Return what an error of httpx2 says."""
    import httpx2

    if not isinstance(error, httpx2.HTTPStatusError):
        return failure_of(error)
    response = error.response
    try:
        body = response.json()
    except ValueError:
        body = {}
    told = body.get("error", {}) if isinstance(body, dict) else {}
    message = told.get("message") if isinstance(told, dict) else body.get("error_description", told)
    code = told.get("code") if isinstance(told, dict) else str(told)
    return Failure(
        message=f"{code}: {message}" if code and message else str(message or code or response.reason_phrase),
        status=response.status_code,
        code=code,
        retry_after_s=retry_after(response.headers.get("retry-after")),
    )
