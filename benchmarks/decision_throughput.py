"""Evaluation throughput on banking77: our answers against the obvious loop, ``model.generate`` with one prompt at a time.

    python benchmarks/decision_throughput.py [FOLDER] [--prompts N] [--rounds N] [--write]

Both sides answer the same few-shot prompts (16 demonstrations) with the same model in the same process, in alternating rounds after one
that is not counted, and must give the same answers. Skipped where the data set is not there.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from banking77 import FOLDER, Splits, circumstances, missing, split_data, write_result

from prooftune.data.counting import TokenizerCounter
from prooftune.data.lines import read_lines
from prooftune.evaluation.answers.answering import LocalAnswerer
from prooftune.evaluation.ladder.demonstrations import choose_demonstrations
from prooftune.evaluation.ladder.prompts import Messages, ask
from prooftune.evaluation.scoring import open_contest
from prooftune.models.loading import load_base, load_tokenizer
from prooftune.models.resolve import resolve_model
from prooftune.types import Example

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NAME = "decision-throughput"
GOAL = 8.0
"""Times the loop's prompts per second, for the few-shot rung."""
PROMPTS, ROUNDS = 32, 3
WARM_UP = 4
"""Prompts of the round that is not counted."""


def main() -> None:
    """Run, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER, help="folder with train.csv and test.csv")
    parser.add_argument("--prompts", type=int, default=PROMPTS, help="held-out questions to answer")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="alternating rounds")
    parser.add_argument("--write", action="store_true", help=f"also write results/{NAME}.json")
    arguments = parser.parse_args()
    figures = run(arguments.folder, prompts=arguments.prompts, rounds=arguments.rounds)
    print(table(figures))
    if arguments.write and "skipped" not in figures:
        write_result(NAME, figures)
    sys.exit(0 if "skipped" in figures or figures["same_answers"] == figures["prompts"] else 1)


def run(folder: Path = FOLDER, *, prompts: int = PROMPTS, rounds: int = ROUNDS) -> dict[str, Any]:
    """Return prompts per second of both sides, their ratio and latencies, or why the benchmark was skipped."""
    if why := missing(folder):
        return {"skipped": why}
    with tempfile.TemporaryDirectory() as out:
        return circumstances() | measure(split_data(folder, Path(out)), prompts, rounds)


def measure(splits: Splits, count: int, rounds: int) -> dict[str, Any]:
    """Let both sides answer the first ``count`` held-out questions, ``rounds`` times each."""
    found = resolve_model(splits.spec.backend.model)
    tokenizer, model = load_tokenizer(found.path), load_base(found.path)
    train = list(read_lines(splits.train, Example))
    contest = open_contest(train, splits.holdout, splits.holdout_sha256, splits.spec.task, TokenizerCounter(tokenizer))
    shown, system = choose_demonstrations(train, splits.spec.baseline.shots), splits.spec.baseline.system or ""
    prompts = [ask(example, system, shown) for example in contest.holdout[:count]]
    answerer, limit = LocalAnswerer(model, tokenizer), contest.max_new_tokens
    loop(model, tokenizer, prompts[:WARM_UP], limit)
    answerer.answer(prompts[:WARM_UP], max_new_tokens=limit)
    ours, theirs, cpu = [], [], []
    for _ in range(rounds):
        begun = time.process_time()
        texts, seconds = loop(model, tokenizer, prompts, limit)
        theirs.append(seconds)
        started, between = time.perf_counter(), time.process_time()
        answers = answerer.answer(prompts, max_new_tokens=limit)
        ours.append(time.perf_counter() - started)
        cpu.append((between - begun) / (time.process_time() - between))
    latencies = sorted(answer.latency_s for answer in answers if answer.latency_s is not None)
    return {
        "model": found.name,
        "demonstrations": len(shown),
        "prompts": len(prompts),
        "prompt_tokens_mean": round(sum(answer.prompt_tokens for answer in answers) / len(answers), 1),
        "answer_tokens_mean": round(sum(answer.answer_tokens for answer in answers) / len(answers), 1),
        "same_answers": sum(answer.text == text for answer, text in zip(answers, texts, strict=True)),
        "batch_size": answerer.batch_size,
        "loop_seconds": [round(sum(seconds), 2) for seconds in theirs],
        "our_seconds": [round(seconds, 2) for seconds in ours],
        "loop_prompts_per_second": round(len(prompts) / median(map(sum, theirs)), 3),
        "our_prompts_per_second": round(len(prompts) / median(ours), 3),
        "ratio": round(median(sum(seconds) / our for seconds, our in zip(theirs, ours, strict=True)), 2),
        "ratio_of_cpu_seconds": round(median(cpu), 2),
        "goal": GOAL,
        "loop_latency_p50_s": round(median(second for seconds in theirs for second in seconds), 3),
        "our_latency_p50_s": round(median(latencies), 3),
        "our_latency_p95_s": round(latencies[int(0.95 * (len(latencies) - 1))], 3),
    }


def loop(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Messages], max_new_tokens: int
) -> tuple[list[str], list[float]]:
    """Answer one prompt after another, as a first script would; return the answers and each one's seconds."""
    texts, seconds = [], []
    for prompt in prompts:
        started = time.perf_counter()
        messages = [message.model_dump() for message in prompt]
        inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        output = model.generate(**inputs.to(model.device), max_new_tokens=max_new_tokens, do_sample=False)
        texts.append(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
        seconds.append(time.perf_counter() - started)
    return texts, seconds


def table(figures: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    if "skipped" in figures:
        return str(figures["skipped"])
    f = figures
    return "\n".join(
        [
            f"{f['date']}, {f['machine']}, torch {f['versions']['torch']}, {f['model']}",
            f"{f['prompts']} prompts of {f['prompt_tokens_mean']} tokens with {f['demonstrations']} demonstrations, medians of "
            f"{len(f['our_seconds'])} alternating rounds",
            "",
            "| | prompts/s | latency p50 s | p95 s |",
            "|---|---|---|---|",
            f"| one by one | {f['loop_prompts_per_second']:.2f} | {f['loop_latency_p50_s']:.2f} | |",
            f"| ours | {f['our_prompts_per_second']:.2f} | {f['our_latency_p50_s']:.2f} | {f['our_latency_p95_s']:.2f} |",
            "",
            f"{f['ratio']:.1f} times as many (goal: {f['goal']:g}), {f['ratio_of_cpu_seconds']:.1f} times by CPU seconds; "
            f"{f['same_answers']} of {f['prompts']} answers are the same",
        ]
    )


if __name__ == "__main__":
    main()
