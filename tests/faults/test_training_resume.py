"""Training that was killed goes on from its last whole checkpoint and ends with the bytes of an undisturbed one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures_models import make_model, write_examples

from prooftune.spec import Method, Task
from prooftune.training import sft
from prooftune.training.checkpoints import newest_intact, write_manifest
from prooftune.training.sft import train
from prooftune.types import Progress, Report, no_report

METHOD = Method(r=4, alpha=8, dropout=0.1, epochs=2.5, learning_rate=5e-3, batch_size=4, checks_per_epoch=2)
"""Dropout makes the random number generator part of what must survive."""
STEPS, EVERY = 13, 3
"""What 20 examples, 2.5 epochs and two checks an epoch come to."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    """As many threads as the child process has."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, two splits and the output of an undisturbed training."""
    folder = make_model(tmp_path_factory.mktemp("resume") / "model").parent
    write_examples(folder / "train.jsonl", 20, seed=1)
    write_examples(folder / "validation.jsonl", 5, seed=2)
    run(folder, folder / "undisturbed")
    return folder


def run(folder: Path, out: Path, report: Report = no_report, method: Method = METHOD, keep: int = 1) -> dict[str, Any]:
    """Train, or go on training, into ``out``."""
    out.mkdir(exist_ok=True)
    return train(folder / "train.jsonl", folder / "validation.jsonl", folder / "model", Task(), method, out, report=report, keep=keep)


def files(out: Path) -> dict[str, bytes]:
    """Every output file."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


class CrashError(Exception):
    """Stands for the end of the process."""


def crash_at(step: int) -> Report:
    """Return a report that ends the training once ``step`` steps are done; the checkpoint of that step is not yet written."""

    def report(progress: Progress) -> None:
        if progress.done == step and "loss" in progress.text:
            raise CrashError

    return report


def crash(folder: Path, out: Path, step: int, method: Method = METHOD, keep: int = 1) -> None:
    """Train until the crash, which must happen."""
    with pytest.raises(CrashError):
        run(folder, out, crash_at(step), method, keep)


@pytest.mark.parametrize("step", [1, EVERY, EVERY + 2, STEPS])
def test_a_crash_at_any_step_changes_no_byte(folder: Path, tmp_path: Path, step: int) -> None:
    """Adapter, log and figures are those of the undisturbed training, and no step before the checkpoint is done again."""
    crash(folder, tmp_path, step)
    done: list[int] = []
    run(folder, tmp_path, lambda progress: done.append(progress.done))
    assert files(tmp_path) == files(folder / "undisturbed")
    assert done == list(range((step - 1) // EVERY * EVERY, STEPS + 1))


def test_three_crashes_change_no_byte(folder: Path, tmp_path: Path) -> None:
    """A training may be killed again while it catches up."""
    for step in (5, 5, 11):
        crash(folder, tmp_path, step)
    run(folder, tmp_path)
    assert files(tmp_path) == files(folder / "undisturbed")


@pytest.mark.slow
@pytest.mark.parametrize("step", [4, 8])
def test_sigkill_changes_no_byte(folder: Path, tmp_path: Path, step: int) -> None:
    """The real thing: another process, killed without a chance to say goodbye."""
    code = "import sys; sys.path[:0] = sys.argv[3:]; import test_training_resume as test; test.child(*map(test.Path, sys.argv[1:3]))"
    paths = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    command = [sys.executable, "-c", code, str(folder), str(tmp_path), *paths]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.strip() == f"step {step}":
                child.send_signal(signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL
    run(folder, tmp_path)
    assert files(tmp_path) == files(folder / "undisturbed")


def child(folder: Path, out: Path) -> None:
    """Train in a process of its own and print each step."""
    run(folder, out, lambda progress: print(f"step {progress.done}", flush=True))  # noqa: T201 - its parent reads it


def flip_a_bit(checkpoint: Path) -> None:
    """Damage the weights."""
    weights = checkpoint / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 4
    weights.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no optimizer": lambda checkpoint: (checkpoint / "optimizer.pt").unlink(),
    "half a state": lambda checkpoint: os.truncate(checkpoint / "trainer_state.json", 100),
    "no manifest": lambda checkpoint: (checkpoint / "prooftune-manifest.json").unlink(),
    "half a manifest": lambda checkpoint: os.truncate(checkpoint / "prooftune-manifest.json", 40),
    "a flipped bit": flip_a_bit,
    "an empty folder": lambda checkpoint: [path.unlink() for path in checkpoint.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over(folder: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """The one before is used, with a warning, and the bytes are the same in the end."""
    crash(folder, tmp_path, 2 * EVERY + 1)
    DAMAGE[damage](tmp_path / f"checkpoints/checkpoint-{2 * EVERY}")
    run(folder, tmp_path)
    assert f"checkpoint-{2 * EVERY} is damaged" in caplog.text
    assert files(tmp_path) == files(folder / "undisturbed")


@pytest.mark.parametrize("damaged", [2 * EVERY, 3 * EVERY])
def test_further_checkpoints_survive_a_crash_and_damage(folder: Path, tmp_path: Path, damaged: int) -> None:
    """Those kept beside the best are needed at the end, too: a damaged one is trained again, to the bit."""
    run(folder, tmp_path / "undisturbed", keep=3)
    crash(folder, tmp_path / "out", 3 * EVERY + 1, keep=3)
    flip_a_bit(tmp_path / f"out/checkpoints/checkpoint-{damaged}")
    done: list[int] = []
    figures = run(folder, tmp_path / "out", lambda progress: done.append(progress.done), keep=3)
    assert len(figures["further_steps"]) == 2
    assert done[0] == damaged - EVERY
    assert files(tmp_path / "out") == files(tmp_path / "undisturbed")


def test_without_any_whole_checkpoint_training_starts_anew(folder: Path, tmp_path: Path) -> None:
    """Losing time is better than another model."""
    crash(folder, tmp_path, 2 * EVERY + 1)
    for checkpoint in (tmp_path / "checkpoints").iterdir():
        (checkpoint / "optimizer.pt").unlink()
    run(folder, tmp_path)
    assert files(tmp_path) == files(folder / "undisturbed")


def test_a_checkpoint_without_its_best_one_is_passed_over(tmp_path: Path) -> None:
    """What resumed from it could not hand over the best weights."""
    for step, best in ((3, 3), (6, 6), (9, 6)):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "trainer_state.json").write_text(json.dumps({"best_global_step": best}))
        write_manifest(checkpoint)
    (tmp_path / "checkpoint-6/trainer_state.json").write_text("{}")
    newest = newest_intact(tmp_path)
    assert newest is not None
    assert newest.name == "checkpoint-3"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]


def test_a_moved_output_folder_resumes(folder: Path, tmp_path: Path) -> None:
    """Another worker may see the same storage under another path."""
    crash(folder, tmp_path / "here", 8)
    shutil.move(tmp_path / "here", tmp_path / "there")
    run(folder, tmp_path / "there")
    assert files(tmp_path / "there") == files(folder / "undisturbed")


@pytest.mark.parametrize("when", ["_write_outputs", "_finish"])
def test_a_crash_after_the_last_step_trains_no_more(folder: Path, tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outputs are written anew from the checkpoints."""
    original: Any = getattr(sft, when)

    def write_and_crash(*arguments: Any) -> None:
        if when == "_write_outputs":
            original(*arguments)
        raise CrashError

    monkeypatch.setattr(sft, when, write_and_crash)
    with pytest.raises(CrashError):
        run(folder, tmp_path)
    monkeypatch.undo()
    done: list[int] = []
    run(folder, tmp_path, lambda progress: done.append(progress.done))
    assert done == [STEPS]
    assert files(tmp_path) == files(folder / "undisturbed")


def test_a_finished_training_is_not_done_again(folder: Path, tmp_path: Path) -> None:
    """A kill between training and its record finds the figures."""
    shutil.copytree(folder / "undisturbed", tmp_path / "out")
    figures = run(folder, tmp_path / "out", crash_at(1))
    assert figures["steps"] == STEPS
    assert figures["tokens_per_second"] is None


@pytest.mark.parametrize("late", [False, True])
def test_early_stopping_survives(folder: Path, tmp_path: Path, late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The count of checks without a gain goes on, and a training that early stopping had ended does not start again."""
    for name in ("model", "train.jsonl"):
        (tmp_path / name).symlink_to(folder / name)
    write_examples(tmp_path / "validation.jsonl", 5, seed=2, answer="????????")
    method = METHOD.model_copy(update={"kind": "full", "dropout": 0.0, "epochs": 20.0, "early_stopping": 2})
    undisturbed = run(tmp_path, tmp_path / "undisturbed", method=method)
    assert undisturbed["stopped_early"]
    if late:
        monkeypatch.setattr(sft, "_write_outputs", lambda *_: crash_at(0)(Progress(done=0, total=0, unit="steps", text="loss")))
        with pytest.raises(CrashError):
            run(tmp_path, tmp_path / "out", method=method)
        monkeypatch.undo()
    else:
        crash(tmp_path, tmp_path / "out", undisturbed["steps"], method)
    run(tmp_path, tmp_path / "out", method=method)
    assert files(tmp_path / "out") == files(tmp_path / "undisturbed")
