"""Downloads a model from the Hugging Face hub: safetensors and tokenizer files only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prooftune.errors import ModelUnavailable, TransientError

PATTERNS = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "vocab.txt", "merges.txt")
"""What is fetched; never pickles, and Python code only where the spec trusts it."""
TOKENIZER = tuple(pattern for pattern in PATTERNS if pattern != "*.safetensors")
"""What is fetched of a tokenizer alone."""


def download(model: str, revision: str | None, *, trust_remote_code: bool, wanted: Sequence[str] = PATTERNS) -> tuple[Path, str]:
    """Return the local snapshot of a hub model and its commit; ``HF_HUB_OFFLINE`` and ``HF_ENDPOINT`` are honoured.

    ``wanted`` are patterns of the files to fetch.

    Raises:
        ModelUnavailable: no such model or revision, no access to it, or offline and not in the cache.
        TransientError: the hub does not answer, or answers with a server error.
    """
    import httpx2  # what huggingface_hub speaks HTTP with
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    patterns = [*wanted, *(("*.py",) if trust_remote_code else ())]
    named = f"the model {model}" + (f" at revision {revision}" if revision else "")
    try:
        # Folders below the root hold other formats of the same weights.
        path = Path(snapshot_download(model, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except GatedRepoError as error:
        raise ModelUnavailable(f"{named} is gated; accept its terms on the hub and set HF_TOKEN to a token with access") from error
    except RepositoryNotFoundError as error:
        raise ModelUnavailable(f"{named} is not on the hub, or is private; check backend.model, or set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise ModelUnavailable(f"{named} is not on the hub; check backend.revision") from error
    except LocalEntryNotFoundError as error:
        raise _unreachable(named) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise ModelUnavailable(f"the hub refuses {named} with status {status}; set HF_TOKEN to a token with access") from error
        raise TransientError(f"the hub answered {status} for {named}") from error
    except httpx2.TransportError as error:
        raise TransientError(f"the hub cannot be reached for {named}: {type(error).__name__}") from error
    return path, path.name


def _unreachable(named: str) -> ModelUnavailable | TransientError:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return ModelUnavailable(f"{named} is not in the local cache and HF_HUB_OFFLINE is set; unset it, or set backend.model to a folder")
    return TransientError(f"the hub cannot be reached and {named} is not in the local cache; set backend.model to a folder to do without")
