"""The candidate against the champion in use, on the holdout that the champion was promoted on and on the new one.

Beating the best prompt is not enough where a tuned model is in use already. On the new holdout alone a challenger could win by having
forgotten what the old one asked; on the old one alone, by luck of the draw. An example that either of the two was trained on or had its
checkpoint chosen by, or that is a near-duplicate of one, proves nothing and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import RootModel

from prooftune.data.counting import Counter, TokenizerCounter
from prooftune.data.duplicates import find_clusters
from prooftune.data.lines import read_lines, write_lines
from prooftune.data.splitting import verify_seal
from prooftune.economics.managed import hosting_usd_per_hour
from prooftune.errors import EnvironmentLacks, SpecError, StoreUnavailable
from prooftune.evaluation.answers.managed import ManagedBase, tuned_answerer
from prooftune.evaluation.answers.subject import open_candidate
from prooftune.evaluation.candidate import Open
from prooftune.evaluation.champion_files import UNUSABLE, ChampionFiles, champion_files
from prooftune.evaluation.champion_rules import why_not_sent
from prooftune.evaluation.gate.comparison import compare, pair_up
from prooftune.evaluation.metrics import score
from prooftune.evaluation.scoring import evaluate, open_unsealed_contest
from prooftune.evidence import Champion, Rival
from prooftune.models.loading import load_tokenizer
from prooftune.spec import Data, RunSpec, Task
from prooftune.storage.objects import ObjectStore
from prooftune.training.encoding import with_system
from prooftune.types import Example, Frozen, Message, Prediction, Report, no_report

FILE = "champion.json"
FOLDER = "champion"
"""Answers that were asked for here: ``champion_new`` and ``candidate_old``, with their evaluations."""
Which = Literal["old", "new"]


class Conversation(Frozen):
    """A conversation, or the prompt of a preference pair."""

    messages: tuple[Message, ...]


class Pair(Frozen):
    """A preference pair as OpenAI takes it."""

    input: Conversation
    preferred_output: tuple[Message, ...]
    non_preferred_output: tuple[Message, ...]


class Learnt(RootModel[Conversation | Pair]):
    """A line of ``train.openai.jsonl`` or ``validation.openai.jsonl``."""

    @property
    def messages(self) -> tuple[Message, ...]:
        """What it was learnt in answer to, with or without the answer."""
        return self.root.messages if isinstance(self.root, Conversation) else self.root.input.messages

    @property
    def conversation(self) -> tuple[Message, ...]:
        """The prompt and the answer that was learnt."""
        pair = self.root
        return pair.messages if isinstance(pair, Conversation) else (*pair.input.messages, *pair.preferred_output)


@dataclass(frozen=True, slots=True)
class Contender:
    """A tuned model as it is asked: with the system message it was trained with."""

    name: str
    open: Open
    counter: Counter
    """Of its base model."""
    system: str


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
    candidate: Open,
    counter: Counter,
    spec: RunSpec,
    out: Path,
    report: Report = no_report,
) -> dict[str, Any]:
    """Compare the candidate with the champion on both holdouts, or once where they are the same, and return the figures.

    Writes ``champion.json`` and, below ``champion/``, the answers that were asked for. What each answered to its own holdout is taken from
    ``answers`` and from the champion's published run. A holdout without an example that the metric scores and that is new to both gives no
    comparison, and its answers are an empty file. ``candidate`` opens the candidate, ``counter`` is its base model's.

    A champion that cannot be used ends in a ``reason`` instead of comparisons: by now the training is paid for. So does one at a provider
    that no longer answers, or that the new holdout must not be sent to, and one whose holdout must not be sent to the candidate.

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
    if why := why_not_sent(rival.spec.data, rival.holdout, spec):
        return _write(Champion(run_id=champion, reason=f"the candidate may not be asked its holdout: {why}"), out)
    asked = _Asked(tuple(read_lines(train, Example)), spec.task, out / FOLDER, report)
    asked.out.mkdir(exist_ok=True)
    known = [*_texts_of(rival.train, Learnt), *(_texts_of(rival.validation, Learnt) if rival.validation else [])]
    try:
        contender = open_champion(rival, store, spec.data, holdout, asked.out)
        champions, seen_by_champion = _answers(contender, asked, holdout, holdout_sha256, known)
    except StoreUnavailable:
        raise
    except (SpecError, EnvironmentLacks) as error:
        if rival.managed is None:
            raise
        return _write(Champion(run_id=champion, reason=f"{rival.managed.model} at {rival.managed.provider} does not answer: {error}"), out)
    known = [*_texts_of(train, Example), *_texts_of(validation, Example)]
    challenger = Contender("candidate_old", candidate, counter, spec.task.system)
    candidates, seen_by_candidate = _answers(challenger, asked, rival.holdout, rival.holdout_sha256, known)
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


def _answers(contender: Contender, asked: _Asked, holdout: Path, sha256: str, learnt: Sequence[str]) -> tuple[list[Prediction], int]:
    """Return the contender's answers to what is new to it, none where the metric scores none of it, and how many examples are not new."""
    verify_seal(holdout, sha256)
    examples = list(read_lines(holdout, Example))
    fresh = _unseen(examples, learnt)
    seen, metric, written = len(examples) - len(fresh), asked.task.metric, asked.out / f"{contender.name}.predictions.jsonl"
    if all(score(metric, example.target, example.target, asked.task) is None for example in fresh):
        write_lines(written, [])
        return [], seen
    contest = replace(open_unsealed_contest(asked.train, fresh, asked.task, contender.counter), holdout_sha256=sha256)
    with contender.open() as answerer:
        evaluate(
            contender.name,
            f"{contender.name.replace('_', ' on the ')} holdout, {len(fresh)} examples that are new to it",
            lambda example: with_system(example.prompt, contender.system),
            contest,
            answerer,
            asked.out,
            asked.report,
        )
    return list(read_lines(written, Prediction)), seen


def _unseen(examples: Sequence[Example], learnt: Sequence[str]) -> tuple[Example, ...]:
    """Leave out what was learnt, or is a near-duplicate of it, by the rule that keeps splits apart."""
    groups = find_clusters([*learnt, *(_user_text(example.prompt) for example in examples)]).groups
    known = set(groups[: len(learnt)]) - {""}
    return tuple(example for example, group in zip(examples, groups[len(learnt) :], strict=True) if group not in known)


def _texts_of(file: Path, kind: type[Example] | type[Learnt]) -> list[str]:
    return [_user_text(row.messages) for row in read_lines(file, kind)]


def _user_text(messages: Sequence[Message]) -> str:
    return "\n".join(message.content for message in messages if message.role == "user")


def open_champion(rival: ChampionFiles, store: ObjectStore, rules: Data, holdout: Path, out: Path, name: str = "champion_new") -> Contender:
    """Return the champion on this machine or at its provider, to be asked a holdout that is under ``rules``.

    ``out`` keeps a provider's answers as they come.

    Raises:
        SpecError: data must not go to its provider.
        EnvironmentLacks: its provider's key or SDK is not there.
    """
    backend, system = rival.spec.backend, rival.spec.task.system
    if rival.managed is not None:
        if why := why_not_sent(rules, holdout, rival.spec):
            raise SpecError(why)
        base = ManagedBase.of(rival.spec, {}, _usd_per_hour(rival.spec))
        return Contender(name, partial(tuned_answerer, base, rival.managed, store, out / f"{name}.answers.jsonl"), base.counter, system)
    tokenizer = load_tokenizer(rival.base, trust_remote_code=backend.trust_remote_code)
    opened = partial(
        open_candidate, rival.base, rival.weights, tokenizer, kind=backend.method.kind, trust_remote_code=backend.trust_remote_code
    )
    return Contender(name, lambda: nullcontext(opened()), TokenizerCounter(tokenizer), system)


def _usd_per_hour(spec: RunSpec) -> float | None:
    """Return what the deployment of a managed champion costs; None = nothing by the hour, or the price list of its run is not here."""
    try:
        return hosting_usd_per_hour(spec)
    except SpecError:
        return None


def _write(champion: Champion, out: Path) -> dict[str, Any]:
    (out / FILE).write_text(champion.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return champion.model_dump(mode="json")
