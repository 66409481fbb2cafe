"""The command line. Each command prints for people, or with ``--json`` exactly one JSON document on stdout.

Exit codes: 0 a verdict was reached, 2 the spec or data is unusable, 3 the environment lacks something, 1 anything else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

SPEC = click.Path(path_type=Path)
Command = Callable[..., dict[str, Any]]


def answers(render: str) -> Callable[[Command], Callable[..., None]]:
    """Make a click command of a function that returns JSON: print it, or render it for people with ``flows.terminal.<render>``."""

    def decorate(command: Command) -> Callable[..., None]:
        @click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON document on stdout, everything else on stderr.")
        @wraps(command)
        def run(as_json: bool, **arguments: Any) -> None:
            from prooftune.errors import ProoftuneError

            try:
                answer = command(**arguments)
            except ProoftuneError as error:
                _fail(error, as_json)
            if as_json:
                click.echo(json.dumps(answer, ensure_ascii=False))
            else:
                import flows.terminal

                getattr(flows.terminal, render)(answer)

        return run

    return decorate


def _fail(error: Any, as_json: bool) -> None:
    problems = [{"where": problem.where, "code": problem.code, "reason": problem.reason} for problem in getattr(error, "problems", ())]
    if as_json:
        click.echo(json.dumps({"error": type(error).__name__, "message": str(error), "problems": problems}, ensure_ascii=False))
    click.echo(f"{type(error).__name__}: {error}", err=True)
    sys.exit(error.exit_code)


set_option = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set a field of the spec: --set data.split.seed=3")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="prooftune")
def main() -> None:
    """Fine-tune a language model only when it pays, and prove it.

    Start with `prooftune demo`, or `prooftune init DIR` for your own data.
    """


@main.command()
@click.argument("directory", type=click.Path(path_type=Path))
@answers("initialised")
def init(directory: Path) -> dict[str, Any]:
    """Write a commented spec and sample data to DIRECTORY."""
    from flows.commands import initialise

    return initialise(directory)


@main.command()
@click.argument("spec", type=SPEC)
@set_option
@answers("validation")
def validate(spec: Path, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Check spec and data, and list all problems at once."""
    from flows.commands import check

    return check(spec, overrides)


@main.command()
@click.argument("spec", type=SPEC)
@set_option
@answers("plan")
def plan(spec: Path, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Say what would run, with tokens, time and cost, and do none of it."""
    from flows.commands import estimate

    return estimate(spec, overrides)


@main.command()
@click.argument("spec", type=SPEC)
@set_option
@click.option("--fresh", is_flag=True, help="Do every stage again, even where its result is in the store.")
@answers("result")
def run(spec: Path, overrides: tuple[str, ...], fresh: bool) -> dict[str, Any]:
    """Run the main job, from the spec to a verdict. Run it again after an interruption: it goes on where it stopped."""
    from flows.running import run_spec

    return run_spec(spec, overrides, fresh=fresh)


@main.command()
@set_option
@answers("result")
def demo(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Run the main job on 600 support tickets with a real 135M-parameter model: about 10 minutes on 2 cores."""
    from flows.commands import demo_spec
    from flows.running import run_spec

    return run_spec(demo_spec(), overrides)


@main.command()
@click.argument("run_id", metavar="RUN", required=False)
@click.option("--store", default="./prooftune-store", show_default=True, help="Folder or s3://bucket/prefix.")
@click.option("--endpoint-url", default=None, help="For S3-compatible servers.")
@answers("result")
def show(run_id: str | None, store: str, endpoint_url: str | None) -> dict[str, Any]:
    """Show the verdict of RUN again; without RUN, list the runs in the store."""
    from flows.commands import show_run

    return show_run(run_id, store, endpoint_url)


@main.command()
@click.option("--store", default="./prooftune-store", show_default=True, help="Folder or s3://bucket/prefix.")
@click.option("--endpoint-url", default=None, help="For S3-compatible servers.")
@answers("examination")
def doctor(store: str, endpoint_url: str | None) -> dict[str, Any]:
    """Say what this machine can do: GPU, memory, libraries, model, store, server."""
    from flows.doctor import examine

    return examine(store, endpoint_url)


@main.command()
@answers("server")
def up() -> dict[str, Any]:
    """Start the local Prefect server, unless one is configured or runs."""
    from flows.running import server_address

    return server_address()


@main.command()
@answers("server")
def down() -> dict[str, Any]:
    """Stop the local Prefect server."""
    from flows.local_server import stop_server

    stopped = stop_server()
    return {"running": False, "stopped": stopped is not None, "ui": stopped.ui_url if stopped else None}
