"""One project's connection to Vertex AI: credentials, the client, and what its errors mean. The only file that imports ``google.genai``.

An access token in ``GOOGLE_OAUTH_ACCESS_TOKEN`` takes precedence over the application default credentials, and is the only thing that is
sent to an address which is not Google's: whoever answers there gets no credentials by accident.

Source: https://docs.cloud.google.com/docs/authentication/application-default-credentials, and the SDK's own code.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from prooftune.errors import EnvironmentLacks, SpecError
from prooftune.providers.calls import TIMEOUT_S, Caller, Failure, failure_of, retry_after
from prooftune.spec import Provider

TOKEN = "GOOGLE_OAUTH_ACCESS_TOKEN"  # noqa: S105 - the variable's name
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
API_VERSION = "v1beta1"
EXTRA = "google-genai and google-cloud-storage are not installed; run: pip install 'prooftune[vertex]'"


@dataclass(frozen=True)
class Access:
    """By what right requests are made."""

    credentials: Any
    """Of ``google.auth``."""
    token: str
    """Kept out of every error; empty = default credentials, whose tokens change."""
    whose: str
    """Where they come from, for errors."""


@dataclass(frozen=True)
class Connection:
    """What every request to a project's Vertex AI goes through."""

    client: Any
    """Of the SDK ``google-genai``."""
    types: Any
    """The SDK's module of types."""
    call: Caller
    access: Access
    address: str
    """With project and region."""


def connect(options: Provider) -> Connection:
    """Return the connection that a spec asks for; nothing is sent yet. The SDK's own retries are off.

    Raises:
        EnvironmentLacks: the SDK is not installed, or there are no credentials.
        SpecError: project or region is missing.
    """
    missing = [f"provider.{name}" for name in ("project", "region") if getattr(options, name) is None]
    if missing:
        raise SpecError(f"vertex needs {' and '.join(missing)}")
    base = (options.base_url or google_address(options.region or "")).rstrip("/")
    try:
        from google import genai
        from google.genai import errors, types
    except ImportError:
        raise EnvironmentLacks(EXTRA) from None
    access = find_access(base)
    client = genai.Client(
        vertexai=True,
        project=options.project,
        location=options.region,
        credentials=access.credentials,
        http_options=types.HttpOptions(
            # Always given: the SDK would otherwise take GOOGLE_VERTEX_BASE_URL, and where data goes stands in the spec.
            base_url=base,
            api_version=API_VERSION,
            timeout=int(TIMEOUT_S * 1000),
            retry_options=types.HttpRetryOptions(attempts=1),
        ),
    )
    caught = (errors.APIError, *_named({"httpx2": "HTTPError", "httpx": "HTTPError", "google.auth.exceptions": "GoogleAuthError"}))
    call = Caller(f"vertex at {base}", access.whose, access.token, caught, read)
    return Connection(client, types, call, access, f"{base}/projects/{options.project}/locations/{options.region}")


def google_address(region: str) -> str:
    """Return Google's own address for a region, a multi-region (``us``, ``eu``) or ``global``."""
    if region == "global":
        return "https://aiplatform.googleapis.com"
    return f"https://aiplatform.{region}.rep.googleapis.com" if region in ("us", "eu") else f"https://{region}-aiplatform.googleapis.com"


def is_googles(address: str) -> bool:
    """Return whether an address is Google's own, reached over TLS."""
    parts = urlsplit(address)
    return parts.scheme == "https" and (parts.hostname or "").endswith(".googleapis.com")


def find_access(address: str) -> Access:
    """Return the token in the environment, or the application default credentials.

    Raises:
        EnvironmentLacks: there are neither; or no token, and the address is not Google's.
    """
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError
    from google.oauth2.credentials import Credentials

    token = os.environ.get(TOKEN, "").strip()
    if token:
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise EnvironmentLacks(f"{TOKEN} holds spaces or characters that no token has; set it again, to the token alone")
        return Access(Credentials(token=token), token, TOKEN)
    if not is_googles(address):
        raise EnvironmentLacks(
            f"provider.base_url is {address}, which is not Google's, and {TOKEN} is not set; default credentials are sent to Google alone. "
            f"Set {TOKEN} to the token that is to be sent there (a stand-in takes any text)"
        )
    try:
        credentials, _ = google.auth.default(scopes=[SCOPE])
    except DefaultCredentialsError as error:
        raise EnvironmentLacks(
            f"there are no Google credentials ({' '.join(str(error).split())[:200]}). Run `gcloud auth application-default login`, name a "
            f"key file in GOOGLE_APPLICATION_CREDENTIALS, or set {TOKEN} to what `gcloud auth print-access-token` prints"
        ) from None
    return Access(credentials, "", "the application default credentials")


def read(error: Exception) -> Failure:
    """Return what an error of google-genai, google-cloud-storage, google-auth or of what is below them says."""
    from google.auth.exceptions import GoogleAuthError, TransportError

    if isinstance(error, GoogleAuthError):
        # No token was got, so nothing was sent. A network that fails may work later; refused credentials will not.
        later = isinstance(error, TransportError) or bool(error.retryable)
        return Failure(str(error), status=None if later else 401, unsent=True)
    status, response = getattr(error, "code", None), getattr(error, "response", None)
    if not isinstance(status, int):
        return failure_of(error)
    headers = getattr(response, "headers", None) or {}
    return Failure(
        message=str(getattr(error, "message", None) or error),
        status=int(status),
        code=getattr(error, "status", None),
        retry_after_s=retry_after(headers.get("retry-after")),
    )


def _named(errors: dict[str, str]) -> tuple[type[Exception], ...]:
    """Return the error classes of the modules that are installed: releases of the SDK differ in which HTTP client is below them."""
    found: list[type[Exception]] = []
    for module, name in errors.items():
        try:
            found.append(getattr(import_module(module), name))
        except ModuleNotFoundError:
            continue
    return tuple(found)


def pages(call: Caller, first: Callable[[], Any]) -> Any:
    """Yield the objects of a list of the SDK, through all its pages, each page with attempts of its own."""
    pager = call(first)
    while True:
        yield from pager.page
        if not pager.config.get("page_token"):
            return
        call(pager.next_page)
