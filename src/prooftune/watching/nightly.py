"""Asks the champion its own sealed holdout again, and compares with what it answered when it was promoted.

A model on this machine gives the same answers unless something under it changed: a library, a driver, a file. One at a provider may be
changed by the provider.
"""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from pydantic import AwareDatetime

from prooftune.data.lines import read_lines
from prooftune.environment import library_versions
from prooftune.errors import DataError
from prooftune.evaluation.champion import open_champion
from prooftune.evaluation.champion_files import ChampionFiles, champion_files
from prooftune.evaluation.gate.comparison import compare, pair_up
from prooftune.evaluation.scoring import evaluate, open_contest
from prooftune.spec import RunSpec
from prooftune.storage.objects import AlreadyThere, NoSuchObject, ObjectStore
from prooftune.storage.registry import read_registry
from prooftune.training.encoding import with_system
from prooftune.types import Evaluation, Frozen, Metric, Prediction, Report, no_report
from prooftune.watching.looks import FOLDER, published_metric, trained_on
from prooftune.watching.nightly_bill import NAME, nightly_bill


class Reevaluation(Frozen):
    """``watch/TASK/evaluations/DATE.json``: how the champion did on its holdout that day."""

    champion: str
    at: AwareDatetime
    metric: str
    """The task's."""
    value: float
    published: Metric
    """What its run published."""
    difference: float
    """Today minus then, on the examples that are scored."""
    ci_low: float
    ci_high: float
    p_value: float
    """Paired, two-sided: exact McNemar for right or wrong, else the permutation test."""
    n: int
    changed: int
    """Answers that are other ones than then."""
    evaluation: Evaluation
    libraries: dict[str, str]
    """Versions; what they were then stands in the run's lineage."""
    usd: float | None = None
    """What asking cost, all tries of the day; None = the champion is on this machine."""


def evaluate_again(store: ObjectStore, spec: RunSpec, now: datetime, report: Report = no_report) -> Reevaluation | None:
    """Evaluate the champion of a task anew and store it; that of the same day and champion is returned as it is. None = no champion.

    What asking one at its provider may cost is held in the month of ``spec.budget`` before, and settled after, also where asking failed.

    Raises:
        BudgetExceeded: the month has no room for it; nothing was asked or deployed.
        NoSuchObject, IntegrityError, DataError, SpecError, ModelUnavailable: the champion cannot be opened any more.
        TransientError, EnvironmentLacks: it cannot be reached.
    """
    run_id = read_registry(store, spec.name)["champion"]
    if run_id is None:
        return None
    key = f"{FOLDER}{spec.name}/evaluations/{now:%Y-%m-%d}-{run_id}.json"
    if (done := _read(store, key)) is not None:
        return done
    out = store.work_dir() / key.removesuffix(".json")
    out.mkdir(parents=True, exist_ok=True)
    found = _evaluated(store, spec, champion_files(store, run_id), out, now, report)
    try:
        store.put(key, (found.model_dump_json(indent=1) + "\n").encode(), if_absent=True)
    except AlreadyThere:
        found = _read(store, key) or found
    shutil.rmtree(out)  # not before: a store that fails now must not let it be paid for again
    return found


def newest_evaluation(store: ObjectStore, task: str, run_id: str) -> Reevaluation | None:
    """Return the newest evaluation of a champion, or None."""
    keys = [key for key in store.list(f"{FOLDER}{task}/evaluations/") if key.endswith(f"-{run_id}.json")]
    return _read(store, max(keys)) if keys else None


def _read(store: ObjectStore, key: str) -> Reevaluation | None:
    try:
        return Reevaluation.model_validate_json(store.get(key))
    except NoSuchObject:
        return None


def _without_batch(rival: ChampionFiles) -> ChampionFiles:
    """Return the champion to be asked directly: a batch is known again by its questions, and would bring the answers of the last one."""
    provider = rival.spec.provider.model_copy(update={"batch": False})
    return replace(rival, spec=rival.spec.model_copy(update={"provider": provider}))


def _evaluated(store: ObjectStore, spec: RunSpec, rival: ChampionFiles, out: Path, now: datetime, report: Report) -> Reevaluation:
    """Ask every question; after a kill, answers of a provider that came are not asked for again."""
    task = rival.spec.task
    published = published_metric(store, rival.run_id, task.metric)
    if published is None:
        raise DataError(f"the champion {rival.run_id} has published no {task.metric} to compare with")
    contender = open_champion(_without_batch(rival), store, rival.spec.data, rival.holdout, out, NAME)
    contest = open_contest(trained_on(rival.train), rival.holdout, rival.holdout_sha256, task, contender.counter)
    bill = nightly_bill(store, spec, rival, now, out) if rival.managed else None
    with bill.held() if bill else nullcontext(), contender.open() as answerer:
        evaluation = evaluate(
            NAME,
            f"the champion {rival.run_id}, asked again",
            lambda example: with_system(example.prompt, contender.system),
            contest,
            answerer,
            out,
            report,
        )
    then = list(read_lines(rival.predictions, Prediction))
    today = list(read_lines(out / f"{NAME}.predictions.jsonl", Prediction))
    pairs = pair_up("the champion, when it was promoted,", then, today)
    against = compare(task.metric, pairs, task, alpha=rival.spec.gate.alpha, seed=rival.spec.data.split.seed)
    return Reevaluation(
        champion=rival.run_id,
        at=now,
        metric=task.metric,
        value=evaluation.metrics[task.metric].value,
        published=published,
        difference=against.difference,
        ci_low=against.ci_low,
        ci_high=against.ci_high,
        p_value=against.p_value,
        n=against.n,
        changed=sum(one.answer != other.answer for one, other in pairs),
        evaluation=evaluation,
        libraries=library_versions(),
        usd=bill.usd if bill else None,
    )
