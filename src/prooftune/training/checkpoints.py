"""Checkpoints one can trust after a kill: a manifest written last, checked before anything is resumed from.

transformers resumes in silence from a checkpoint that lacks its optimizer state, which gives another model than an undisturbed run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
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


def newest_intact(checkpoints: Path, keep: int = 1) -> Path | None:
    """Return the newest checkpoint whose files, and those of the ``keep`` best ones known to it, match their manifests; None = start anew.

    Broken checkpoints are removed with a warning, and so are the ones newer than the one returned: training writes them again.
    """
    newest_first = _newest_first(checkpoints)
    intact = {checkpoint.name for checkpoint in newest_first if _is_intact(checkpoint)}
    for checkpoint in newest_first:
        if checkpoint.name in intact and all(best.name in intact for best in best_checkpoints(checkpoint, keep)):
            return checkpoint
        logger.warning("checkpoint %s is damaged, incomplete or lacks its best checkpoint; using an older one", checkpoint.name)
        shutil.rmtree(checkpoint)
    return None


def best_checkpoints(checkpoint: Path, keep: int) -> list[Path]:
    """Return at most ``keep`` checkpoints, lowest validation loss first, of those that were known when ``checkpoint`` was written."""
    return [checkpoint.parent / f"checkpoint-{step}" for step in _best_steps(read_state(checkpoint), keep)]


def prune(checkpoints: Path, keep: int) -> None:
    """Remove all checkpoints but the two newest and the ``keep`` best ones known to either.

    If the newest is damaged, resuming from the one before costs the steps of one check, and misses none of the best.
    """
    newest_first = _newest_first(checkpoints)
    newest = newest_first[:2]
    needed = {*newest, *(best for checkpoint in newest for best in best_checkpoints(checkpoint, keep))}
    for checkpoint in newest_first:
        if checkpoint not in needed:
            shutil.rmtree(checkpoint)


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


def step_of(checkpoint: Path) -> int:
    """Return the step after which a checkpoint was written; -1 for a folder that is not named like one."""
    number = checkpoint.name.removeprefix("checkpoint-")
    return int(number) if number.isdecimal() else -1


def _newest_first(checkpoints: Path) -> list[Path]:
    return sorted(checkpoints.glob("checkpoint-*"), key=step_of, reverse=True)


def _best_steps(state: Mapping[str, Any], keep: int) -> list[int]:
    """Return steps by validation loss, of equal ones the earlier first: so the trainer chooses its best one, too."""
    best = int(state["best_global_step"])
    checks = [(row["eval_loss"], row["step"]) for row in state.get("log_history", []) if "eval_loss" in row]
    return [best, *(step for _, step in sorted(checks) if step != best)][:keep]
