"""Loads tokenizers, base models and candidates from local folders: safetensors only, the right number format for the device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prooftune.errors import ModelUnavailable

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Kind = Literal["lora", "qlora", "full"]


def pick_device(device: str | None = None) -> str:
    """Return ``device``, or ``cuda`` where PyTorch sees a CUDA GPU, else ``cpu``."""
    import torch

    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a local model folder.

    Raises:
        ModelUnavailable: the folder has no usable tokenizer.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"no usable tokenizer in {folder}: {_one_line(error)}") from error


def load_base(folder: Path, *, kind: Kind = "lora", device: str | None = None, trust_remote_code: bool = False) -> PreTrainedModel:
    """Load a base model for ``kind`` of training, or for inference, onto ``device`` (null = a CUDA GPU where there is one).

    fp32 on CPU, where bf16 is many times slower; bf16 on CUDA, but fp32 for ``full``, whose small updates bf16 weights would swallow.
    ``qlora``: frozen weights in NF4 with double quantisation (Dettmers et al., 2023, https://arxiv.org/abs/2305.14314).

    Raises:
        ModelUnavailable: the folder has no safetensors, or its model needs code that the spec does not trust.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # stages report progress themselves; bars would break the terminal's and fill the logs
    device = pick_device(device)
    compute = torch.bfloat16 if device.startswith("cuda") else torch.float32
    quantization: dict[str, Any] = {}
    if kind == "qlora":
        from transformers import BitsAndBytesConfig

        nf4 = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": compute}
        quantization = {"quantization_config": BitsAndBytesConfig(load_in_4bit=True, **nf4)}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32 if kind == "full" else compute,
            device_map={"": device},
            attn_implementation="sdpa",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            **quantization,
        )
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"the model in {folder} cannot be loaded: {_one_line(error)}") from error
    if kind == "qlora":
        _keep_unpacked(model)
    return model.eval()


def _keep_unpacked(model: PreTrainedModel) -> None:
    """Switch off bitsandbytes' packing of 4-bit weights for inference on CPUs with AVX512-BF16.

    It changes the weights at the first validation, in the middle of training, to bf16 arithmetic, and fails on layers narrower than its
    block of 64 (bitsandbytes 0.50).
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def load_trainable(
    folder: Path, start: Path | None, *, kind: Kind = "lora", device: str | None = None, trust_remote_code: bool = False
) -> PreTrainedModel:
    """Load what training begins with: the base model in ``folder``, or what an earlier training left in ``start``, ready to go on.

    Raises:
        ModelUnavailable: ``start`` holds neither an adapter nor a model in safetensors.
    """
    if start is None or kind == "full":
        return load_base(start or folder, kind=kind, device=device, trust_remote_code=trust_remote_code)
    _require_adapter(start)
    from peft import PeftModel

    base = load_base(folder, kind=kind, device=device, trust_remote_code=trust_remote_code)
    model = PeftModel.from_pretrained(base, start, is_trainable=True)
    for config in model.peft_config.values():
        config.base_model_name_or_path = str(folder)  # a published adapter has its hub id, which PEFT would look up at each checkpoint
    return model


def load_candidate(
    folder: Path, trained: Path, *, kind: Kind = "lora", device: str | None = None, trust_remote_code: bool = False
) -> PreTrainedModel:
    """Load what training wrote, for inference: an adapter on its base model in ``folder``, or the whole model of a ``full`` training.

    Raises:
        ModelUnavailable: ``trained`` holds neither an adapter nor a model in safetensors.
    """
    if (trained / "config.json").is_file():
        return load_base(trained, kind=kind, device=device, trust_remote_code=trust_remote_code)
    _require_adapter(trained)
    from peft import PeftModel

    base = load_base(folder, kind=kind, device=device, trust_remote_code=trust_remote_code)
    return PeftModel.from_pretrained(base, trained, is_trainable=False).eval()


def _require_adapter(folder: Path) -> None:
    if not (folder / "adapter_model.safetensors").is_file():
        raise ModelUnavailable(f"{folder} holds no adapter_model.safetensors; it is not an adapter that can be loaded safely")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
