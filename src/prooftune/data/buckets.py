"""Files in an S3 bucket that the user names as source. Only listing and reading: results go through ``prooftune.storage``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from prooftune.errors import DataError
from prooftune.storage import disk
from prooftune.storage.s3_client import Connection


@dataclass(frozen=True, slots=True)
class BucketFile:
    """A file in a bucket; it is copied to a temporary file while it is open."""

    name: str
    """Relative to the prefix that the source names."""
    size: int
    """Bytes."""
    connection: Connection
    bucket: str
    key: str
    version: str = ""
    """The bucket's ETag: it differs whenever the content does."""
    changed_at: datetime | None = None
    """When the bucket took it, by the bucket's clock."""

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Fetch it and open the copy, which has no name that a key could choose.

        Raises:
            StoreUnavailable: when the bucket refuses, or the copy does not fit on this disk.
            TransientError: when it cannot be reached.
            IntegrityError: when what comes does not match the checksum kept with it.
        """
        doing = f"copy {self.name}"
        with tempfile.TemporaryFile(buffering=0) as copy:
            with (
                disk.refusals(Path(tempfile.gettempdir()), doing),
                os.fdopen(os.dup(copy.fileno()), "wb") as target,  # buffered: a raw write may take only a part of what it is given
                self.connection.requests(doing) as s3,
            ):
                target.writelines(s3.get_object(Bucket=self.bucket, Key=self.key)["Body"].iter_chunks(disk.CHUNK))
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
    connection = Connection(f"s3://{bucket}", "data.source")
    with connection.requests("list it") as s3:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for entry in page.get("Contents", ()):
                key = entry["Key"]
                if key == prefix:
                    name = key.rsplit("/", 1)[-1]
                elif key.startswith(folder) and not key.endswith("/"):
                    name = key.removeprefix(folder)
                else:
                    continue
                yield BucketFile(name, entry["Size"], connection, bucket, key, entry["ETag"], entry["LastModified"])
