"""What a result was made from, as digests: data, split, spec, prices, model, code and environment.

Two runs with the same lineage did the same thing to the same input. Where they differ, the part whose digest differs says in what.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Iterator, Mapping
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prooftune import __version__
from prooftune.economics.policy import told_kept
from prooftune.environment import library_versions
from prooftune.spec import RunSpec, digest
from prooftune.storage.disk import sha256_of
from prooftune.types import ModelRef

PACKAGES = ("prooftune", "flows", "tasks")
"""What the wheel carries; the examples beside it decide nothing."""
_NOT_CODE = {"__pycache__", "examples"}


def lineage(
    spec: RunSpec,
    source: str,
    data: Mapping[str, Any],
    model: ModelRef,
    files: Mapping[str, str],
    stages: Mapping[str, int],
    provider: Mapping[str, Any] | None = None,
    approval: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the lineage of a run, JSON-able; its ``sha256`` covers all the rest.

    Args:
        spec: As the run was given it.
        source: Fingerprint of the source, ``data.fingerprint.fingerprint_source``.
        data: Content of ``data_manifest.json``: splits and seal.
        model: Base model.
        files: Digest of each further file that the spec names, and of the price list, by field: ``prices``, ``documents`` …
        stages: Version of each stage.
        provider: What a managed provider said of the base model, its last days among it; None = nothing is tuned at a provider.
        approval: What a person said of the estimate: ``approved``, ``usd``, ``by``, ``at`` and ``reason``; None = nobody was asked.
    """
    parts: dict[str, Any] = {
        "data": {
            "source_sha256": source,
            "splits": {name: dict(found) for name, found in data["splits"].items()},
            "files": {name: sha256 for name, sha256 in sorted(files.items()) if name != "prices"},
        },
        "seal": data["seal"],
        "spec_sha256": hashlib.sha256(spec.resolved_yaml().encode()).hexdigest(),
        "prices_sha256": files.get("prices"),
        "model": model.model_dump(mode="json"),
        "code": {**code_version(), "stages": dict(sorted(stages.items()))},
        "environment": environment(),
    }
    if kept := told_kept(spec):
        parts["kept_elsewhere"] = kept
    if provider is not None:
        parts["provider"] = {"name": spec.backend.provider, "address": spec.provider.base_url, **provider}
    if approval is not None:
        parts["approval"] = dict(approval)
    return parts | {"sha256": digest(parts)}


def digest_of(lineage: Mapping[str, Any]) -> str:
    """Return the digest that a lineage's own ``sha256`` must be."""
    return digest({name: part for name, part in lineage.items() if name != "sha256"})


def code_version() -> dict[str, Any]:
    """Return version and digest of the code that runs and, in a checkout, its commit and whether files differ from it."""
    contents = {f"{package}/{name}": sha256_of(path) for package in PACKAGES for name, path in _code_of(package)}
    return {"prooftune": __version__, "sha256": digest(contents), **_checkout()}


def environment() -> dict[str, Any]:
    """Return Python, platform and libraries; ``sha256`` covers every installed distribution, listed here or not."""
    installed = sorted({f"{found.name}=={found.version}" for found in distributions()})
    return {"platform": platform.platform(), "libraries": library_versions(), "sha256": digest([platform.python_version(), installed])}


def _code_of(package: str) -> Iterator[tuple[str, Path]]:
    """Yield the package's own files by relative name, found without importing it."""
    found = find_spec(package)
    for folder in map(Path, (found.submodule_search_locations if found else None) or ()):
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if path.is_file() and not _NOT_CODE & set(name.parts):
                yield name.as_posix(), path


def _checkout() -> dict[str, Any]:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {"commit": None, "changed": None}
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return {"commit": commit, "changed": bool(_git(root, "status", "--porcelain", "--", "src", "flows", "tasks"))}
    except (FileNotFoundError, subprocess.CalledProcessError):  # no git here, or a repository that it does not trust
        return {"commit": None, "changed": None}


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True).stdout.strip()
