"""Files for Bedrock in S3, where its role reads training rows and writes results."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prooftune.errors import EnvironmentLacks, IntegrityError, SpecError
from prooftune.storage.s3_client import Connection

TIMEOUT_S = 60.0
"""Without a byte from the server."""
_URI = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<path>[-!_*'().a-z0-9A-Z]+(?:/[-!_*'().a-z0-9A-Z]+)*)?/?)?")
"""What Bedrock takes for an S3 URI."""
_REGION = "x-amz-bucket-region"
"""Header with the bucket's region; S3 sends it with refusals too.
Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadBucket.html"""
_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


class Bucket:
    """Files below one ``s3://bucket/prefix``. ``AWS_ENDPOINT_URL_S3`` leads to a server other than AWS, as the SDK itself reads it."""

    def __init__(self, uri: str) -> None:
        self.name, self.prefix = split(uri)
        self.uri = f"s3://{self.name}/{self.prefix}"
        self._requests = Connection(self.uri, "provider.bucket", timeout=TIMEOUT_S).requests

    def location(self) -> str:
        """Return the region in which the bucket lies.

        Raises:
            EnvironmentLacks: there is no such bucket, no right to ask, or a server that does not say.
            TransientError: no full answer came.
        """
        with self._requests("ask where the bucket is") as s3:
            try:
                headers, status = _answer(s3.head_bucket(Bucket=self.name))
            except s3.exceptions.ClientError as error:
                headers, status = _answer(error.response)
                if _REGION not in headers and status != 403:
                    raise
        if region := headers.get(_REGION):
            return region
        what = "may not ask" if status == 403 else "were not told"
        raise EnvironmentLacks(
            f"{self.uri}: the credentials {what} where the bucket is, and data.residency makes that matter; grant them s3:ListBucket on "
            f"arn:aws:s3:::{self.name}, or name another bucket in provider.bucket"
        )

    def put(self, path: Path, name: str) -> str:
        """Upload a file under a name of ours and return its URI. One that is there with the same bytes is not uploaded again.

        Raises:
            IntegrityError: other bytes are there under that name.
            StoreUnavailable: there is no such bucket, or no right to write to it.
            TransientError: no full answer came; uploading again is safe.
        """
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        key = f"{self.prefix}{name}"
        if not self._create(path, key, digest) and self._digest(key) != digest.hexdigest():
            raise IntegrityError(
                f"s3://{self.name}/{key} holds other bytes than {path.name}, although its name is made of their digest; delete it and run "
                "the same command again"
            )
        return f"s3://{self.name}/{key}"

    def _create(self, path: Path, key: str, digest: hashlib._Hash) -> bool:
        """Create the object if it is absent; return whether this, and no earlier attempt, did."""
        checksum = base64.b64encode(digest.digest()).decode()
        with self._requests(f"upload {path.name}") as s3, path.open("rb") as file:
            try:
                s3.put_object(
                    Bucket=self.name, Key=key, Body=file, ChecksumSHA256=checksum, Metadata={"sha256": digest.hexdigest()}, IfNoneMatch="*"
                )
            except s3.exceptions.ClientError as error:
                if error.response["Error"].get("Code") not in _TAKEN:
                    raise
                return False
        return True

    def _digest(self, key: str) -> str | None:
        """Return the digest that was written beside an object of ours."""
        with self._requests(f"look at {key}") as s3:
            return s3.head_object(Bucket=self.name, Key=key)["Metadata"].get("sha256")

    def fetch(self, uri: str, ending: str) -> dict[str, bytes]:
        """Return the files below a URI whose names have an ending, by their path from there."""
        bucket, prefix = split(uri)
        with self._requests(f"list {uri}") as s3:
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            keys = [item["Key"] for page in pages for item in page.get("Contents", []) if item["Key"].endswith(ending)]
        return {key.removeprefix(prefix): self._read(bucket, key) for key in keys}

    def _read(self, bucket: str, key: str) -> bytes:
        with self._requests(f"read {key}") as s3:
            return s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def _answer(response: Mapping[str, Any]) -> tuple[Mapping[str, str], int]:
    """Return headers and status of an answer or a refusal."""
    found = response["ResponseMetadata"]
    return found["HTTPHeaders"], found["HTTPStatusCode"]


def split(uri: str) -> tuple[str, str]:
    """Return bucket and prefix of an ``s3://`` URI; the prefix is empty or ends with a slash.

    Raises:
        SpecError: it is none that Bedrock takes.
    """
    match = _URI.fullmatch(uri)
    if match is None:
        raise SpecError(
            f"provider.bucket is {uri!r}; bedrock reads training files from S3, s3://bucket/prefix with letters, digits and - _ . between "
            "single slashes"
        )
    path = match["path"] or ""
    return match["bucket"], f"{path}/" if path else ""
