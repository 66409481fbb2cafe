"""The prompt-only ladder: what the base model can do when it is only asked well. A candidate must beat the best rung."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from prooftune.data.lines import read_lines
from prooftune.evaluation.demonstrations import choose_demonstrations
from prooftune.evaluation.scoring import evaluate, figures, open_contest
from prooftune.models.loading import load_base, load_tokenizer
from prooftune.spec import Baseline, Task
from prooftune.training.encoding import prompt_ids, with_system
from prooftune.types import Example, Message, Progress, Report, no_report

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def run_baselines(
    train: Path,
    holdout: Path,
    holdout_sha256: str,
    model_folder: Path,
    task: Task,
    baseline: Baseline,
    out: Path,
    report: Report = no_report,
    *,
    trust_remote_code: bool = False,
) -> dict[str, object]:
    """Let the base model answer the holdout once per rung; return each rung's figures.

    Writes ``RUNG.predictions.jsonl``, ``RUNG.evaluation.json`` and ``RUNG.prompt.json``, the messages that stand before every question.
    Demonstrations come from ``train`` alone.

    Raises:
        IntegrityError: the holdout is not the one that was sealed.
        DataError: the holdout is empty, or a prompt does not fit into the model's context.
        ModelUnavailable: the model cannot be loaded safely.
    """
    examples = list(read_lines(train, Example))
    tokenizer = load_tokenizer(model_folder, trust_remote_code=trust_remote_code)
    contest = open_contest(examples, holdout, holdout_sha256, task, tokenizer)
    model = load_base(model_folder, trust_remote_code=trust_remote_code)
    system = task.system if baseline.system is None else baseline.system
    results: dict[str, object] = {}
    for position, rung in enumerate(baseline.ladder):
        shown = _demonstrations(examples, baseline.shots, system, model, tokenizer) if rung == "few_shot" else ()
        _write_prompt(out / f"{rung}.prompt.json", system, shown)
        prompt_of = partial(ask, system=system, demonstrations=shown)
        part = _part_of(report, position, len(baseline.ladder))
        evaluation = evaluate(rung, _description(system, shown, tokenizer), prompt_of, contest, model, tokenizer, out, part)
        results[rung] = figures(evaluation)
    return results


def ask(example: Example, system: str, demonstrations: Sequence[Example] = ()) -> tuple[Message, ...]:
    """Return the messages that put an example's question: system message (its own, if it brings one), demonstrations, then its prompt."""
    prompt = with_system(example.prompt, system)
    head = 1 if prompt and prompt[0].role == "system" else 0
    return (*prompt[:head], *_turns(demonstrations), *prompt[head:])


def _part_of(report: Report, position: int, parts: int) -> Report:
    """Return a report for one of several equal parts of the work."""

    def report_part(progress: Progress) -> None:
        done, total = progress.done + position * progress.total, progress.total * parts
        report(progress.model_copy(update={"done": done, "total": total}))

    return report_part


def _turns(demonstrations: Sequence[Example]) -> list[Message]:
    return [message for example in demonstrations for message in example.messages if message.role != "system"]


def _demonstrations(
    train: Sequence[Example], shots: int, system: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[Example, ...]:
    """Return the demonstrations, without the last ones where they would fill more than half of the model's context."""
    chosen = choose_demonstrations(train, shots)
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    while chosen and context is not None and _shared_tokens(system, chosen, tokenizer) > context // 2:
        chosen.pop()
    return tuple(chosen)


def _shared_tokens(system: str, demonstrations: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> int:
    return len(prompt_ids(with_system([*_turns(demonstrations), Message(role="user", content="")], system), tokenizer))


def _description(system: str, demonstrations: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> str:
    plural = "" if len(demonstrations) == 1 else "s"
    shown = f"{len(demonstrations)} demonstration{plural} from the training split" if demonstrations else "no demonstrations"
    tokens = _shared_tokens(system, demonstrations, tokenizer)
    return f"{'system message' if system else 'no system message'}, {shown}, {tokens} tokens around each question"


def _write_prompt(path: Path, system: str, demonstrations: Sequence[Example]) -> None:
    messages = with_system(_turns(demonstrations), system)
    text = json.dumps([message.model_dump() for message in messages], ensure_ascii=False, indent=1)
    path.write_text(f"{text}\n", encoding="utf-8")
