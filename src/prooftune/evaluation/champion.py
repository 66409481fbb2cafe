"""The candidate against the champion in use, on the holdout that the champion was promoted on and on the new one.

Beating the best prompt is not enough where a tuned model is in use already. On the new holdout alone a challenger could win by having
forgotten what the old one asked; on the old one alone, by luck of the draw. An example that either of the two was trained on, or that is a
near-duplicate of one, proves nothing and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from prooftune.data.duplicates import find_clusters
from prooftune.data.lines import read_lines
from prooftune.errors import DataError, IntegrityError
from prooftune.evaluation.answers.answering import LocalAnswerer
from prooftune.evaluation.gate.comparison import compare, pair_up
from prooftune.evaluation.metrics import score
from prooftune.evaluation.scoring import evaluate, open_contest
from prooftune.evidence import Champion, Rival
from prooftune.models.loading import Kind, load_candidate, load_tokenizer
from prooftune.models.resolve import resolve_model
from prooftune.spec import RunSpec, Task, parse_spec
from prooftune.storage.manifest import Manifest, read_manifest
from prooftune.storage.objects import ObjectStore
from prooftune.training.encoding import with_system
from prooftune.types import Example, Frozen, Message, Prediction, Report, no_report

FILE = "champion.json"
FOLDER = "champion"
"""Answers that were asked for here: ``champion_new`` and ``candidate_old``, with their evaluations."""
Which = Literal["old", "new"]


@dataclass(frozen=True, slots=True)
class ChampionFiles:
    """What the champion's published run has kept of it."""

    run_id: str
    spec: RunSpec
    weights: Path
    """Folder of its adapter, or of its whole model after a ``full`` training."""
    base: Path
    """Folder of its base model on this machine, with the tokenizer; ``weights`` after a ``full`` training."""
    train: Path
    """Its training examples as conversations, ``train.openai.jsonl``."""
    holdout: Path
    holdout_sha256: str
    predictions: Path
    """Its answers to its own holdout."""


class Conversation(Frozen):
    """A line of ``train.openai.jsonl``."""

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


def champion_files(store: ObjectStore, run_id: str) -> ChampionFiles:
    """Fetch what a comparison with a published champion needs.

    Raises:
        NoSuchObject: the run is no longer published.
        IntegrityError: a file was changed, or the base model is not the one that the champion was tuned from.
        DataError: the run kept too little of the champion.
        ModelUnavailable: its base model cannot be found.
    """
    manifest = read_manifest(store, run_id)
    weights = [name for name in manifest.files if name.startswith(("adapter/", "model/"))]
    needed = ("spec.yaml", "train.openai.jsonl", "holdout.jsonl", "candidate.predictions.jsonl")
    if lost := [*(name for name in needed if name not in manifest.files), *([] if weights else ["adapter/"])]:
        raise DataError(f"the champion {run_id} has published no {', '.join(lost)}; `prooftune rollback` puts another run in use")
    paths = {name: store.fetch(manifest.files[name]) for name in (*needed, *weights)}
    spec = parse_spec(yaml.safe_load(paths["spec.yaml"].read_text(encoding="utf-8")), where=f"spec.yaml of {run_id}")
    folder = paths[weights[0]].parents[weights[0].count("/") - 1]
    return ChampionFiles(
        run_id=run_id,
        spec=spec,
        weights=folder,
        base=folder if spec.backend.method.kind == "full" else _base_of(spec, manifest),
        train=paths["train.openai.jsonl"],
        holdout=paths["holdout.jsonl"],
        holdout_sha256=manifest.files["holdout.jsonl"].sha256,
        predictions=paths["candidate.predictions.jsonl"],
    )


def no_champion(out: Path) -> dict[str, Any]:
    """Write a ``champion.json`` that says that the task has no champion yet."""
    return _write(Champion(run_id=None), out)


def evaluate_against_champion(
    store: ObjectStore,
    champion: str,
    train: Path,
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
    ``answers`` and from the champion's published run. A holdout without an example that the metric scores and that neither was trained on
    gives no comparison.

    Raises:
        IntegrityError, DataError, ModelUnavailable: as ``champion_files``; or a holdout is not the one that was sealed.
    """
    rival = champion_files(store, champion)
    theirs = [prediction.model_copy(update={"scores": {}}) for prediction in read_lines(rival.predictions, Prediction)]
    ours = list(read_lines(answers, Prediction))
    if rival.holdout_sha256 == holdout_sha256:
        same = compared("new", holdout_sha256, theirs, ours, spec, seen=0)
        return _write(Champion(run_id=champion, rivals=tuple(same)), out)
    asked = _Asked(tuple(read_lines(train, Example)), spec.task, out / FOLDER, report)
    asked.out.mkdir(exist_ok=True)
    champions, seen_by_champion = _answers(_champion(rival), asked, holdout, holdout_sha256, _texts_of(rival.train, Conversation))
    candidates, seen_by_candidate = _answers(
        _candidate(spec, model_folder, weights), asked, rival.holdout, rival.holdout_sha256, _texts_of(train, Example)
    )
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
    """Return the contender's answers to what is new to it and can be scored, and how many examples are not new to it."""
    tokenizer = load_tokenizer(contender.base, trust_remote_code=contender.trust_remote_code)
    contest = open_contest(asked.train, holdout, sha256, asked.task, tokenizer)
    fresh = _unseen(contest.holdout, learnt)
    seen = len(contest.holdout) - len(fresh)
    metric = asked.task.metric
    if all(score(metric, example.target, example.target, asked.task) is None for example in fresh):
        return [], seen
    model = load_candidate(contender.base, contender.weights, kind=contender.kind, trust_remote_code=contender.trust_remote_code)
    evaluate(
        contender.name,
        f"{contender.name.replace('_', ' on the ')} holdout, {len(fresh)} examples that it was not trained on",
        lambda example: with_system(example.prompt, contender.system),
        replace(contest, holdout=fresh),
        LocalAnswerer(model, tokenizer),
        asked.out,
        asked.report,
    )
    return list(read_lines(asked.out / f"{contender.name}.predictions.jsonl", Prediction)), seen


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


def _base_of(spec: RunSpec, manifest: Manifest) -> Path:
    """Return the folder of the base model that the champion was tuned from, and of no other that goes by its name now."""
    backend, lineage = spec.backend, manifest.facts.get("lineage")
    found = resolve_model(backend.model, backend.revision, backend.trust_remote_code)
    known = lineage["model"]["sha256"] if isinstance(lineage, dict) else found.sha256
    if found.sha256 != known:
        raise IntegrityError(
            f"the champion {manifest.run_id} was tuned from {backend.model} with SHA-256 {known[:16]}…, {found.path} now has "
            f"{found.sha256[:16]}…. Bring that model back, or put another run in use with `prooftune promote`"
        )
    return found.path


def _write(champion: Champion, out: Path) -> dict[str, Any]:
    (out / FILE).write_text(champion.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return champion.model_dump(mode="json")
