"""Commands on managed jobs: the ledger, approvals, the comparison of backends, the sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flows.cli_options import SPEC, endpoint_option, reason_option, set_option, store_option, waits
from flows.endings import Listed, answers


def left_running(answer: dict[str, Any]) -> int:
    """Return the exit code of a sweep: 3 where a provider could not be asked, or something could not be taken down."""
    return 3 if answer["not_asked"] or any(one["failed"] for one in answer["deployments"]) else 0


def not_all_read(answer: dict[str, Any]) -> int:
    """Return the exit code of a list: 1 where an order could not be read."""
    return 1 if answer["unreadable"] else 0


@click.group(cls=Listed)
def jobs() -> None:
    """List managed jobs; reconcile, cancel, sweep.

    Without a further word: every order that the ledger knows.
    """


@jobs.command("list")
@click.option("--refresh", is_flag=True, help="Ask the providers how their jobs are.")
@store_option
@endpoint_option
@answers("jobs_screens.jobs", exit_code=not_all_read)
def jobs_list(refresh: bool, store: str, endpoint_url: str | None) -> dict[str, Any]:
    """List every order that the ledger knows."""
    from flows.jobs import list_jobs

    return list_jobs(refresh, store, endpoint_url)


@jobs.command()
@click.argument("key")
@click.option("--job", default=None, metavar="ID", help="The order has this job at the provider.")
@click.option("--none", is_flag=True, help="You looked, and the provider made no job: it may be submitted.")
@click.option("--reason", default="", help="Why, for those who read the history.")
@store_option
@endpoint_option
@answers("jobs_screens.job")
def reconcile(key: str, job: str | None, none: bool, reason: str, store: str, endpoint_url: str | None) -> dict[str, Any]:
    """Settle an order that may or may not have a job.

    Without --job or --none the provider is asked once more.
    """
    from flows.jobs import reconcile as settle

    return settle(key, job, none, reason, store, endpoint_url)


@jobs.command()
@click.argument("key")
@store_option
@endpoint_option
@answers("jobs_screens.job")
def cancel(key: str, store: str, endpoint_url: str | None) -> dict[str, Any]:
    """Cancel an order's job at the provider or on Ray."""
    from flows.jobs import cancel as cancel_job

    return cancel_job(key, store, endpoint_url)


@jobs.command()
@click.argument("key")
@reason_option
@store_option
@endpoint_option
@answers("jobs_screens.job")
def again(key: str, reason: str, store: str, endpoint_url: str | None) -> dict[str, Any]:
    """Let a failed or cancelled order be submitted once more.

    The next run of its spec does so, and may pay again.
    """
    from flows.jobs import again as submit_again

    return submit_again(key, reason, store, endpoint_url)


@jobs.command()
@click.option("--remove", is_flag=True, help="Take down what no run uses any more.")
@store_option
@endpoint_option
@answers("jobs_screens.deployments", exit_code=left_running)
def sweep(remove: bool, store: str, endpoint_url: str | None) -> dict[str, Any]:
    """Find deployments that dead runs left, and what they cost."""
    from flows.jobs import sweep as sweep_deployments

    return sweep_deployments(remove, store, endpoint_url)


@jobs.command()
@store_option
@endpoint_option
@answers("jobs_screens.resumed", resumes=True)
def resume(store: str, endpoint_url: str | None) -> dict[str, Any]:
    """Go on with runs whose job has ended meanwhile."""
    from flows.running import resume_waiting

    return resume_waiting(store, endpoint_url)


@click.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("--no", "reject", is_flag=True, help="Reject: nothing is spent, or the champion stays.")
@click.option("--reason", default="", help="Why, for those who read the record.")
@click.option("--by", default=None, metavar="NAME", help="Who decides; default: you, as this machine knows you.")
@store_option
@endpoint_option
@answers("jobs_screens.approval")
def approve(run_id: str | None, reject: bool, reason: str, by: str | None, store: str, endpoint_url: str | None) -> dict[str, Any]:
    """Say yes to RUN's estimate or promotion; or list what waits.

    The run that waits goes on at once.
    """
    from flows.jobs import answer_question

    return answer_question(run_id, not reject, reason, by, store, endpoint_url)


@click.command()
@click.argument("spec", type=SPEC)
@click.option("--backends", required=True, metavar="A,B", help="local, openai …: the spec's own backend and its alternatives.")
@set_option
@answers("jobs_screens.comparison", exit_code=waits, resumes=True)
def compare(spec: Path, backends: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Run SPEC on several backends; compare them on one holdout."""
    from flows.running import compare_spec

    return compare_spec(spec, tuple(name.strip() for name in backends.split(",") if name.strip()), overrides)


@click.command()
@click.argument("provider", type=click.Choice(("openai", "azure", "bedrock", "vertex", "together", "fireworks")))
@click.option("--port", default=8787, show_default=True, help="On 127.0.0.1; 0 = any free one.")
@click.option("--fast", is_flag=True, help="Canned answers; nothing is trained. They say nothing about any model.")
@click.option("--fault", "faults", multiple=True, metavar="KIND@OPERATION", help="Misbehave: --fault reset_after@create_job*2")
@click.option("--pace", default=2.0, show_default=True, metavar="SECONDS", help="That a job stays in each early state.")
@click.option("--idle-minutes", default=30.0, show_default=True, help="Stop when nobody has asked anything for so long.")
@click.option("--json", "as_json", is_flag=True, help="Print the address as one JSON document, everything else on stderr.")
def sandbox(provider: str, port: int, fast: bool, faults: tuple[str, ...], pace: float, idle_minutes: float, as_json: bool) -> None:
    """Serve a stand-in for PROVIDER's API on this machine.

    To rehearse a managed run without a key or a bill. The demo model answers, and every job is really trained.
    """
    from flows.sandbox import serve_or_fail

    serve_or_fail(provider, port, fast, faults, idle_minutes, pace, as_json)


COMMANDS = (jobs, approve, compare, sandbox)
"""In the order in which one needs them."""
