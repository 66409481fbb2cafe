"""The steps around a retraining: ask whether it may start, say what is new, note what came of it. None is a stage of a run."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from prefect import task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from prooftune.economics.spending import read_month
from prooftune.report.wording import reasons_of, visible
from prooftune.retraining import claims
from prooftune.retraining.admission import Admission, admit
from prooftune.retraining.composition import Composition, compose, forget_composition, keep_composition, kept_composition
from prooftune.spec import RunSpec
from prooftune.storage.objects import open_store
from prooftune.types import RunResult, RunWaiting, StageOutput
from prooftune.watching.signals import Signal
from tasks.artifacts import if_reachable, show_markdown, tag_run
from tasks.policies import errand


def ask_to_start(spec: RunSpec, signal: Signal) -> Admission:
    """Ask for admission. A flow run that was started again after a crash waits until the lease of the process before it has lapsed."""
    own = f"{flow_run.id}/"
    holder = f"{own}{flow_run.run_count}"
    while True:
        told = ask_admission(spec, signal, holder)
        if told.decision != "duplicate" or told.until is None or not told.holder.startswith(own):
            return told
        left = (told.until - datetime.now(UTC)).total_seconds()
        get_run_logger().info("this flow run was started again; the lease of its first process lapses in %.0f s", left)
        time.sleep(max(left, 1.0))


@task(**errand("admit", 10))
def ask_admission(spec: RunSpec, signal: Signal, holder: str) -> Admission:
    """Ask once, and show why it was signalled and what was decided."""
    told = admit(open_store(spec.store), spec, signal, holder, datetime.now(UTC))
    figures = "\n".join(f"| {name} | {visible(str(value)).replace('|', '¦')} |" for name, value in signal.figures.items())
    table = f"\n\n| measured | |\n|---|---|\n{figures}" if figures else ""
    seen = f"`{signal.kind}` {visible(signal.digest[:24])}, first seen {visible(signal.at)}: {visible(signal.reason)}"
    show_markdown(f"# {told.decision}\n\n{visible(told.reason)}\n\n{seen}{table}", key="retrain-signal", description=told.reason)
    return told


def begun_before(spec: RunSpec, signal: Signal, admission: Admission) -> Composition | None:
    """Return what a process that died over this retraining had composed: the same run is gone on with.

    What an attempt that failed had composed is forgotten: whoever goes on with this one must not take it for this one's.
    """
    objects = open_store(spec.store)
    if admission.resumes:
        return kept_composition(objects, signal)
    forget_composition(objects, signal)
    return None


@task(**errand("compose", 60))
def compose_data(spec: RunSpec, signal: Signal, admission: Admission, validated: StageOutput) -> Composition:
    """Say what is new, and what is learnt from again; the composition's spec says it to the stages."""
    objects = open_store(spec.store)
    made = compose(objects, spec, objects.fetch(validated.artifacts["examples.jsonl"]), admission.left_usd)
    keep_composition(objects, signal, made)
    rows = made.model_dump(mode="json", exclude={"spec"}) | {"may_cost_usd": made.spec.budget.max_usd}
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    show_markdown(f"# {made.text}\n\n| composition | |\n|---|---|\n{table}", key="retrain-composition", description=made.text)
    return made


def within_budget(spec: RunSpec, made: Composition, admission: Admission, run_key: str) -> RunSpec:
    """Return what is to be run, with what it may cost: what is left of the month, and what this very run holds of it already."""
    if admission.left_usd is None:
        return made.spec
    item = read_month(open_store(spec.store), spec.budget.project, f"{datetime.now(UTC):%Y-%m}").find(run_key)
    limit = min(spec.budget.max_usd, admission.left_usd + (item.usd if item else 0.0))
    return made.spec.model_copy(update={"budget": made.spec.budget.model_copy(update={"max_usd": limit})})


@task(**errand("note_run", 10))
def note_run(spec: RunSpec, token: int, run_key: str) -> bool:
    """Write down which run it is, before it spends anything; False = another retraining has started in its place."""
    return claims.note_run(open_store(spec.store), spec.name, token, run_key)


@task(**errand("end_retraining", 10))
def end_retraining(spec: RunSpec, token: int, result: RunResult | RunWaiting | None) -> bool:
    """Write down what came of it; None = there was nothing new. False = another retraining has started since."""
    objects = open_store(spec.store)
    if result is None:
        return claims.finish(objects, spec.name, token, "nothing_new", trained=False)
    if isinstance(result, RunWaiting):
        return claims.wait(objects, spec.name, token, result.run_key)
    return claims.finish(objects, spec.name, token, f"{result.verdict}, run {result.run_id}")


def came_of(made: Composition, result: RunResult | RunWaiting, kept: bool) -> tuple[str, str]:
    """Return what a retraining came to: a word, and a sentence."""
    if isinstance(result, RunWaiting):
        return "waiting", f"{made.text}: {result.text}"
    ghost = "" if kept else "; it was taken for dead meanwhile, and another retraining has started since"
    note = f"; {result.note}" if result.note else ""
    return result.verdict, f"{made.text}, run {result.run_id}: {' '.join(reasons_of(result.decision))}{note}{ghost}"


def ends(spec: RunSpec, word: str, text: str, data: object) -> State[Any]:
    """Return how the flow run ends: completed, with a name, a tag and a message that say what came of it."""
    tag_run(spec.name, "retrain", word)
    name_run(f"{spec.name}: {word.replace('_', ' ')}")
    message = f"{word}: {visible(text)}"
    get_run_logger().info("%s", message)
    show_markdown(f"# {word}\n\n{visible(text)}", key="retraining", description=message)
    return Completed(message=message, data=data)


def name_run(name: str) -> None:
    """Give the flow run another name, now that it is known what it is."""
    if flow_run.id:
        with if_reachable(), get_client(sync_client=True) as client:
            client.update_flow_run(flow_run.id, name=name)
