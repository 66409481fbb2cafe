"""What the trainer sees and computes is what the encodings and the mathematics say."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from fixtures_models import make_model, write_examples
from hypothesis import given, settings
from hypothesis import strategies as st

from prooftune.errors import DataError, EnvironmentLacks, SpecError
from prooftune.models.loading import load_base, load_candidate, load_tokenizer
from prooftune.spec import Method, Task, Tracking
from prooftune.training import sft
from prooftune.training.batches import plan_schedule
from prooftune.training.checkpoints import best_checkpoints, prune
from prooftune.training.encoding import Encoded, encode, with_system
from prooftune.training.overfitting import overfitting
from prooftune.training.sft import train
from prooftune.training.trainer import Setting, build_trainer, supervised_nll
from prooftune.types import Example, Progress, no_report

TASK = Task(system="Say it.")
METHOD = Method(r=4, alpha=8, epochs=1.5, learning_rate=5e-3, batch_size=8, checks_per_epoch=2)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    """A tiny model's matrices are too small to share, and threads wait for each other on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and two splits."""
    folder = make_model(tmp_path_factory.mktemp("training") / "model").parent
    write_examples(folder / "train.jsonl", 29, seed=1)
    write_examples(folder / "validation.jsonl", 7, seed=2)
    return folder


def run(folder: Path, out: Path, method: Method = METHOD, **options: Any) -> dict[str, Any]:
    """Train into a new folder."""
    out.mkdir()
    return train(folder / "train.jsonl", folder / "validation.jsonl", folder / "model", TASK, method, out, **options)


def encoded(folder: Path, split: str) -> list[Encoded]:
    """The split's examples as tokens."""
    tokenizer = load_tokenizer(folder / "model")
    lines = (folder / f"{split}.jsonl").read_text().splitlines()
    return [encode(with_system(Example.model_validate_json(line).messages, TASK.system), tokenizer, 1024) for line in lines]


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[Progress]]:
    """One LoRA training: its folder, its figures and what it reported."""
    reports: list[Progress] = []
    out = tmp_path_factory.mktemp("trained") / "out"
    return out, run(folder, out, report=reports.append), reports


lengths = st.lists(st.integers(min_value=1, max_value=60), min_size=1, max_size=40)


@given(lengths, st.floats(min_value=0.1, max_value=4), st.integers(min_value=1, max_value=16), st.integers(min_value=0, max_value=9))
def test_every_epoch_takes_every_example_once(lengths: list[int], epochs: float, batch_size: int, seed: int) -> None:
    """However batches are sorted: all examples appear equally often, and steps cover the stream."""
    plan = plan_schedule(lengths, epochs=epochs, batch_size=batch_size, checks_per_epoch=3, seed=seed, device_tokens=100)
    assert len(plan.order) == max(1, round(len(lengths) * epochs))
    assert plan.steps == math.ceil(len(plan.order) / batch_size)
    counts = Counter(plan.order)
    assert max(counts.values()) - min(counts[index] for index in range(len(lengths))) <= 1
    assert plan.per_device * plan.accumulation == batch_size
    assert plan.per_device == 1 or plan.per_device * max(lengths) <= 100
    for at in range(0, len(plan.order), batch_size):
        batch = [lengths[index] for index in plan.order[at : at + batch_size]]
        assert batch == sorted(batch, reverse=True)


@pytest.mark.parametrize("method", [METHOD, METHOD.model_copy(update={"batch_size": 3})])
def test_the_trainer_sees_our_labels(folder: Path, tmp_path: Path, method: Method) -> None:
    """Token for token and label for label, in the order of the plan; TRL neither masks anew, nor cuts, nor shuffles."""
    examples = encoded(folder, "train")
    plan = plan_schedule(
        [len(row.input_ids) for row in examples], epochs=1.5, batch_size=method.batch_size, checks_per_epoch=2, seed=7, device_tokens=512
    )
    stream = [examples[index] for index in plan.order]
    setting = Setting(tmp_path, "cpu", (), no_report)
    model, tokenizer = load_base(folder / "model", device="cpu"), load_tokenizer(folder / "model")
    trainer = build_trainer(model, tokenizer, stream, examples[:3], method, plan, setting)
    seen = []
    for batch in trainer.get_train_dataloader():
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
            kept = mask.bool()
            assert (labels[~kept] == -100).all()
            seen.append((ids[kept].tolist(), labels[kept].tolist()))
    masked = [[t if counts else -100 for t, counts in zip(row.input_ids, row.supervised, strict=True)] for row in stream]
    assert seen == [(row.input_ids, labels) for row, labels in zip(stream, masked, strict=True)]


def test_the_loss_at_supervised_positions_is_the_plain_loss(folder: Path) -> None:
    """Value and gradients equal those of masked cross-entropy over all positions of each row alone, without padding."""
    import torch
    from torch.nn import functional

    from prooftune.training.trainer import dataset

    examples = encoded(folder, "train")[:4]
    model = load_base(folder / "model", device="cpu")
    width = max(len(row.input_ids) for row in examples)
    plain = torch.zeros(())
    for row in dataset(examples):
        logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
        plain = plain + functional.cross_entropy(logits, torch.tensor(row["labels"][1:]), ignore_index=-100, reduction="sum")
    expected = torch.autograd.grad(plain, list(model.parameters()))
    padded = {
        "input_ids": torch.tensor([row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in dataset(examples)]),
        "labels": torch.tensor([row["labels"] + [-100] * (width - len(row["labels"])) for row in dataset(examples)]),
        "attention_mask": torch.tensor([[1] * len(row.input_ids) + [0] * (width - len(row.input_ids)) for row in examples]),
    }
    loss = supervised_nll(model, padded)
    torch.testing.assert_close(loss, plain)
    for ours, theirs in zip(torch.autograd.grad(loss, list(model.parameters())), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_one_times_eight_is_eight_times_one(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How a global batch is cut for the device changes neither the losses nor the adapter."""
    from safetensors.torch import load_file
    from torch.testing import assert_close

    results = []
    for tokens in (1, 100_000):
        monkeypatch.setitem(sft.DEVICE_TOKENS, "cpu", tokens)
        out = tmp_path / str(tokens)
        figures = run(folder, out, METHOD.model_copy(update={"epochs": 1}))
        results.append((figures["per_device_batch_size"], rows(out / "log.jsonl"), load_file(out / "adapter/adapter_model.safetensors")))
    (one, log_one, adapter_one), (eight, log_eight, adapter_eight) = results
    assert (one, eight) == (1, 8)
    for name in ("loss", "validation_loss"):
        first, second = ([row[name] for row in log if row[name] is not None] for log in (log_one, log_eight))
        assert first == pytest.approx(second, rel=1e-5)
    assert_close(adapter_one, adapter_eight, rtol=1e-3, atol=1e-4)


def loss_of(folder: Path, weights: Path) -> float:
    """The validation loss of what training wrote, row by row and token by token."""
    import torch

    model = load_candidate(folder / "model", weights, device="cpu")
    total = count = 0.0
    for row in encoded(folder, "validation"):
        with torch.no_grad():
            log_probs = model(input_ids=torch.tensor([row.input_ids])).logits[0].log_softmax(-1)
        for at in range(row.prompt_tokens, len(row.input_ids)):
            total -= float(log_probs[at - 1, row.input_ids[at]])
            count += 1
    return total / count


def test_the_validation_loss_is_the_mean_over_tokens(folder: Path, trained: tuple[Path, dict[str, Any], list[Progress]]) -> None:
    """Recomputed by hand, row by row, with the adapter that was kept: also proof that it is the best check's."""
    out, figures, _ = trained
    assert figures["validation_loss"] == pytest.approx(loss_of(folder, out / "adapter"), rel=1e-5)
    assert figures["validation_loss"] == min(row["validation_loss"] for row in rows(out / "log.jsonl") if row["validation_loss"])


def test_figures_and_log_agree_with_the_data(folder: Path, trained: tuple[Path, dict[str, Any], list[Progress]]) -> None:
    """Steps, tokens and epochs are counted from the examples, and every step is reported and logged."""
    out, figures, reports = trained
    examples, log = encoded(folder, "train"), rows(out / "log.jsonl")
    assert figures["steps"] == figures["planned_steps"] == math.ceil(round(29 * 1.5) / 8) == len(log)
    assert not figures["stopped_early"]
    assert [row["step"] for row in log] == list(range(1, len(log) + 1))
    assert log[-1]["tokens"] == figures["trained_tokens"] > sum(len(row.input_ids) for row in examples)
    assert log[-1]["epoch"] == pytest.approx(44 / 29, abs=1e-5)
    assert figures["supervised_tokens"] > sum(sum(row.supervised) for row in examples)
    assert max(row["learning_rate"] for row in log) == METHOD.learning_rate
    assert [report.done for report in reports] == list(range(len(log) + 1))
    assert "validation" in reports[-1].text
    assert log[-1]["loss"] < log[0]["loss"]


def test_outputs_hold_what_serving_needs_and_no_path_of_this_machine(trained: tuple[Path, dict[str, Any], list[Progress]]) -> None:
    """Adapter in safetensors, tokenizer, chat template and log; no checkpoints, no pickles, no absolute paths."""
    out = trained[0]
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert found >= {
        "log.jsonl",
        "training.json",
        "adapter/adapter_model.safetensors",
        "adapter/chat_template.jinja",
        "adapter/tokenizer.json",
    }
    assert not any(name.endswith((".bin", ".pt", ".pth")) or "checkpoint" in name for name in found)
    for name in found - {"adapter/adapter_model.safetensors"}:
        assert str(out.parent) not in (out / name).read_text()
    assert json.loads((out / "adapter/adapter_config.json").read_text())["base_model_name_or_path"] == "model"


def test_the_same_inputs_give_the_same_bytes(folder: Path, tmp_path: Path, trained: tuple[Path, dict[str, Any], list[Progress]]) -> None:
    """Every output file, from another folder."""
    run(folder, tmp_path / "again")
    first = {path.relative_to(trained[0]): path.read_bytes() for path in trained[0].rglob("*") if path.is_file()}
    assert first == {path.relative_to(tmp_path / "again"): path.read_bytes() for path in (tmp_path / "again").rglob("*") if path.is_file()}


def test_adapters_on_the_last_layers_stop_the_backward_pass_there(folder: Path, tmp_path: Path) -> None:
    """Nothing below the lowest adapter is recorded by autograd, so its backward pass costs nothing."""
    import torch

    examples = encoded(folder, "train")
    method = METHOD.model_copy(update={"layers": 1})
    plan = plan_schedule([len(row.input_ids) for row in examples], epochs=1, batch_size=8, checks_per_epoch=1, seed=7, device_tokens=512)
    model, tokenizer = load_base(folder / "model", device="cpu"), load_tokenizer(folder / "model")
    trainer = build_trainer(model, tokenizer, examples, examples[:3], method, plan, Setting(tmp_path, "cpu", (), no_report))
    recorded = {}
    for number, layer in enumerate(trainer.model.get_base_model().model.layers):
        layer.register_forward_hook(lambda _m, _i, output, number=number: recorded.update({number: output.requires_grad}))
    trainer.model.train()(input_ids=torch.tensor([examples[0].input_ids]))
    assert recorded == {0: False, 1: False, 2: True}
    assert all("layers.2." in name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad)


def test_more_layers_than_the_model_has_is_a_spec_error(folder: Path, tmp_path: Path) -> None:
    """Both numbers are in the message."""
    with pytest.raises(SpecError, match="last 4 layers, but the model has 3"):
        run(folder, tmp_path / "out", METHOD.model_copy(update={"layers": 4}))


def test_all_weights_can_be_trained(folder: Path, tmp_path: Path) -> None:
    """``full`` writes a whole model, which loads as a candidate and differs from its base."""
    figures = run(folder, tmp_path / "out", METHOD.model_copy(update={"kind": "full", "epochs": 0.5}))
    model, base = load_candidate(folder / "model", tmp_path / "out/model", device="cpu"), load_base(folder / "model", device="cpu")
    assert figures["trainable_parameters"] == sum(parameter.numel() for parameter in base.parameters())
    assert not any((a == b).all() for a, b in zip(model.parameters(), base.parameters(), strict=True) if a.ndim > 1)


@pytest.mark.slow
def test_qlora_trains_on_cpu_with_fp32_adapters(folder: Path, tmp_path: Path) -> None:
    """The frozen weights are NF4, twice quantized, and the loss falls."""
    base = load_base(folder / "model", kind="qlora", device="cpu")
    assert base.is_loaded_in_4bit
    assert base.config.quantization_config.bnb_4bit_use_double_quant
    figures = run(folder, tmp_path / "out", METHOD.model_copy(update={"kind": "qlora", "epochs": 3.0}))
    log = rows(tmp_path / "out/log.jsonl")
    assert figures["device"] == "cpu"
    assert log[-1]["loss"] < log[0]["loss"] - 0.05
    load_candidate(folder / "model", tmp_path / "out/adapter", device="cpu")


def test_early_stopping_keeps_the_best_check(folder: Path, tmp_path: Path) -> None:
    """Where what is learnt makes validation worse, training ends early and the weights of the best check are kept."""
    (tmp_path / "model").symlink_to(folder / "model")
    (tmp_path / "train.jsonl").symlink_to(folder / "train.jsonl")
    write_examples(tmp_path / "validation.jsonl", 7, seed=2, answer="????????")
    figures = run(tmp_path, tmp_path / "out", METHOD.model_copy(update={"kind": "full", "epochs": 20.0, "early_stopping": 2}))
    checks = {row["step"]: row["validation_loss"] for row in rows(tmp_path / "out/log.jsonl") if row["validation_loss"] is not None}
    assert figures["stopped_early"]
    best, _, last = sorted(checks)[-3:]
    assert figures["best_step"] == min(checks, key=lambda step: checks[step]) == best
    assert figures["overfitting"]["overfit_from_step"] == best
    assert figures["overfitting"]["epochs_past_minimum"] == pytest.approx((last - best) * 8 / 29, abs=1e-5)
    assert figures["overfitting"]["rise"] == checks[last] - checks[best] > 0
    assert figures["overfitting"]["loss_at_end"] == checks[last]


@given(st.lists(st.none() | st.floats(min_value=0, max_value=9), min_size=1, max_size=12).filter(lambda losses: set(losses) != {None}))
def test_overfitting_is_what_lies_past_the_first_minimum(losses: list[float | None]) -> None:
    """There is some exactly where the last check is worse than the best one, and its figures come from those two rows."""
    log = [{"step": at, "epoch": at / 4, "validation_loss": loss} for at, loss in enumerate(losses, start=1)]
    checks = [loss for loss in losses if loss is not None]
    found = overfitting(log)
    assert (found is None) == (checks[-1] == min(checks))
    if found is not None:
        assert found["overfit_from_step"] == losses.index(min(checks)) + 1 == 4 * found["overfit_from_epoch"]
        assert found["loss_at_end"] - found["rise"] == pytest.approx(min(checks))
        assert found["epochs_past_minimum"] > 0


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_further_checkpoints_are_the_next_best_ones(folder: Path, tmp_path: Path, kind: str) -> None:
    """They load without a tokenizer, have the validation loss of their step, and leave the best one's bytes as they are."""
    method = METHOD.model_copy(update={"kind": kind, "epochs": 3.0, "learning_rate": 3e-2})
    figures = run(folder, tmp_path / "three", method, keep=3)
    checks = {row["step"]: row["validation_loss"] for row in rows(tmp_path / "three/log.jsonl") if row["validation_loss"] is not None}
    ranked = sorted(checks, key=lambda step: (checks[step], step))
    assert len(checks) > 3
    assert [figures["best_step"], *figures["further_steps"]] == ranked[:3]
    assert {path.name for path in (tmp_path / "three/further").iterdir()} == {str(step) for step in ranked[1:3]}
    for step in figures["further_steps"]:
        kept = tmp_path / f"three/further/{step}"
        assert loss_of(folder, kept) == pytest.approx(checks[step], rel=1e-5)
        assert not list(kept.glob("*token*"))
        assert all(str(tmp_path) not in path.read_text() for path in kept.glob("*.json"))
    assert run(folder, tmp_path / "one", method)["further_steps"] == []
    best = "model/model" if kind == "full" else "adapter/adapter_model"
    assert (tmp_path / f"one/{best}.safetensors").read_bytes() == (tmp_path / f"three/{best}.safetensors").read_bytes()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(min_value=0, max_value=9), min_size=1, max_size=9), st.integers(min_value=1, max_value=4))
def test_pruning_keeps_what_resuming_and_the_end_need(losses: list[int], keep: int) -> None:
    """After every check: the two newest checkpoints and the best ones known to either are there, and at most ``keep`` + 2 in all."""
    with TemporaryDirectory() as name:
        checkpoints = Path(name)
        history: list[dict[str, float]] = []
        for step, loss in enumerate(losses, start=1):
            history.append({"step": step, "eval_loss": loss})
            best = min(history, key=lambda row: row["eval_loss"])["step"]
            (checkpoints / f"checkpoint-{step}").mkdir()
            (checkpoints / f"checkpoint-{step}/trainer_state.json").write_text(
                json.dumps({"best_global_step": best, "log_history": history})
            )
            prune(checkpoints, keep)
            left = set(checkpoints.iterdir())
            for newest in (checkpoints / f"checkpoint-{at}" for at in (step, step - 1) if at):
                assert {newest, *best_checkpoints(newest, keep)} <= left
            assert len(left) <= keep + 2
        ranked = sorted(range(1, len(losses) + 1), key=lambda step: (losses[step - 1], step))
        assert [path.name for path in best_checkpoints(checkpoints / f"checkpoint-{len(losses)}", keep)] == [
            f"checkpoint-{step}" for step in ranked[:keep]
        ]


def test_a_training_shorter_than_a_check_is_checked_at_its_end(folder: Path, tmp_path: Path) -> None:
    """Without a check there would be no best weights to keep."""
    figures = run(folder, tmp_path / "out", METHOD.model_copy(update={"epochs": 0.25, "checks_per_epoch": 1}))
    assert figures["best_step"] == figures["steps"] == 1
    assert figures["overfitting"] is None
    assert figures["validation_loss"] == pytest.approx(loss_of(folder, tmp_path / "out/adapter"), rel=1e-5)


def test_a_loss_that_is_no_number_stops_the_training(folder: Path, tmp_path: Path) -> None:
    """The message names the field to change."""
    from safetensors.torch import load_file, save_file

    make_model(tmp_path / "model")
    weights = load_file(tmp_path / "model/model.safetensors")
    weights["model.norm.weight"] *= float("nan")
    save_file(weights, tmp_path / "model/model.safetensors", metadata={"format": "pt"})
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").symlink_to(folder / f"{split}.jsonl")
    with pytest.raises(SpecError, match=r"backend\.method\.learning_rate: the loss is nan after step 1"):
        run(tmp_path, tmp_path / "out")


def test_nothing_to_learn_is_a_data_error(folder: Path, tmp_path: Path) -> None:
    """A prompt that fills max_length leaves no target."""
    with pytest.raises(DataError, match="not one supervised token within max_length 16"):
        run(folder, tmp_path / "out", METHOD.model_copy(update={"max_length": 16}))


def test_a_tracker_that_is_not_installed_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is loaded."""
    monkeypatch.setattr(sft, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentLacks, match="pip install mlflow"):
        run(folder, tmp_path / "out", tracking=Tracking(mlflow="./runs"))
