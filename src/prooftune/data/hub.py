"""A data set on the Hugging Face hub, ``hf://owner/name[/config][:split]``: its rows, as a stream, and its commit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from prooftune.data.rows import encode_object
from prooftune.data.streams import Flaw, Limits
from prooftune.errors import DataError, TransientError

if TYPE_CHECKING:
    from prooftune.data.formats import Rows

_PART = r"[A-Za-z0-9][\w.-]*"
_NAME = re.compile(rf"hf://(?P<id>{_PART}/{_PART})(?:/(?P<config>{_PART}))?(?::(?P<split>{_PART}))?")


def read_hub(source: str, limits: Limits) -> Rows:
    """Stream the rows of a data set, numbered from 1; no code of the data set is run.

    Raises:
        DataError: for a name that is none, and a data set, configuration or split that does not exist or must be chosen.
        TransientError: when the hub cannot be reached.
    """
    match = _parsed(source)
    if Path(match["id"]).exists():
        raise DataError(f"{source}: the loader would read the folder {match['id']} here instead of the hub; run from another folder")
    for number, row in enumerate(_load(source, match["id"], match["config"], match["split"]), start=1):
        data = encode_object(row)
        if isinstance(data, bytes) and len(data) > limits.line_bytes:
            data = Flaw("oversized-row", f"the row has {len(data):,} bytes; a row may have at most {limits.line_bytes:,}")
        yield number, data


def hub_commit(source: str) -> str:
    """The commit that a data set is at, without its rows.

    Raises:
        DataError: for a name that is none, and a data set that does not exist or may not be read.
        TransientError: when the hub cannot be reached.
    """
    import httpx2  # what huggingface_hub speaks HTTP with
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    name = _parsed(source)["id"]
    try:
        return str(HfApi().dataset_info(name).sha)
    except RepositoryNotFoundError:
        raise DataError(f"{source}: the hub has no data set {name}, or it is private and HF_TOKEN does not open it") from None
    except HfHubHTTPError as error:
        raise TransientError(f"{source}: the hub answered {error.response.status_code}; try again, or use a local file") from None
    except (httpx2.TransportError, OfflineModeIsEnabled) as error:
        raise TransientError(f"{source}: the hub cannot be reached ({type(error).__name__}); try again, or use a local file") from None


def _parsed(source: str) -> re.Match[str]:
    match = _NAME.fullmatch(source)
    if match is None:
        raise DataError(f"{source} is not of the form hf://owner/name, hf://owner/name/config or either with :split")
    return match


def _load(source: str, name: str, config: str | None, split: str | None) -> Iterator[Mapping[str, object]]:
    import datasets

    try:
        found = datasets.load_dataset(name, config, split=split, streaming=True)
        if split is None:
            if len(found) != 1:
                raise DataError(f"{source} has the splits {', '.join(found)}; name one, as in {source}:{next(iter(found))}")
            found = next(iter(found.values()))
        yield from found
    except (datasets.exceptions.DatasetNotFoundError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{source} cannot be loaded: {str(error).splitlines()[0]}") from None
    except OSError as error:
        raise TransientError(f"{source}: the hub cannot be reached ({str(error).splitlines()[0]}); try again") from None
