"""What several test files share: a tiny model, toy data, a home of its own and a Prefect server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import settings
from tests_support import CHATML, COLOURS, WORDS, toy_rows, write_jsonl

# A test file imports from its fixtures before pytest loads them as a plugin: named here, their asserts explain themselves all the same.
pytest.register_assert_rewrite(*(path.stem for path in Path(__file__).parent.glob("fixtures_*.py")))
pytest_plugins = ["fixtures_faults"]  # here, since the process that prints the summary reads no test file
settings.register_profile("prooftune", deadline=None)  # on a busy machine a slow example is no failure
settings.load_profile("prooftune")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a two-layer Llama of random weights and a tokenizer that knows the toy data's words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<pad>", "<unk>", "<|im_start|>", "<|im_end|>"]
    vocabulary = [*special, "\n", "system", "user", "assistant", *COLOURS, *COLOURS.values(), *WORDS]
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(vocabulary)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(" ", "removed")])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", eos_token="<|im_end|>", extra_special_tokens=["<|im_start|>"]
    )
    tokenizer.chat_template = CHATML
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    folder = tmp_path_factory.mktemp("tiny-model")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with spec.yaml on toy data that a tiny model learns within seconds; its store lies beside it."""
    folder = tmp_path_factory.mktemp("toy")
    write_jsonl(folder / "toy.jsonl", toy_rows(240))
    spec = {
        "name": "toy",
        "data": {"source": "toy.jsonl", "on_invalid": "skip", "split": {"holdout": 60, "validation": 20}},
        "baseline": {"shots": 3},
        "backend": {
            "model": str(tiny_model),
            "method": {
                "kind": "full",
                "epochs": 6,
                "learning_rate": 5.0e-3,
                "batch_size": 8,
                "early_stopping": None,
                "checks_per_epoch": 2,
            },
        },
        # A model of random weights knows nothing in general that it could forget.
        "gate": {"max_forgetting": None},
        "store": {"uri": str(folder / "store")},
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    return folder


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a user with an empty home folder and no Prefect configured."""
    folder = tmp_path_factory.mktemp("home")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "XDG_", "AWS_", "HF_"))}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return kept | {"HOME": str(folder), "PATH": path, "COLUMNS": "120", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def server(home: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The local Prefect server that the command line starts, stopped at the end; gives what ``prooftune up --json`` says."""
    try:
        up = subprocess.run(["prooftune", "up", "--json"], env=home, capture_output=True, text=True, check=False)
        assert up.returncode == 0, up.stderr
        yield json.loads(up.stdout)
    finally:
        subprocess.run(["prooftune", "down"], env=home, capture_output=True, check=True)
