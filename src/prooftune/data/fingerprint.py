"""Say whether a source is still the one that was read before, without parsing it."""

from __future__ import annotations

from prooftune.data.hub import hub_commit
from prooftune.data.sources import find_files
from prooftune.data.streams import FileUnusable, Limits, sha256_of
from prooftune.errors import ProoftuneError
from prooftune.spec import digest


def fingerprint_source(source: str, limits: Limits = Limits()) -> str:  # noqa: B008 - frozen
    """Return a SHA-256 that changes when the source does: over its files' names and contents, or over a hub data set's commit.

    A file that cannot be read counts as such, so that ingest is the one to report it.

    Raises:
        DataError: nothing is found under the source.
        StoreUnavailable, IntegrityError, TransientError: a bucket or the hub refuses, damages or cannot be reached.
    """
    if source.startswith("hf://"):
        return digest([source, hub_commit(source)])
    entries = []
    for file in find_files(source, limits).files:
        try:
            with file.open() as raw:
                entries.append([file.name, sha256_of(raw)])
        except ProoftuneError:
            raise  # ours are OSErrors too, and say more about the place than about the file
        except (FileUnusable, OSError) as error:
            entries.append([file.name, f"unreadable: {type(error).__name__}"])
    return digest(entries)
