"""Generation: the answers do not depend on batching, padding, or on whether the common prefix is run once."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
from fixtures_models import make_model

from prooftune.errors import DataError
from prooftune.evaluation.answers import generation
from prooftune.evaluation.answers.generation import Generation, generate
from prooftune.evaluation.answers.shared_prefix import attending_to_prefix, can_share_prefix
from prooftune.models.loading import load_tokenizer
from prooftune.types import Progress

Prompts = list[list[int]]
SIZES = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.4,  # random weights of the usual size answer the same to every prompt
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "phi3", "granite", "smollm3", "olmo2", "gemma3_text")
QUICK = ("llama", "gemma3_text")
"""Full and sliding attention; the others run among the slow tests."""
SLIDING = {"gemma3_text": {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer of one token a byte with a chat template."""
    return load_tokenizer(make_model(tmp_path_factory.mktemp("model")))


def random_model(family: str = "llama") -> Any:
    """A small model of the family with random weights, in fp32 on the CPU."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    extra = {"sliding_window": None} if family == "mistral" else SLIDING.get(family, {})
    config = AutoConfig.for_model(family, **(SIZES | extra))
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa").eval()


@pytest.fixture
def prompts() -> Prompts:
    """Eleven prompts of unlike length that begin with the same forty tokens."""
    rng = random.Random(5)
    prefix = [rng.randrange(3, 259) for _ in range(40)]
    return [prefix + [rng.randrange(3, 259) for _ in range(rng.randint(1, 30))] for _ in range(11)]


def tokens(generations: list[Generation]) -> Prompts:
    """The answers' tokens."""
    return [list(generation.tokens) for generation in generations]


@pytest.mark.parametrize("family", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES if name not in QUICK)])
def test_answers_are_those_of_transformers_one_by_one(
    family: str, tokenizer: Any, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches and groups and with a shared prefix, each prompt gets what ``model.generate`` says to it alone."""
    import torch

    monkeypatch.setattr(generation, "GROUP_TOKENS", 60)  # two rows at most, so that caches of unlike length are joined
    model = random_model(family)
    expected = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, pad_token_id=0)
        expected.append(whole[0, len(prompt) :].tolist())
    assert len({tuple(answer) for answer in expected}) > 5
    assert can_share_prefix(model) == (family != "gemma3_text")
    stops = {tokenizer.eos_token_id}
    for sharing in (True, False):
        found = tokens(generate(model, tokenizer, prompts, max_new_tokens=12, batch_size=4, share_prefix=sharing))
        assert found == [cut(answer, stops) for answer in expected]
    assert model.config._attn_implementation == "sdpa"


def cut(answer: list[int], stops: set[int]) -> list[int]:
    """The answer up to its first end-of-turn token, which is included."""
    ends = [at for at, token in enumerate(answer) if token in stops]
    return answer[: ends[0] + 1] if ends else answer


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_batch_size_does_not_matter(batch_size: int, tokenizer: Any, prompts: Prompts) -> None:
    """Batches of one, of a few and of all give the same answers, in the order of the prompts."""
    model = random_model()
    expected = tokens(generate(model, tokenizer, prompts, max_new_tokens=10, batch_size=5))
    assert tokens(generate(model, tokenizer, prompts, max_new_tokens=10, batch_size=batch_size)) == expected
    backwards = generate(model, tokenizer, prompts[::-1], max_new_tokens=10, batch_size=batch_size)
    assert tokens(backwards) == expected[::-1]


def test_long_prompts_go_in_smaller_batches(tokenizer: Any, prompts: Prompts, monkeypatch: pytest.MonkeyPatch) -> None:
    """No batch keeps more tokens than it may, one row always runs, and the answers stay the same."""
    model, seen = random_model(), []
    expected = tokens(generate(model, tokenizer, prompts, max_new_tokens=5))
    monkeypatch.setattr(generation, "BATCH_TOKENS", 100)
    found = generate(model, tokenizer, prompts, max_new_tokens=5, share_prefix=False, report=seen.append)
    assert tokens(found) == expected
    lengths = sorted((len(prompt) + 5 for prompt in prompts), reverse=True)
    done = [0, *(progress.done for progress in seen)]
    for start, end in itertools.pairwise(done):
        assert end - start == min(max(1, 100 // lengths[start]), len(prompts) - start)
    assert done[-1] == len(prompts)


def test_rows_end_at_their_own_end_of_turn(tokenizer: Any, prompts: Prompts) -> None:
    """A finished row leaves the batch, the others go on undisturbed; the end-of-turn token counts but is not in the text."""
    model = random_model()
    free = tokens(generate(model, tokenizer, prompts, max_new_tokens=20))
    stops = {free[0][4], free[1][9], tokenizer.eos_token_id}
    model.generation_config.eos_token_id = sorted(stops)
    found = generate(model, tokenizer, prompts, max_new_tokens=20)
    assert tokens(found) == [cut(answer, stops) for answer in free]
    assert [row.finished for row in found] == [row.tokens[-1] in stops for row in found]
    assert {row.finished for row in found} == {True, False}
    for row in found:
        assert row.text == tokenizer.decode([token for token in row.tokens if token not in stops], skip_special_tokens=True)
    by_length = sorted(found, key=lambda row: len(row.tokens))
    assert by_length[0].latency_s < by_length[-1].latency_s


def test_an_adapter_answers_the_same_with_and_without_sharing(tokenizer: Any, prompts: Prompts) -> None:
    """A PEFT model takes the exchanged attention too, and answers unlike its base model."""
    import torch
    from peft import LoraConfig, get_peft_model

    model = random_model()
    base = tokens(generate(model, tokenizer, prompts, max_new_tokens=8))
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)).eval()
    with torch.no_grad():
        shared = tokens(generate(adapted, tokenizer, prompts, max_new_tokens=8))
    assert shared == tokens(generate(adapted, tokenizer, prompts, max_new_tokens=8, share_prefix=False))
    assert shared != base


def test_the_same_prompt_twice_keeps_a_token_of_its_own(tokenizer: Any, prompts: Prompts) -> None:
    """Where the common prefix is a whole prompt, its last token still starts the answer."""
    model = random_model()
    twice = [prompts[0], prompts[0], [*prompts[0], 7]]
    found = tokens(generate(model, tokenizer, twice, max_new_tokens=5))
    assert found[0] == found[1] == tokens(generate(model, tokenizer, twice[:1], max_new_tokens=5))[0]


def test_progress_is_reported_after_each_batch(tokenizer: Any, prompts: Prompts) -> None:
    """Answers done of answers wanted; nothing to do is no error."""
    seen: list[Progress] = []
    generate(random_model(), tokenizer, prompts, max_new_tokens=2, batch_size=4, report=seen.append)
    assert [(progress.done, progress.total) for progress in seen] == [(4, 11), (8, 11), (11, 11)]
    assert generate(random_model(), tokenizer, [], max_new_tokens=2) == []


def test_what_does_not_fit_is_refused(tokenizer: Any) -> None:
    """Neither a prompt beyond the model's context nor an empty one is answered."""
    model = random_model()
    with pytest.raises(DataError, match=r"longest prompt has 250 tokens, and 7 more .* context is 256"):
        generate(model, tokenizer, [[5] * 250], max_new_tokens=7)
    with pytest.raises(DataError, match="no tokens"):
        generate(model, tokenizer, [[5], []], max_new_tokens=7)


def test_the_models_attention_is_put_back_after_a_failure(tokenizer: Any, prompts: Prompts) -> None:
    """An error in between leaves the model as it was."""
    model = random_model()

    def fail(progress: Progress) -> None:
        raise KeyError(progress.unit)

    with pytest.raises(KeyError):
        generate(model, tokenizer, prompts, max_new_tokens=2, report=fail)
    assert model.config._attn_implementation == "sdpa"


def capped_model() -> Any:
    """A small Gemma 2, whose attention caps its scores; every layer attends to all earlier tokens."""
    import torch
    from transformers import AutoModelForCausalLM, Gemma2Config

    capped = {"attn_logit_softcapping": 0.5, "query_pre_attn_scalar": 1, "head_dim": 8}  # large scores, so that the cap matters
    config = Gemma2Config(**(SIZES | capped | {"layer_types": ["full_attention"] * 3}))
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()


def test_a_model_that_caps_its_attention_answers_the_same(tokenizer: Any, prompts: Prompts) -> None:
    """Gemma 2's capped scores are not those of the exchanged attention: it runs every prompt whole, and the cap does matter."""
    model = capped_model()
    assert not can_share_prefix(model)
    found = tokens(generate(model, tokenizer, prompts, max_new_tokens=8))
    assert found == tokens(generate(model, tokenizer, prompts, max_new_tokens=8, share_prefix=False))
    for layer in model.model.layers:
        layer.self_attn.attn_logit_softcapping = None
    assert found != tokens(generate(model, tokenizer, prompts, max_new_tokens=8, share_prefix=False))


def test_a_model_with_sinks_runs_prompts_whole() -> None:
    """gpt-oss's learnt sinks share the softmax; no layer of this one has a window, so the sinks alone tell it apart."""
    import torch

    model = random_model()
    assert can_share_prefix(model)
    model.model.layers[0].self_attn.sinks = torch.nn.Parameter(torch.zeros(4))
    assert not can_share_prefix(model)


def test_the_exchanged_attention_refuses_what_it_does_not_know() -> None:
    """Should a capped model get there after all, it is an error and no wrong answer."""
    import torch
    from transformers import DynamicCache

    model = capped_model()
    ids, cache = torch.tensor([[5, 6, 7]]), DynamicCache(config=model.config)
    with torch.inference_mode():
        model(input_ids=ids, past_key_values=cache, use_cache=True)
        with attending_to_prefix(model), pytest.raises(NotImplementedError, match="share_prefix=False"):
            model(input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=ids - 2, shared_prefix=cache)


@pytest.mark.slow
def test_the_demo_model_answers_the_same_with_and_without_sharing(tmp_path: Path) -> None:
    """On real weights the shared prefix changes no token of sixteen few-shot answers."""
    from prooftune.models.loading import load_base
    from prooftune.models.resolve import resolve_model
    from prooftune.training.encoding import prompt_ids
    from prooftune.types import Message

    folder = resolve_model("smollm2-135m-instruct").path
    model, tokenizer = load_base(folder, device="cpu"), load_tokenizer(folder)
    shown = [("It arrived broken.", "complaint"), ("Where is my parcel?", "question"), ("Thank you, all works!", "praise")] * 4
    turns = [turn for q, a in shown for turn in (Message(role="user", content=q), Message(role="assistant", content=a))]
    questions = [f"My order {number} is {state}." for number in range(4) for state in ("late", "here", "wrong", "perfect")]
    prompts = [prompt_ids([*turns, Message(role="user", content=question)], tokenizer) for question in questions]
    shared = generate(model, tokenizer, prompts, max_new_tokens=8)
    assert tokens(shared) == tokens(generate(model, tokenizer, prompts, max_new_tokens=8, share_prefix=False))
