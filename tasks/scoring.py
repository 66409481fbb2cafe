"""Score the candidate on the holdout that the baselines were scored on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task

from prooftune.evaluation.answers.managed import ManagedBase, tuned_answerer
from prooftune.providers.collection import MANAGED, ManagedModel
from prooftune.report.wording import interval, name_of
from prooftune.spec import Gate, Method, Store, Task
from prooftune.types import Evaluation, ModelRef, Prediction, StageOutput
from tasks.artifacts import show_table
from tasks.models import local_folder
from tasks.policies import policy
from tasks.progress import report_to_ui
from tasks.stage import Stage

if TYPE_CHECKING:
    from prooftune.data.counting import Counter
    from prooftune.evaluation.answers.answering import Answerer
    from prooftune.evaluation.candidate import Open

EVALUATION, PREDICTIONS = ".evaluation.json", ".predictions.jsonl"
ANSWERS = "answers.jsonl"
"""What the name of a file with the answers of an API ends in."""


@task(**policy("evaluate", 3, 12 * 60))
def evaluate(
    store: Store,
    options: Task,
    method: Method,
    looks: Gate | None,
    seed: int,
    model: ModelRef | ManagedBase,
    splits: StageOutput,
    trained: StageOutput,
    baselines: StageOutput | None,
) -> StageOutput:
    """Score the candidate on the sealed holdout; hands on its predictions and evaluation.

    ``looks`` and ``baselines`` are given where more than one checkpoint may be tried; ``figures["weights"]`` names the one that was taken.
    A candidate at a provider is deployed for it where it has to be, and none of its answers is paid for twice.
    """
    from prooftune.evaluation.candidate import evaluate_candidate

    stage = Stage(store)
    train, holdout = stage.path(splits, "train.jsonl"), stage.path(splits, "holdout.jsonl")
    folders = ["adapter" if isinstance(model, ModelRef) and method.kind != "full" else "model"]
    if looks is not None:
        folders += [f"further/{step}" for step in trained.figures["further_steps"]]
    rungs = read_rungs(stage, baselines) if baselines is not None else None

    def work(out: Path) -> dict[str, Any]:
        tuned = tuned_models(stage, model, method, trained, folders, out / f"candidate.{ANSWERS}")
        figures = evaluate_candidate(
            train,
            holdout,
            str(splits.figures["holdout_sha256"]),
            tuned.candidates,
            tuned.counter,
            tuned.how,
            options,
            out,
            report_to_ui("evaluate"),
            baselines=rungs,
            gate=looks,
            seed=seed,
        )
        return {**figures, "weights": folders[int(figures.get("look", 1)) - 1]}

    output = stage.perform(work, resumable=isinstance(model, ManagedBase))
    show_evaluations("evaluate", stage, output)
    return output


@dataclass(frozen=True, slots=True)
class Tuned:
    """What training made of a base model, ready to be opened."""

    candidates: tuple[Open, ...]
    counter: Counter
    """The base model's."""
    how: str
    """How it was tuned, in words."""


def tuned_models(
    stage: Stage, model: ModelRef | ManagedBase, method: Method, trained: StageOutput, folders: Sequence[str], kept: Path
) -> Tuned:
    """Return the tuned models in ``folders`` of the training stage: weights for this machine, or the name of a model at its provider.

    Answers of one at a provider are kept in the file ``kept`` as they come.
    """
    if isinstance(model, ManagedBase):
        if list(folders) != ["model"]:
            raise ValueError(f"{model.provider} hands on one tuned model; there are no checkpoints {', '.join(folders[1:])} to try")
        return Tuned((partial(open_tuned, stage, model, trained, kept),), model.counter, f"{model.provider} {model.model}")
    from prooftune.data.counting import TokenizerCounter
    from prooftune.evaluation.answers.subject import open_candidate
    from prooftune.models.loading import load_tokenizer

    base, trust = local_folder(model).path, model.trust_remote_code
    tokenizer = load_tokenizer(base, trust_remote_code=trust)

    @contextmanager
    def opened(weights: Path) -> Iterator[Answerer]:
        yield open_candidate(base, weights, tokenizer, kind=method.kind, trust_remote_code=trust)

    candidates = tuple(partial(opened, stage.folder(trained, folder)) for folder in folders)
    return Tuned(candidates, TokenizerCounter(tokenizer), method.kind)


def open_tuned(stage: Stage, base: ManagedBase, trained: StageOutput, kept: Path) -> AbstractContextManager[Answerer]:
    """Open the tuned model that a managed training handed on; its answers are kept in the file ``kept`` as they come."""
    tuned = ManagedModel.model_validate_json(stage.path(trained, f"model/{MANAGED}").read_bytes())
    return tuned_answerer(base, tuned, stage.objects, kept)


def read_evaluations(stage: Stage, output: StageOutput) -> tuple[Evaluation, ...]:
    """Return the evaluations that a stage handed on, rungs in the order of the ladder."""
    return tuple(
        Evaluation.model_validate_json(stage.path(output, f"{name}{EVALUATION}").read_bytes()) for name in contestants(output, EVALUATION)
    )


def contestants(output: StageOutput, suffix: str) -> list[str]:
    """Return whose files a stage handed on, rungs in the order of the ladder: of two that are equally good the earlier one counts."""
    names = [name.removesuffix(suffix) for name in output.artifacts if name.endswith(suffix) and "/" not in name]
    ladder = list(output.figures)  # a rung's figures stand where the rung stood
    return sorted(names, key=lambda name: ladder.index(name) if name in ladder else len(ladder))


def read_predictions(stage: Stage, output: StageOutput, name: str) -> list[Prediction]:
    """Return a contestant's answers, in holdout order."""
    from prooftune.data.lines import read_lines

    return list(read_lines(stage.path(output, name), Prediction))


def read_rungs(stage: Stage, baselines: StageOutput) -> dict[str, list[Prediction]]:
    """Return each rung's answers."""
    return {name: read_predictions(stage, baselines, f"{name}{PREDICTIONS}") for name in contestants(baselines, PREDICTIONS)}


def best_rung(stage: Stage, baselines: StageOutput, metric: str) -> str:
    """Return the rung with the best value of the metric: the one that the candidate must beat."""
    return max(read_evaluations(stage, baselines), key=lambda evaluation: evaluation.metrics[metric].value).name


def show_evaluations(key: str, stage: Stage, output: StageOutput) -> None:
    """Show a table of contestants in the UI."""
    rows = []
    for evaluation in read_evaluations(stage, output):
        row: dict[str, Any] = {"contestant": name_of(evaluation.name)}
        for name, metric in evaluation.metrics.items():
            row[name] = f"{metric.value:.3f} ({interval(metric)}), n = {metric.n:,}"
        latency = "not measured" if evaluation.latency_p50_s is None else round(evaluation.latency_p50_s, 2)
        rows.append(row | {"answer tokens p50": evaluation.answer_tokens_p50, "latency p50 (s)": latency})
    show_table(rows, key=key, description="All answered the same sealed holdout; intervals are 95 %.")
