"""One account's connection to Amazon Bedrock: credentials, the clients, and what their errors mean.

The only file below ``providers/`` that imports the AWS SDK; a bucket's client is in ``storage/s3_client.py``. Keys come from where the SDK
looks for them. Requests are signed, so that no secret travels, whoever answers; a Bedrock API key, which would, is not used.

Source: botocore's own service model, and https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from prooftune.errors import EnvironmentLacks, SpecError
from prooftune.providers.calls import TIMEOUT_S, Caller, Failure, failure_of, never_connected, retry_after
from prooftune.spec import Provider
from prooftune.storage.s3_refusals import SET_CREDENTIALS

CONNECT_TIMEOUT_S = 10.0
STATUS_OF: Mapping[str, int] = {
    # 400 on the wire. On create it says that a job has the name, which tells nothing of who made it.
    "ConflictException": 409,
    # 400 on the wire, and no other spec would help: the account has to get more.
    "ServiceQuotaExceededException": 403,
    "TooManyTagsException": 400,
    # 424 on the wire: the model failed, and may not fail again.
    "ModelErrorException": 500,
    "ModelTimeoutException": 408,
    "ModelNotReadyException": 429,
    "ThrottlingException": 429,
    "ServiceUnavailableException": 503,
    "InternalServerException": 500,
    "AccessDeniedException": 403,
    "ResourceNotFoundException": 404,
    "ValidationException": 400,
    # 403 on the wire, and about who asks, not about what is asked.
    "UnrecognizedClientException": 401,
    "InvalidSignatureException": 401,
    "IncompleteSignatureException": 401,
    "MissingAuthenticationTokenException": 401,
    "ExpiredTokenException": 401,
}
"""HTTP status as ``Failure`` means it, by Bedrock's error code. A code that is not here keeps the status that it came with."""
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::(?P<account>\d{12}):role/.+")
UNSENT: Mapping[str, int | None] = {
    "ParamValidationError": 400,
    "NoCredentialsError": 401,
    "PartialCredentialsError": 401,
    "CredentialRetrievalError": 401,
    "RefreshWithMFAUnsupportedError": 401,
    "SSOTokenLoadError": 401,
    "UnauthorizedSSOTokenError": 401,
    "TokenRetrievalError": 401,
    "ProxyConnectionError": None,
}
"""Errors that the SDK raises before anything is sent, besides those of ``never_connected``, and the status that fits; None = it may work
later."""


@dataclass(frozen=True)
class Connection:
    """What every request to an account's Bedrock goes through."""

    bedrock: Any
    """Client of the API that manages."""
    runtime: Any
    """Client of the API that answers."""
    call: Caller
    address: str
    """With region and account."""
    role: str
    """That Bedrock takes on to read and write the bucket."""


def connect(options: Provider) -> Connection:
    """Return the connection that a spec asks for; nothing is sent to Bedrock yet. The SDK's own retries are off.

    Raises:
        EnvironmentLacks: the SDK finds no credentials, or cannot read its settings.
        SpecError: region, bucket or role is missing, or none.
    """
    missing = [f"provider.{name}" for name in ("region", "bucket", "role_arn") if getattr(options, name) is None]
    if missing:
        raise SpecError(f"bedrock needs {', '.join(missing)}")
    region, role = str(options.region), _ROLE.fullmatch(str(options.role_arn))
    if not _REGION.fullmatch(region):
        raise SpecError(f"provider.region is {region!r}, which is no AWS region; it is of the form us-west-2")
    if role is None:
        raise SpecError(f"provider.role_arn is {options.role_arn!r}; it is of the form arn:aws:iam::123456789012:role/NAME")
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    try:
        session, secrets, found_by = _session()
        bedrock, runtime = (_client(session, service, region, options.base_url) for service in ("bedrock", "bedrock-runtime"))
    except (exceptions.BotoCoreError, ValueError) as error:
        raise EnvironmentLacks(
            f"the AWS SDK cannot be set up ({type(error).__name__}); see AWS_PROFILE, ~/.aws/config and provider.region"
        ) from None
    address = str(bedrock.meta.endpoint_url).rstrip("/")
    call = Caller(
        f"bedrock in {region}" + (f" at {address}" if options.base_url else ""),
        f"the AWS credentials (found by {found_by})",
        "",
        (exceptions.BotoCoreError, exceptions.ClientError, ResponseParserError),
        partial(read, secrets),
    )
    return Connection(bedrock, runtime, call, f"{address}/{region}/{role['account']}", str(options.role_arn))


def _session() -> tuple[Any, tuple[str, ...], str]:
    """Return a session, what may stand in no error, and how the credentials were found."""
    from boto3.session import Session

    session = Session()  # of its own: boto3's default one keeps the keys that it saw first
    credentials = session.get_credentials()
    if credentials is None:
        raise EnvironmentLacks(f"there are no AWS credentials; {SET_CREDENTIALS}")
    frozen = credentials.get_frozen_credentials()
    secrets = tuple(text for text in (frozen.secret_key, frozen.token, frozen.access_key) if text)
    return session, secrets, str(credentials.method)


def _client(session: Any, service: str, region: str, base_url: str | None) -> Any:
    from botocore.config import Config

    chosen: dict[str, Any] = {
        "retries": {"mode": "standard", "total_max_attempts": 1},
        "connect_timeout": min(CONNECT_TIMEOUT_S, TIMEOUT_S),
        "read_timeout": TIMEOUT_S,
        "ignore_configured_endpoint_urls": True,  # where data goes stands in the spec
        "auth_scheme_preference": "sigv4",
    }
    return session.client(service, region_name=region, endpoint_url=base_url, config=Config(**chosen))


def read(secrets: Sequence[str], error: Exception) -> Failure:
    """Return what an error of botocore says, without what is secret."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping) and "Error" in response:
        return _refused(response, secrets)
    kind = type(error).__name__
    if kind == "ResponseParserError":
        return Failure("the answer cannot be read")
    if not kind.endswith("Error") or not hasattr(error, "fmt"):
        return failure_of(error)
    return Failure(_without(f"{kind}: {error}", secrets), status=UNSENT.get(kind), unsent=kind in UNSENT or never_connected(error))


def _refused(response: Mapping[str, Any], secrets: Sequence[str]) -> Failure:
    told, meta = response["Error"], response.get("ResponseMetadata", {})
    code = str(told.get("Code", ""))
    return Failure(
        message=_without(f"{code}: {told.get('Message', '')}", secrets),
        status=STATUS_OF.get(code, meta.get("HTTPStatusCode")),
        code=code,
        retry_after_s=retry_after(meta.get("HTTPHeaders", {}).get("retry-after")),
    )


def _without(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "[key]")
    return text


def pages(call: Caller, request: Any, field: str, **chosen: Any) -> list[Any]:
    """Return the entries of a list through all its pages, each page with attempts of its own."""
    found: list[Any] = []
    token: dict[str, str] = {}
    while True:
        page = call(partial(request, **chosen, **token))
        found += page.get(field, [])
        if not page.get("nextToken"):
            return found
        token = {"nextToken": page["nextToken"]}
