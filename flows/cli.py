"""The command line. Each command prints for people, or with ``--json`` exactly one JSON document on stdout.

Exit codes: 0 a verdict was reached, 2 the command, spec or data is unusable, 3 the environment lacks something, 4 the run waits for its
job, 130 interrupted, 1 anything else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flows.cli_managed import COMMANDS as MANAGED
from flows.cli_options import SPEC, by_option, endpoint_option, reason_option, set_option, store_option, waits
from flows.cli_team import COMMANDS as TEAM
from flows.endings import Commands, answers


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="prooftune")
def main() -> None:
    """Fine-tune a language model only when it pays, and prove it.

    Start with `prooftune demo`, or `prooftune init DIR` for your own data.
    """


@main.command()
@click.argument("directory", type=click.Path(path_type=Path))
@answers("initialised")
def init(directory: Path) -> dict[str, Any]:
    """Write a spec and sample data to DIRECTORY."""
    from flows.commands import initialise

    return initialise(directory)


@main.command()
@click.argument("spec", type=SPEC)
@set_option
@answers("validation", exit_code=lambda answer: 0 if answer["usable"] else 2)
def validate(spec: Path, overrides: tuple[str, ...]) -> dict[str, Any]:
    """List what is wrong with spec and data."""
    from flows.commands import check

    return check(spec, overrides)


@main.command()
@click.argument("spec", type=SPEC)
@set_option
@answers("plan")
def plan(spec: Path, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Say what a run would take; run nothing.

    Tokens, time and cost, from the data, the model's size and half a second of measuring this machine.
    """
    from flows.commands import estimate

    return estimate(spec, overrides)


@main.command()
@click.argument("spec", type=SPEC)
@set_option
@answers("counsel_screens.advice")
def advise(spec: Path, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Say whether to fine-tune at all, and how; run nothing.

    From the data, its use, prices, and what the holdout could prove.
    """
    from flows.counsel import advise_on

    return advise_on(spec, overrides)


@main.command(name="break-even")
@click.option("--tuning", type=click.FloatRange(min=0), required=True, metavar="USD", help="What tuning costs, once.")
@click.option("--before", type=click.FloatRange(min=0), required=True, metavar="USD", help="A request now.")
@click.option("--after", type=click.FloatRange(min=0), required=True, metavar="USD", help="A request to the tuned model.")
@click.option("--requests-per-month", type=click.IntRange(min=0), default=None, metavar="N", help="Volume.")
@click.option("--hosting", type=click.FloatRange(min=0), default=0.0, metavar="USD", help="Hosting the tuned model, a month.")
@click.option("--work-saved", type=float, default=0.0, metavar="USD", help="Corrections that are no longer needed, a month.")
@answers("counsel_screens.break_even")
def break_even(
    tuning: float, before: float, after: float, requests_per_month: int | None, hosting: float, work_saved: float
) -> dict[str, Any]:
    """Say after how many requests tuning is paid back."""
    from flows.counsel import break_even as paid_back

    return paid_back(requests_per_month, tuning, before, after, hosting, work_saved)


@main.command()
@click.argument("spec", type=SPEC)
@set_option
@click.option("--fresh", is_flag=True, help="Do every stage again, even where its result is in the store.")
@answers("result", exit_code=waits, resumes=True)
def run(spec: Path, overrides: tuple[str, ...], fresh: bool) -> dict[str, Any]:
    """Run it all, from a spec to a verdict.

    Run it again after an interruption: it goes on where it stopped.
    """
    from flows.running import run_spec

    return run_spec(spec, overrides, fresh=fresh)


@main.command()
@click.option("--managed", is_flag=True, help="At a stand-in for OpenAI, which tunes the same model on this machine.")
@set_option
@answers("result", exit_code=waits, resumes=True)
def demo(managed: bool, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Run it all on about 700 support tickets.

    With a real model of 135M parameters, on this machine: about 10 minutes on 2 cores.
    """
    from flows.demo import run_demo

    return run_demo(managed, overrides)


@main.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@store_option
@endpoint_option
@answers("result")
def show(run_id: str | None, store: str, endpoint_url: str | None) -> dict[str, Any]:
    """Show the verdict of RUN, or list the runs."""
    from flows.commands import show_run

    return show_run(run_id, store, endpoint_url)


@main.command()
@click.argument("run_id", metavar="RUN")
@store_option
@endpoint_option
@answers("governance_screens.verification", exit_code=lambda answer: 0 if answer["matches"] else 1)
def verify(run_id: str, store: str, endpoint_url: str | None) -> dict[str, Any]:
    """Compute every digest and figure of RUN again.

    From its published artifacts: exit 0 where all match, 1 with a list of what does not.
    """
    from flows.governance import verify_published

    return verify_published(run_id, store, endpoint_url)


@main.command()
@click.argument("task")
@click.argument("run_id", metavar="RUN")
@reason_option
@by_option
@click.option("--force", is_flag=True, help="Although RUN's verdict is not promote; the history says so.")
@store_option
@endpoint_option
@answers("governance_screens.change")
def promote(task: str, run_id: str, reason: str, by: str | None, force: bool, store: str, endpoint_url: str | None) -> dict[str, Any]:
    """Make RUN the champion of TASK."""
    from flows.governance import promote_run

    return promote_run(task, run_id, reason, by, force, store, endpoint_url)


@main.command()
@click.argument("task")
@reason_option
@by_option
@click.option("--from", "champion", default=None, metavar="RUN", help="Only if RUN is still the champion.")
@store_option
@endpoint_option
@answers("governance_screens.change")
def rollback(task: str, reason: str, by: str | None, champion: str | None, store: str, endpoint_url: str | None) -> dict[str, Any]:
    """Put TASK's champion before the present one back in use."""
    from flows.governance import roll_back

    return roll_back(task, reason, by, champion, store, endpoint_url)


@main.command()
@click.argument("task")
@store_option
@endpoint_option
@answers("governance_screens.history")
def history(task: str, store: str, endpoint_url: str | None) -> dict[str, Any]:
    """Show TASK's champion and how it came to be."""
    from flows.governance import show_history

    return show_history(task, store, endpoint_url)


for command in (*MANAGED, *TEAM):
    main.add_command(command)


@main.command()
@store_option
@endpoint_option
@answers("examination", exit_code=lambda answer: 3 if answer["failed"] else 0)
def doctor(store: str, endpoint_url: str | None) -> dict[str, Any]:
    """Say what this machine can do.

    GPU, memory, disk, libraries, model, store, credentials, Prefect server.
    """
    from flows.doctor import examine

    return examine(store, endpoint_url)


@main.command()
@click.option("--team", is_flag=True, help="PostgreSQL, S3, MLflow, a Prefect server and a worker instead, for several users.")
@answers("team_screens.up")
def up(team: bool) -> dict[str, Any]:
    """Start the local Prefect server.

    Unless one is configured or runs already.
    """
    if team:
        from flows.team import bring_up

        return bring_up(lambda what: click.echo(f"Starting: {what} …", err=True))
    from flows.running import server_address

    return server_address()


@main.command()
@answers("team_screens.down")
def down() -> dict[str, Any]:
    """Stop what `up` started; all data stays."""
    from flows.local_server import stop_server
    from flows.team import take_down

    stopped = stop_server()
    return {"running": False, "stopped": stopped is not None, "ui": stopped.ui_url if stopped else None, "team": take_down()}
