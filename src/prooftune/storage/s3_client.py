"""The only file that imports the AWS SDK for the object store: a client for a bucket, whose errors are Prooftune's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from prooftune.errors import IntegrityError, StoreUnavailable, TransientError
from prooftune.storage.s3_refusals import SET_CREDENTIALS, refusal

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ATTEMPTS = 4
"""Tries of one request."""


class Connection:
    """How a bucket is reached. Keys, region and profile come from the environment.

    Args:
        uri: What errors call the place.
        field: The spec's field that names it, for advice: ``store.uri``.
        endpoint_url: A server other than AWS; None = what the environment says.
        timeout: Seconds without a byte from the server after which a request counts as lost.
    """

    def __init__(self, uri: str, field: str, endpoint_url: str | None = None, *, timeout: float = 60.0) -> None:
        self._uri = uri
        self._field = field
        self._endpoint = endpoint_url or environment_endpoint()
        self._timeout = timeout

    @contextmanager
    def requests(self, doing: str) -> Iterator[S3Client]:
        """Lend the client, and say what was being done when a request fails.

        Raises:
            StoreUnavailable: the server refuses, or the settings cannot be used.
            TransientError: no full answer came, or one that asks to try later.
            IntegrityError: an object does not match the checksum kept with it.
        """
        from botocore import exceptions as boto

        where = f"{self._uri}: cannot {doing}"
        try:
            yield self._client
        except boto.ClientError as error:
            raise refusal(error.response, where, self._field) from None  # the SDK's own text can hold the access key
        except boto.FlexibleChecksumError:
            raise IntegrityError(f"{where}: the bytes do not match the checksum kept with them; upload the object again") from None
        except (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError, boto.ProfileNotFound) as error:
            raise StoreUnavailable(f"{where}: {type(error).__name__}; {SET_CREDENTIALS}") from None
        except boto.SSLError:
            raise StoreUnavailable(f"{where}: the server's certificate is not trusted; set AWS_CA_BUNDLE or correct the endpoint") from None
        except (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError) as error:
            to = (self._endpoint or "AWS").rpartition("@")[2]  # an address can hold a password
            raise TransientError(f"{where}: no full answer from {to} ({type(error).__name__}); try again, or check the endpoint") from None
        except boto.BotoCoreError as error:
            raise StoreUnavailable(f"{where}: {type(error).__name__}; check {self._field}, the endpoint and AWS_REGION") from None

    @cached_property
    def _client(self) -> S3Client:
        from boto3.session import Session
        from botocore.config import Config

        # "standard" retries connection errors, time-outs, 5xx and throttling with jittered exponential backoff.
        config = Config(
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            connect_timeout=min(10.0, self._timeout),
            read_timeout=self._timeout,
            s3={"addressing_style": "path" if self._endpoint else "auto"},
        )
        try:
            # A session of its own: boto3's default one keeps the keys that it saw first.
            return Session().client("s3", endpoint_url=self._endpoint, config=config)
        except ValueError:
            raise StoreUnavailable(f"{self._uri}: the endpoint is no address; set AWS_ENDPOINT_URL_S3 to http(s)://host:port") from None


def environment_endpoint() -> str | None:
    """The server other than AWS that the SDK's own variables name."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def credentials_source() -> str | None:
    """Return how boto3 finds AWS credentials, ``env`` or ``shared-credentials-file`` say, or None where it finds none; never what they are.

    Raises:
        StoreUnavailable: the AWS configuration cannot be read.
    """
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        found = boto3.Session().get_credentials()
    except BotoCoreError as error:
        raise StoreUnavailable(
            f"the AWS configuration cannot be read ({type(error).__name__}); see AWS_PROFILE and ~/.aws/config"
        ) from None
    return found.method if found else None
