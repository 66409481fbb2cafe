"""Files in an S3 bucket that the user names as source. Only listing and reading: results go through ``prooftune.storage``.

Endpoint, keys and region come from the environment (``AWS_ENDPOINT_URL_S3``, ``AWS_ACCESS_KEY_ID`` … or a profile).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from prooftune.errors import DataError, StoreUnavailable, TransientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True, slots=True)
class BucketFile:
    """A file in a bucket; it is copied to a temporary file while it is open."""

    name: str
    """Relative to the prefix that the source names."""
    size: int
    """Bytes."""
    bucket: str
    key: str

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Fetch it and open the copy, which has no name that a key could choose.

        Raises:
            StoreUnavailable: when the bucket refuses.
            TransientError: when it cannot be reached.
        """
        with tempfile.TemporaryFile(buffering=0) as copy:
            with _requests(self.bucket) as s3:
                for chunk in s3.get_object(Bucket=self.bucket, Key=self.key)["Body"].iter_chunks(1 << 20):
                    copy.write(chunk)
            copy.seek(0)
            yield copy


def list_bucket(source: str) -> Iterator[BucketFile]:
    """Yield what is at ``s3://bucket/key`` or below ``s3://bucket/prefix``; ``tickets`` does not stand for ``tickets-old.jsonl``.

    Raises:
        DataError: when the source names no bucket.
        StoreUnavailable: when the bucket refuses.
        TransientError: when it cannot be reached.
    """
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    if not bucket:
        raise DataError(f"{source} names no bucket; required is s3://bucket/key-or-prefix")
    folder = prefix if not prefix or prefix.endswith("/") else f"{prefix}/"
    with _requests(bucket) as s3:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for entry in page.get("Contents", ()):
                key = entry["Key"]
                if key == prefix:
                    yield BucketFile(key.rsplit("/", 1)[-1], entry["Size"], bucket, key)
                elif key.startswith(folder) and not key.endswith("/"):
                    yield BucketFile(key.removeprefix(folder), entry["Size"], bucket, key)


@contextmanager
def _requests(bucket: str) -> Iterator[S3Client]:
    from boto3.session import Session
    from botocore import exceptions as boto
    from botocore.config import Config

    where = f"s3://{bucket} cannot be read"
    own_server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    config = Config(retries={"mode": "standard"}, s3={"addressing_style": "path" if own_server else "auto"})
    try:
        yield Session().client("s3", config=config)  # the default session would keep the keys it saw first
    except boto.ClientError as error:  # its own text can hold the access key, so only status and code are told
        status, code = error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"].get("Code", "")
        if status >= 500 or status == 429 or code in ("SlowDown", "RequestTimeout"):
            raise TransientError(f"{where}: the server answered {status} {code}; try again") from None
        raise StoreUnavailable(f"{where}: {status} {code}; check the bucket's name, AWS_REGION and the rights of the keys") from None
    except (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError, boto.ProfileNotFound) as error:
        advice = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        raise StoreUnavailable(f"{where}: {type(error).__name__}; {advice}") from None
    except (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError) as error:
        raise TransientError(f"{where}: no full answer ({type(error).__name__}); try again, or check AWS_ENDPOINT_URL_S3") from None
    except (boto.BotoCoreError, ValueError) as error:  # ValueError: an endpoint that is no URL
        if isinstance(error, DataError):
            raise
        raise StoreUnavailable(f"{where}: {type(error).__name__}; check the bucket's name, AWS_ENDPOINT_URL_S3 and AWS_REGION") from None
