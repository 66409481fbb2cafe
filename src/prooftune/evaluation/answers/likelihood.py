"""How likely a model holds given texts and given answers: log-likelihoods, nothing is generated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prooftune.types import Progress, Report, no_report

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

QUESTIONS_AT_ONCE = 8
TEXTS_AT_ONCE = 4


def choice_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    choices: Sequence[Sequence[str]],
    report: Report = no_report,
) -> list[list[float]]:
    """Return the log-likelihood of each choice after its question, in nats per character; every question has as many choices.

    A question is run once; its keys and values are copied to its choices.
    """
    import torch

    scores: list[list[float]] = []
    with torch.inference_mode():
        for start in range(0, len(questions), QUESTIONS_AT_ONCE):
            some = slice(start, start + QUESTIONS_AT_ONCE)
            scores += _score_batch(model, tokenizer, questions[some], choices[some])
            report(Progress(done=len(scores), total=len(questions), unit="questions"))
    return scores


def _score_batch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], choices: Sequence[Sequence[str]]
) -> list[list[float]]:
    import torch
    from transformers import DynamicCache

    each = len(choices[0])
    prompts = [tokenizer(f"Question: {question}\nAnswer:")["input_ids"] for question in questions]
    answers = [tokenizer(f" {choice}", add_special_tokens=False)["input_ids"] for row in choices for choice in row]
    prompt_ids, prompt_mask = _padded(prompts, model.device, left=True)
    answer_ids, answer_mask = _padded(answers, model.device, left=False)
    cache = DynamicCache(config=model.config)
    positions = (prompt_mask.cumsum(dim=1) - 1).clamp(min=0)
    first = model(
        input_ids=prompt_ids, attention_mask=prompt_mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
    ).logits.repeat_interleave(each, dim=0)
    cache.batch_repeat_interleave(each)
    before = prompt_mask.repeat_interleave(each, dim=0)
    ahead = before.sum(dim=1, keepdim=True) + torch.arange(answer_ids.shape[1], device=model.device)
    rest = model(
        input_ids=answer_ids, attention_mask=torch.cat([before, answer_mask], dim=1), position_ids=ahead, past_key_values=cache
    ).logits[:, :-1]
    likelihood = _log_likelihoods(torch.cat([first, rest], dim=1), answer_ids, answer_mask)
    lengths = [len(choice) for row in choices for choice in row]
    flat = [value / length for value, length in zip(likelihood.sum(dim=1).tolist(), lengths, strict=True)]
    return [flat[at : at + each] for at in range(0, len(flat), each)]


def text_losses(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[tuple[float, int]]:
    """Return of each text its loss in nats, summed over all tokens but the first, and how many these are."""
    import torch

    losses: list[tuple[float, int]] = []
    with torch.inference_mode():
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            ids, mask = _padded([tokenizer(text)["input_ids"] for text in texts[start : start + TEXTS_AT_ONCE]], model.device, left=False)
            logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
            likelihood = _log_likelihoods(logits, ids[:, 1:], mask[:, 1:])
            losses += [(-float(row.sum()), int(kept.sum())) for row, kept in zip(likelihood, mask[:, 1:], strict=True)]
    return losses


def _log_likelihoods(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Return ``(batch, seq)`` log-likelihoods of the given tokens, 0 at padding; ``logits`` are ``(batch, seq, vocabulary)``."""
    import torch

    chosen = torch.log_softmax(logits.float(), dim=-1).gather(-1, ids[:, :, None])[:, :, 0]
    return chosen * mask


def _padded(rows: Sequence[Sequence[int]], device: object, *, left: bool) -> tuple[Tensor, Tensor]:
    """Return token ids and mask, each ``(rows, longest)``; the id that stands for padding does not matter, nothing attends to it."""
    import torch

    longest = max(len(row) for row in rows)

    def pad(row: Sequence[int], fill: Sequence[int]) -> list[int]:
        padding = [0] * (longest - len(row))
        return [*padding, *fill] if left else [*fill, *padding]

    ids = torch.tensor([pad(row, row) for row in rows], device=device)
    return ids, torch.tensor([pad(row, [1] * len(row)) for row in rows], device=device)
