"""A sensor's look, and asking the holdout again, as tasks; and what they found, told to the Prefect server and shown in its UI."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from prooftune.evaluation.champion_files import answers_here
from prooftune.report.wording import visible
from prooftune.spec import RunSpec
from prooftune.storage.objects import open_store
from prooftune.watching.looks import Look, Quiet
from prooftune.watching.signals import Kind, Signal
from prooftune.watching.told import handled
from tasks.artifacts import show_figures, show_markdown, tag_run
from tasks.events import emit
from tasks.policies import RETRY_DELAYS_S, UNCACHED, is_transient, on_gpu
from tasks.progress import report_to_ui

if TYPE_CHECKING:
    from prooftune.watching.nightly import Reevaluation

LOOK: dict[str, Any] = UNCACHED | {
    "retries": len(RETRY_DELAYS_S),
    "retry_delay_seconds": RETRY_DELAYS_S,
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": is_transient,
}
"""Options of what is no stage of a run: it has no version, and changes no run's key."""


@task(name="look", task_run_name="look at {kind}", timeout_seconds=3600, **LOOK)
def look(spec: RunSpec, kind: Kind) -> Look:
    """Let the sensor of a kind look once."""
    from prooftune.watching.sensors import SENSORS

    return SENSORS[kind](open_store(spec.store), spec, datetime.now(UTC))


@task(name="ask-again", task_run_name="ask the champion the holdout again", timeout_seconds=12 * 3600, **LOOK)
def ask_again(spec: RunSpec) -> Reevaluation | None:
    """Evaluate the champion anew on the holdout that it was promoted on; None = there is no champion."""
    from prooftune.watching.nightly import evaluate_again

    found = evaluate_again(open_store(spec.store), spec, datetime.now(UTC), report_to_ui("evaluate"))
    if found is not None:
        figures = found.model_dump(mode="json", exclude={"evaluation", "libraries"})
        cost = "" if found.usd is None else f", for ${found.usd:.4f}"
        told = f"{found.champion}: {found.metric} {found.value:.3f} on {found.at:%Y-%m-%d}{cost}"
        show_figures(figures, key="holdout-again", description=told)
    return found


def asked_again(spec: RunSpec) -> Reevaluation | None:
    """Ask the champion again; one on this machine waits for its GPU, one at its provider for nothing."""
    return on_gpu(ask_again, here=answers_here(open_store(spec.store), spec.name))(spec)


def looked(spec: RunSpec, kind: Kind) -> Look:
    """Let a sensor look. One that fails keeps no other from being told, and is told itself."""
    found = look(spec, kind, return_state=True).result(raise_on_failure=False)
    return Quiet(kind=kind, reason=str(found), trouble=True) if isinstance(found, Exception) else found


def tell(spec: RunSpec, looks: tuple[Look, ...]) -> State[Any]:
    """Tell the server each signal that is still worth it, show what was seen, and return how the flow run ends.

    It is Failed where a sensor could not look, or its silence would pass for good news.
    """
    lines = [visible(_told(spec, one)) for one in looks]
    for one, line in zip(looks, lines, strict=True):
        sign = "signal" if isinstance(one, Signal) else "trouble" if one.trouble else "quiet"
        show_markdown(f"# {one.kind}: {sign}\n\n{line}\n\n{_table(one.figures)}", key=f"look-{one.kind}", description=line)
    tag_run(spec.name, "signal" if any(isinstance(one, Signal) for one in looks) else "quiet")
    ends = Failed if any(isinstance(one, Quiet) and one.trouble for one in looks) else Completed
    return ends(message="; ".join(lines))


def _told(spec: RunSpec, one: Look) -> str:
    """Return what a look comes to in one sentence, after telling it where that is due."""
    if not isinstance(one, Signal):
        text = f"{one.kind}: {'could not look' if one.trouble else 'nothing to do'}, {one.reason}"
    elif known := handled(open_store(spec.store), one, datetime.now(UTC)):
        text = f"{one.kind}: {one.reason}; not told again, {known}"
    else:
        text = f"{one.kind}: {one.reason}; {'told as' if emit(one) else 'NOT told:'} {one.event}"
    get_run_logger().info(text)
    return text


def _table(figures: dict[str, Any]) -> str:
    """Return figures as a Markdown table."""
    rows = "\n".join(f"| {name} | {visible(str(value)).replace('|', '¦')} |" for name, value in figures.items())
    return f"| figure | value |\n|---|---|\n{rows}" if figures else ""
