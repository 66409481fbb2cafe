"""Say whether a source is still the one that was read before, without parsing it."""

from __future__ import annotations

import hashlib

from prooftune.data.sources import find_files
from prooftune.data.streams import FileUnusable, Limits
from prooftune.errors import DataError, TransientError
from prooftune.spec import digest


def fingerprint_source(source: str, limits: Limits = Limits()) -> str:  # noqa: B008 - frozen
    """Return a SHA-256 that changes when the source does: over its files' names and contents, or over a hub data set's commit.

    A file that cannot be read counts as such, so that ingest is the one to report it.

    Raises:
        DataError: nothing is found under the source.
        StoreUnavailable, TransientError: a bucket or the hub refuses or cannot be reached.
    """
    if source.startswith("hf://"):
        return digest([source, _hub_commit(source)])
    entries = []
    for file in find_files(source, limits).files:
        try:
            with file.open() as raw:
                entries.append([file.name, hashlib.file_digest(raw, "sha256").hexdigest()])  # type: ignore[arg-type]  # wants only readinto
        except (FileUnusable, OSError) as error:
            entries.append([file.name, f"unreadable: {type(error).__name__}"])
    return digest(entries)


def _hub_commit(source: str) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

    name = "/".join(source.removeprefix("hf://").split(":")[0].split("/")[:2])
    try:
        return str(HfApi().dataset_info(name).sha)
    except RepositoryNotFoundError:
        raise DataError(f"{source}: the hub has no data set {name}, or it is private and HF_TOKEN does not open it") from None
    except (OSError, OfflineModeIsEnabled) as error:
        raise TransientError(f"{source}: the hub cannot be reached ({type(error).__name__}); try again, or use a local file") from None
