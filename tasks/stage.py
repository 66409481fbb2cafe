"""How a task does its stage: once per key and host, in a folder of its own, with verified inputs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from prefect.context import TaskRunContext
from prefect.logging import get_run_logger
from prefect.settings import get_current_settings

from prooftune.errors import ProoftuneError, StoreUnavailable
from prooftune.spec import Store, digest
from prooftune.storage.disk import sha256_of
from prooftune.storage.objects import open_store
from prooftune.types import ArtifactRef, StageOutput
from tasks.policies import StageCache

FULL_DISK_BYTES = 16 * 2**20


class Stage:
    """The stage that the current task run stands for."""

    def __init__(self, store: Store) -> None:
        context = TaskRunContext.get()
        if context is None:
            raise RuntimeError("a Stage exists inside a task run only")
        self.objects = open_store(store)
        self.name = context.task.name
        self._results = context.result_store
        policy = context.task.cache_policy
        if not isinstance(policy, StageCache):
            raise TypeError(
                f"the task {self.name} has the cache policy {policy!r}; a stage's task takes its options from tasks.policies.policy"
            )
        self._record = policy.compute_key(context, context.parameters, {})
        self.key = self._record.removesuffix("/record.json")

    def path(self, output: StageOutput, name: str) -> Path:
        """Return a local path to an artifact of an earlier stage, its SHA-256 verified."""
        return self.objects.fetch(output.artifacts[name])

    def folder(self, output: StageOutput, prefix: str) -> Path:
        """Return a local folder with all artifacts below ``prefix``, verified, such as an adapter. Only to be read."""
        names = [name for name in output.artifacts if name.startswith(f"{prefix}/")]
        paths = [self.path(output, name) for name in names]
        return paths[0].parents[names[0].removeprefix(prefix).count("/") - 1]

    def perform(self, work: Callable[[Path], Mapping[str, Any]], *, resumable: bool = False) -> StageOutput:
        """Do the stage's work in a folder and hand its files to the store; skip it where a run beside this one has just done it.

        ``work`` gets the folder and returns figures. A ``resumable`` stage finds what its killed predecessor left there; any other starts
        from an empty folder. The record that says "done" is written last.
        """
        folder = self.objects.work_dir() / self.key
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock", fallback_to_soft=False):
            fresh = get_current_settings().tasks.refresh_cache
            # Asked first because it raises where the store cannot say: Prefect's own check takes that for "not done".
            if not fresh and self.objects.exists(self._record) and self._results.exists(self._record):
                done: StageOutput = self._results.read(self._record).result
                return done
            out = folder / "out"
            if not resumable:
                shutil.rmtree(out, ignore_errors=True)
            out.mkdir(exist_ok=True)
            before = _seconds_before(folder) if resumable else 0.0
            started = time.monotonic()
            with full_disk_said(out):
                figures = dict(work(out))
            artifacts = self._upload(out)
            seconds = before + time.monotonic() - started
            done_at = datetime.now(UTC).isoformat()
            output = StageOutput(stage=self.name, key=self.key, artifacts=artifacts, figures=figures, seconds=seconds, done_at=done_at)
            self._results.write(output, key=self._record)
            finished = folder / "finished"
            (folder / "attempt").unlink(missing_ok=True)
            out.rename(finished)  # a kill while it is removed leaves nothing that looks resumable
            shutil.rmtree(finished)
        get_run_logger().info("%s: %d files, %.1f s, %s", self.name, len(artifacts), seconds, self.key)
        return output

    def _upload(self, out: Path) -> dict[str, ArtifactRef]:
        """Hand the files to the store, under a folder named by their content: whoever does the stage again overwrites nothing."""
        files = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*")) if path.is_file()}
        content = digest({name: sha256_of(path) for name, path in files.items()})[:16]
        return {name: self.objects.upload(path, f"{self.key}/{content}/{name}") for name, path in files.items()}


def _seconds_before(folder: Path) -> float:
    """Return the seconds that earlier attempts worked, up to the last file that each wrote, and note that another one begins."""
    attempt, out = folder / "attempt", folder / "out"
    spent = 0.0
    if attempt.is_file():
        spent, began = (float(number) for number in attempt.read_text().split())
        last = max((path.stat().st_mtime for path in out.rglob("*") if path.is_file()), default=began)
        spent += max(last - began, 0.0)
    attempt.write_text(f"{spent} {time.time()}")
    return spent


@contextmanager
def full_disk_said(folder: Path) -> Iterator[None]:
    """Turn any failure on a full disk into one that says so: libraries have many words for it, and some have none.

    Raises:
        StoreUnavailable: the work failed and the disk has less than 16 MiB left.
    """
    try:
        yield
    except Exception as error:
        free = shutil.disk_usage(folder).free
        if free >= FULL_DISK_BYTES or isinstance(error, ProoftuneError):
            raise
        raise StoreUnavailable(f"the disk of {folder} is full ({free:,} bytes free); make room and run the same command again") from error
