"""The candidate against the champion in use, on the holdout that the champion was promoted on and on the new one.

Beating the best prompt is not enough where a tuned model is in use already. On the new holdout alone a challenger could win by having
forgotten what the old one asked; on the old one alone, by luck of the draw. An example that either of the two was trained on or had its
checkpoint chosen by, or that is a near-duplicate of one, proves nothing and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from prooftune.data.duplicates import find_clusters
from prooftune.data.lines import read_lines, write_lines
from prooftune.data.splitting import verify_seal
from prooftune.evaluation.answers.answering import LocalAnswerer
from prooftune.evaluation.champion_files import UNUSABLE, ChampionFiles, champion_files
from prooftune.evaluation.gate.comparison import compare, pair_up
from prooftune.evaluation.metrics import score
from prooftune.evaluation.scoring import evaluate, open_unsealed_contest
from prooftune.evidence import Champion, Rival
from prooftune.models.loading import Kind, load_candidate, load_tokenizer
from prooftune.spec import RunSpec, Task
from prooftune.storage.objects import ObjectStore
from prooftune.training.encoding import with_system
from prooftune.types import Example, Frozen, Message, Prediction, Report, no_report

FILE = "champion.json"
FOLDER = "champion"
"""Answers that were asked for here: ``champion_new`` and ``candidate_old``, with their evaluations."""
Which = Literal["old", "new"]


class Conversation(Frozen):
    """A line of ``train.openai.jsonl`` or ``validation.openai.jsonl``."""

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class _Contender:
    """A tuned model as it is asked: with the system message it was trained with."""

    name: str
    weights: Path
    base: Path
    kind: Kind
    system: str
    trust_remote_code: bool


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is the same for both contenders."""

    train: tuple[Example, ...]
    """The candidate's, for the length of an answer and the metrics that suit it."""
    task: Task
    out: Path
    report: Report


def not_compared(champion: Champion, out: Path) -> dict[str, Any]:
    """Write a ``champion.json`` without comparisons: there is no champion yet, or it cannot be met, and why."""
    return _write(champion, out)


def evaluate_against_champion(
    store: ObjectStore,
    champion: str,
    train: Path,
    validation: Path,
    holdout: Path,
    holdout_sha256: str,
    answers: Path,
    model_folder: Path,
    weights: Path,
    spec: RunSpec,
    out: Path,
    report: Report = no_report,
) -> dict[str, Any]:
    """Compare the candidate with the champion on both holdouts, or once where they are the same, and return the figures.

    Writes ``champion.json`` and, below ``champion/``, the answers that were asked for. What each answered to its own holdout is taken from
    ``answers`` and from the champion's published run. A holdout without an example that the metric scores and that is new to both gives no
    comparison, and its answers are an empty file.

    A champion that cannot be used ends in a ``reason`` instead of comparisons: by now the training is paid for.

    Raises:
        IntegrityError: the candidate's holdout is not the one that was sealed.
        TransientError: the store or the hub cannot be reached.
    """
    try:
        rival = champion_files(store, champion)
        theirs = [prediction.model_copy(update={"scores": {}}) for prediction in read_lines(rival.predictions, Prediction)]
    except UNUSABLE as error:
        return _write(Champion(run_id=champion, reason=str(error)), out)
    ours = list(read_lines(answers, Prediction))
    if rival.holdout_sha256 == holdout_sha256:
        same = compared("new", holdout_sha256, theirs, ours, spec, seen=0)
        return _write(Champion(run_id=champion, rivals=tuple(same), same_holdout=True), out)
    asked = _Asked(tuple(read_lines(train, Example)), spec.task, out / FOLDER, report)
    asked.out.mkdir(exist_ok=True)
    known = [*_texts_of(rival.train, Conversation), *(_texts_of(rival.validation, Conversation) if rival.validation else [])]
    champions, seen_by_champion = _answers(_champion(rival), asked, holdout, holdout_sha256, known)
    known = [*_texts_of(train, Example), *_texts_of(validation, Example)]
    candidates, seen_by_candidate = _answers(_candidate(spec, model_folder, weights), asked, rival.holdout, rival.holdout_sha256, known)
    rivals = [
        *compared("old", rival.holdout_sha256, theirs, candidates, spec, seen_by_candidate),
        *compared("new", holdout_sha256, champions, ours, spec, seen_by_champion),
    ]
    return _write(Champion(run_id=champion, rivals=tuple(rivals)), out)


def compared(
    which: Which, sha256: str, champion: Sequence[Prediction], candidate: Sequence[Prediction], spec: RunSpec, seen: int
) -> list[Rival]:
    """Return the paired comparison on the examples that both answered, or nothing where there is none."""
    answered = {prediction.example_id for prediction in champion} & {prediction.example_id for prediction in candidate}
    if not answered:
        return []
    theirs, ours = ([one for one in side if one.example_id in answered] for side in (champion, candidate))
    metric = spec.task.metric
    found = compare(metric, pair_up("the champion", theirs, ours), spec.task, alpha=spec.gate.alpha, seed=spec.data.split.seed)
    return [
        Rival(
            holdout=which,
            holdout_sha256=sha256,
            metric=metric,
            champion_value=found.baseline_value,
            candidate_value=found.candidate_value,
            difference=found.difference,
            ci_low=found.ci_low,
            ci_high=found.ci_high,
            p_value=found.p_value,
            n=found.n,
            seen=seen,
        )
    ]


def _answers(contender: _Contender, asked: _Asked, holdout: Path, sha256: str, learnt: Sequence[str]) -> tuple[list[Prediction], int]:
    """Return the contender's answers to what is new to it, none where the metric scores none of it, and how many examples are not new."""
    verify_seal(holdout, sha256)
    examples = list(read_lines(holdout, Example))
    fresh = _unseen(examples, learnt)
    seen, metric, written = len(examples) - len(fresh), asked.task.metric, asked.out / f"{contender.name}.predictions.jsonl"
    if all(score(metric, example.target, example.target, asked.task) is None for example in fresh):
        write_lines(written, [])
        return [], seen
    tokenizer = load_tokenizer(contender.base, trust_remote_code=contender.trust_remote_code)
    contest = replace(open_unsealed_contest(asked.train, fresh, asked.task, tokenizer), holdout_sha256=sha256)
    model = load_candidate(contender.base, contender.weights, kind=contender.kind, trust_remote_code=contender.trust_remote_code)
    evaluate(
        contender.name,
        f"{contender.name.replace('_', ' on the ')} holdout, {len(fresh)} examples that are new to it",
        lambda example: with_system(example.prompt, contender.system),
        contest,
        LocalAnswerer(model, tokenizer),
        asked.out,
        asked.report,
    )
    return list(read_lines(written, Prediction)), seen


def _unseen(examples: Sequence[Example], learnt: Sequence[str]) -> tuple[Example, ...]:
    """Leave out what was learnt, or is a near-duplicate of it, by the rule that keeps splits apart."""
    groups = find_clusters([*learnt, *(_user_text(example.prompt) for example in examples)]).groups
    known = set(groups[: len(learnt)]) - {""}
    return tuple(example for example, group in zip(examples, groups[len(learnt) :], strict=True) if group not in known)


def _texts_of(file: Path, kind: type[Example] | type[Conversation]) -> list[str]:
    return [_user_text(row.messages) for row in read_lines(file, kind)]


def _user_text(messages: Sequence[Message]) -> str:
    return "\n".join(message.content for message in messages if message.role == "user")


def _champion(rival: ChampionFiles) -> _Contender:
    backend = rival.spec.backend
    return _Contender("champion_new", rival.weights, rival.base, backend.method.kind, rival.spec.task.system, backend.trust_remote_code)


def _candidate(spec: RunSpec, base: Path, weights: Path) -> _Contender:
    return _Contender("candidate_old", weights, base, spec.backend.method.kind, spec.task.system, spec.backend.trust_remote_code)


def _write(champion: Champion, out: Path) -> dict[str, Any]:
    (out / FILE).write_text(champion.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return champion.model_dump(mode="json")
