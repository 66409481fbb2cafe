"""Whether a source is as it was, told by what a folder or bucket says of its files: nothing of them is read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from prooftune.data.hub import hub_commit
from prooftune.data.sources import LocalFile, find_files
from prooftune.data.streams import Limits
from prooftune.spec import digest


class Listing(NamedTuple):
    """What is listed of a source."""

    stamp: str
    """Differs whenever a file came, went or was written, or a hub data set has another commit."""
    changed_at: datetime | None
    """Last change by the clock of the place; None = a hub's commit, which is never half-written."""
    files: int
    bytes: int


def list_source(source: str, limits: Limits = Limits()) -> Listing:  # noqa: B008 - frozen
    """List a file, glob, folder, ``s3://bucket/key-or-prefix`` or ``hf://owner/name``.

    Of a file on disk the change time counts, which every write and rename moves and no copying tool sets back; of an object its ETag.

    Raises:
        DataError: nothing is found under the source.
        StoreUnavailable, TransientError: a bucket or the hub refuses or cannot be reached.
    """
    if source.startswith("hf://"):
        return Listing(digest([source, hub_commit(source)]), None, 1, 0)
    entries: list[list[str | int]] = []
    changes: list[datetime] = []
    files = find_files(source, limits).files
    for file in files:
        if isinstance(file, LocalFile):
            status = file.path.stat()
            entries.append([file.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns])
            changes.append(datetime.fromtimestamp(status.st_ctime, UTC))
        else:
            entries.append([file.name, file.size, file.version])
            changes += [file.changed_at] if file.changed_at else []
    return Listing(digest(entries), max(changes, default=None), len(files), sum(file.size for file in files))
