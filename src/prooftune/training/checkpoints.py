"""Checkpoints one can trust after a kill: a manifest written last, checked before anything is resumed from.

transformers resumes in silence from a checkpoint that lacks its optimizer state, which gives another model than an undisturbed run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

MANIFEST = "prooftune-manifest.json"
STATE = "trainer_state.json"

logger = logging.getLogger(__name__)


def write_manifest(checkpoint: Path) -> None:
    """Write the SHA-256 of every file of a checkpoint into it, atomically and last: what has a manifest is whole."""
    unfinished = checkpoint / f"{MANIFEST}.unfinished"
    with unfinished.open("w") as file:
        json.dump(_digests(checkpoint), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(checkpoint / MANIFEST)


def newest_intact(checkpoints: Path) -> Path | None:
    """Return the newest checkpoint whose files, and those of the best one it refers to, match their manifests; None = start anew.

    Broken checkpoints are removed with a warning, and so are the ones newer than the one returned: training writes them again.
    """
    newest_first = sorted(checkpoints.glob("checkpoint-*"), key=_step, reverse=True)
    intact = {checkpoint.name for checkpoint in newest_first if _is_intact(checkpoint)}
    for checkpoint in newest_first:
        if checkpoint.name in intact and best_checkpoint(checkpoint).name in intact:
            return checkpoint
        logger.warning("checkpoint %s is damaged, incomplete or lacks its best checkpoint; using an older one", checkpoint.name)
        shutil.rmtree(checkpoint)
    return None


def best_checkpoint(checkpoint: Path) -> Path:
    """Return the checkpoint with the lowest validation loss that was known when ``checkpoint`` was written."""
    return checkpoint.parent / f"checkpoint-{read_state(checkpoint)['best_global_step']}"


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Return the trainer's state: steps done, best step, losses so far, state of early stopping."""
    state: dict[str, Any] = json.loads((checkpoint / STATE).read_text())
    return state


def _is_intact(checkpoint: Path) -> bool:
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text())
    except (OSError, ValueError):
        return False
    return bool(manifest == _digests(checkpoint)) and STATE in manifest


def _digests(checkpoint: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file() and not path.name.startswith(MANIFEST):
            with path.open("rb") as file:
                digests[path.relative_to(checkpoint).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.removeprefix("checkpoint-")
    return int(number) if number.isdecimal() else -1
