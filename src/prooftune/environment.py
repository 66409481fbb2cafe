"""Which versions a result was made with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = (
    *("prooftune", "prefect", "torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "tokenizers"),
    *("datasets", "pandas", "great-expectations", "evaluate", "boto3"),
)


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that results depend on; one that is missing is left out."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
