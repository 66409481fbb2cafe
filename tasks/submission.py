"""Train at a managed provider: probe, submit once, wait, collect. Between two polls nothing has to run."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from prooftune.providers.tuning import Capability, Event, Job
from prooftune.spec import RunSpec, digest
from prooftune.storage.objects import open_store
from prooftune.types import Frozen, ModelRef, Progress, RunWaiting, StageOutput
from tasks.artifacts import show_figures, show_markdown, show_table, tag_run
from tasks.live_loss import LiveLoss
from tasks.policies import UNCACHED, errand, policy
from tasks.progress import report_to_ui
from tasks.stage import Stage

if TYPE_CHECKING:
    from prooftune.providers.ledger import Entry

SAY_EVERY_S = 3600.0
"""A job that only goes on shows that it is looked at: a run that shows nothing for hours is taken for stuck (``flows/stuck_runs.py``)."""


class Probed(Frozen):
    """A base model at its provider."""

    model: ModelRef
    capability: Capability
    usd_per_hour: float | None
    """What a deployment of the tuned model costs while it runs."""


class Submitted(Frozen):
    """A job of the ledger."""

    key: str
    """Run key."""
    job: str
    ended: bool


@task(**(policy("probe", 1, 30) | UNCACHED))
def probe_model(spec: RunSpec) -> Probed:
    """Ask the provider whether it tunes the model for this account, and until when. Nothing is spent."""
    from prooftune.economics.managed import hosting_usd_per_hour
    from prooftune.providers.tuning import open_tuner

    tuner = open_tuner(spec.backend.provider, spec.provider)
    capability = tuner.probe(spec.backend.model, spec.backend.objective)
    show_table([capability.model_dump(mode="json")], key="probe", description=f"{spec.backend.provider} says this of the base model.")
    name = f"{spec.backend.provider}/{spec.backend.model}"
    sha256 = digest([spec.backend.provider, tuner.address, spec.backend.model])
    model = ModelRef(name=name, revision="", sha256=sha256)
    return Probed(model=model, capability=capability, usd_per_hour=hosting_usd_per_hour(spec))


@task(**errand("require_tunable", 30))
def require_tunable(spec: RunSpec, capability: Capability, splits: StageOutput) -> None:
    """Refuse what the probe rules out: a base model that cannot be tuned, or not for long, settings beyond its limits, examples too long.

    An order that was sent before is gone on with: it is paid for.

    Raises:
        SpecError: the provider does not tune it, not with these settings, or shuts it down within ``provider.min_remaining_days``.
        DataError: examples are longer than the provider takes.
    """
    from prooftune.providers.ledger import Ledger
    from prooftune.providers.orders import order_of, write_rows
    from prooftune.providers.probing import refusal, rows_refused
    from prooftune.providers.tuning import open_tuner

    objects = open_store(spec.store)
    files = {name: objects.fetch(splits.artifacts[f"{name}.jsonl"]) for name in ("train", "validation")}
    refused = refusal(spec, capability) or rows_refused(spec, capability, files)
    if refused is None:
        return
    tuner = open_tuner(spec.backend.provider, spec.provider)
    with TemporaryDirectory() as folder:
        order = order_of(tuner, spec, write_rows(tuner, spec, files, Path(folder)))
    known = Ledger(objects).newest(order)
    if known is None or known.state == "intended":
        raise refused
    get_run_logger().warning("%s The job of this run, %s, was ordered before, and is gone on with.", refused, known.key)


@task(**(policy("submit", 1, 60 * 24 * 7) | UNCACHED))
def submit_job(spec: RunSpec, run_key: str, estimate_usd: float, splits: StageOutput) -> Submitted:
    """Upload the rows, see to it that there is one job of this order, and wait for it, at most ``provider.hold_minutes``.

    Both in one task: what its tag allows to run at once is allowed from before the job is made until it has ended.

    Raises:
        DataError: the provider would refuse rows.
        SpecError: the bucket is not where the data must stay.
        NeedsReconciliation: nobody can tell whether there is a job.
    """
    from prooftune.providers.bucket import check_bucket
    from prooftune.providers.ledger import Entry, Ledger
    from prooftune.providers.orders import checked_order
    from prooftune.providers.submission import follow, submit
    from prooftune.providers.tuning import open_tuner

    check_bucket(spec)
    objects = open_store(spec.store)
    tuner, ledger = open_tuner(spec.backend.provider, spec.provider), Ledger(objects)
    files = {name: objects.fetch(splits.artifacts[f"{name}.jsonl"]) for name in ("train", "validation")}
    folder = objects.work_dir() / "rows" / run_key
    order, rows = checked_order(tuner, spec, files, folder)
    intent = Entry(order=order, run=run_key, options=spec.provider, estimate_usd=estimate_usd)
    entry = submit(tuner, ledger, intent, rows)
    assert entry.job is not None  # noqa: S101 - submit returns no entry without one
    get_run_logger().info("%s job %s, run key %s, %s", order.provider, entry.job.id, entry.key, entry.job.told)
    _show_job(entry)
    if not entry.job.ended:
        hold = spec.provider.hold_minutes
        entry = follow(tuner, ledger, entry.key, _telling(), None if hold is None else hold * 60)
    assert entry.job is not None  # noqa: S101 - it was submitted
    return Submitted(key=entry.key, job=entry.job.id, ended=entry.job.ended)


@task(**policy("train", 2, 60))
def collect_job(spec: RunSpec, capability: Capability, submitted: Submitted, splits: StageOutput) -> StageOutput:
    """Write down what the job left; hands on ``model/managed.json``, ``log.jsonl``, ``job.json`` and the provider's result files.

    Raises:
        JobFailed: the provider ended the job without a model.
    """
    from prooftune.providers.collection import collect
    from prooftune.providers.ledger import Ledger
    from prooftune.providers.tuning import open_tuner

    stage = Stage(spec.store)
    tuner = open_tuner(spec.backend.provider, spec.provider)
    entry = Ledger(stage.objects).read(submitted.key)
    examples = int(splits.figures["counts"]["train"])
    output = stage.perform(lambda out: collect(tuner, entry, capability, examples, out))
    how = f"{spec.backend.provider} tuned {spec.backend.model}, and this is how it went."
    show_figures(output.figures, key="train", description=how)
    return output


def waiting_run(spec: RunSpec, run_key: str, source: str, submitted: Submitted) -> RunWaiting:
    """Write down that the run waits for its job, so that `prooftune jobs resume` goes on with it."""
    from prooftune.providers.waiting import wait

    wait(open_store(spec.store), spec, run_key, submitted.key, source)
    text = f"{spec.backend.provider} job {submitted.job} goes on; `prooftune jobs resume`, or the same command, goes on with the run"
    show_markdown(
        f"{text}\n\nRun `{run_key}`, run key of the job `{submitted.key}`.", key="waiting", description="The run waits for its job."
    )
    tag_run("waiting")
    return RunWaiting(run_key=run_key, waits_for="job", text=text, key=submitted.key, ui_url=flow_run.ui_url)


def _show_job(entry: Entry) -> None:
    from prooftune.providers.consoles import console_of

    assert entry.job is not None  # noqa: S101 - it was submitted
    order = entry.order
    page = console_of(order.provider, order.address, entry.job.id, order.objective)
    seen = f"\n\n[{order.provider} shows it here]({page})." if page else ""
    lines = "\n".join(f"- {note.at} {note.what} ({note.by})" for note in entry.history)
    which = f"Job `{entry.job.id}` of `{order.model}` at {order.address}, run key `{entry.key}`"
    show_markdown(
        f"{which}{seen}\n\n{lines}\n\n`prooftune jobs` lists all jobs.",
        key="provider-job",
        description=f"{order.provider} has one job of this order, {entry.job.id}: {entry.job.told}.",
    )


def _telling() -> Any:
    """Return what ``follow`` tells: the log gets events, the UI the losses and the job's state."""
    log, report = get_run_logger(), report_to_ui("train")
    losses = LiveLoss()
    shown, said = "", time.monotonic()

    def tell(job: Job, events: list[Event]) -> None:
        nonlocal shown, said
        for event in events:
            log.info("%s: %s", job.id, event.text)
            if "step" in event.metrics:
                losses.add(event.metrics["step"], event.metrics.get("train_loss"), event.metrics.get("valid_loss"))
        losses.show(last=job.ended)
        text = ": ".join([f"job {job.id}", job.told, *(event.text for event in events[-1:])])
        if text != shown or events or time.monotonic() - said >= SAY_EVERY_S:
            shown, said = text, time.monotonic()
            report(Progress(done=int(job.ended), total=1, unit="jobs", text=text))

    return tell
