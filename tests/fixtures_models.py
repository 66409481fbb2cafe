"""A tiny chat model made on the spot (about 60 thousand parameters, random weights) and a small task for it to learn."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from prooftune.types import Example, Message

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML: its trailing newline after the end of turn is what the loss mask must leave out."""
WORDS = ("red", "green", "blue", "one", "two", "three", "cat", "dog", "bird")


def make_model(folder: Path, *, layers: int = 3, hidden: int = 32, template: str = TEMPLATE) -> Path:
    """Write a Llama of ``layers`` blocks with a byte-level tokenizer into ``folder`` and return it."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({token: at for at, token in enumerate([*special, *alphabet])}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:2]})
    tokenizer.chat_template = template
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_examples(path: Path, count: int, seed: int, answer: str | None = None) -> Path:
    """Write ``count`` examples of unlike length: say the first word in capitals, or always ``answer``."""
    rng = random.Random(seed)
    with path.open("w") as file:
        for at in range(count):
            words = rng.choices(WORDS, k=rng.randint(1, 6))
            messages = (Message(role="user", content=" ".join(words)), Message(role="assistant", content=answer or words[0].upper()))
            example = Example(id=hashlib.sha256(f"{seed} {at}".encode()).hexdigest()[:16], source=f"made:{at + 1}", messages=messages)
            file.write(example.model_dump_json() + "\n")
    return path
