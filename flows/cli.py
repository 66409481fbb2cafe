"""The command line. Each command prints for people, or with ``--json`` exactly one JSON document on stdout.

Exit codes: 0 a verdict was reached, 2 the command, spec or data is unusable, 3 the environment lacks something, 130 interrupted,
1 anything else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flows.endings import Commands, answers

SPEC = click.Path(path_type=Path)

set_option = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set a field of the spec: --set data.split.seed=3")


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
@click.option("--fresh", is_flag=True, help="Do every stage again, even where its result is in the store.")
@answers("result", resumes=True)
def run(spec: Path, overrides: tuple[str, ...], fresh: bool) -> dict[str, Any]:
    """Run it all, from a spec to a verdict.

    Run it again after an interruption: it goes on where it stopped.
    """
    from flows.running import run_spec

    return run_spec(spec, overrides, fresh=fresh)


@main.command()
@set_option
@answers("result", resumes=True)
def demo(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Run it all on 600 support tickets.

    With a real model of 135M parameters, on this machine: about 10 minutes on 2 cores.
    """
    from flows.commands import demo_spec
    from flows.running import run_spec

    return run_spec(demo_spec(), overrides)


@main.command()
@click.argument("run_id", metavar="RUN", required=False)
@click.option("--store", default="./prooftune-store", show_default=True, help="Folder or s3://bucket/prefix.")
@click.option("--endpoint-url", default=None, help="For S3-compatible servers.")
@answers("result")
def show(run_id: str | None, store: str, endpoint_url: str | None) -> dict[str, Any]:
    """Show the verdict of RUN, or list the runs."""
    from flows.commands import show_run

    return show_run(run_id, store, endpoint_url)


@main.command()
@click.option("--store", default="./prooftune-store", show_default=True, help="Folder or s3://bucket/prefix.")
@click.option("--endpoint-url", default=None, help="For S3-compatible servers.")
@answers("examination", exit_code=lambda answer: 3 if answer["failed"] else 0)
def doctor(store: str, endpoint_url: str | None) -> dict[str, Any]:
    """Say what this machine can do.

    GPU, memory, disk, libraries, model, store, credentials, Prefect server.
    """
    from flows.doctor import examine

    return examine(store, endpoint_url)


@main.command()
@answers("server")
def up() -> dict[str, Any]:
    """Start the local Prefect server.

    Unless one is configured or runs already.
    """
    from flows.running import server_address

    return server_address()


@main.command()
@answers("server")
def down() -> dict[str, Any]:
    """Stop the local Prefect server."""
    from flows.local_server import stop_server

    stopped = stop_server()
    return {"running": False, "stopped": stopped is not None, "ui": stopped.ui_url if stopped else None}
