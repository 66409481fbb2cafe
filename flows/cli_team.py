"""Commands of a team: deployments, automations, sensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flows.cli_options import SPEC, STORE, endpoint_option, set_option, store_option
from flows.endings import Listed, answers, ending


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True), default=".")
@click.option("--store", envvar=STORE, show_envvar=True, help="Store of all deployed flows, in place of those that prefect.yaml names.")
@answers("deploying_screens.deployed")
def deploy(folder: Path, store: str | None) -> dict[str, Any]:
    """Deploy all that FOLDER's prefect.yaml and deployments/ say.

    Work pools, limits, deployments with their schedules and triggers, automations. Again changes only what differs.
    """
    from flows.running import prepare_environment

    prepare_environment(fresh=False)
    from flows.deploying import deploy as deploy_folder

    return deploy_folder(folder, store)


@click.group(cls=Listed)
def automations() -> None:
    """List the Prefect server's automations that are ours; apply.

    They tell people of verdicts, failures and what waits for them.
    """


@automations.command("list")
@answers("deploying_screens.automations")
def automations_list() -> dict[str, Any]:
    """List the automations of ours, and where notifications go."""
    from flows.automations import list_automations

    return list_automations()


@automations.command("apply")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True), default=".")
@answers("deploying_screens.applied")
def automations_apply(folder: Path) -> dict[str, Any]:
    """Make them what FOLDER's deployments/automations.yaml says."""
    from flows.automations import apply_automations

    return apply_automations(folder)


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=None, help="File or folder; default: dashboard.html here.")
@click.option("--publish", is_flag=True, help="Into the store, as dashboard/index.html; its links to the reports then work there.")
@store_option
@endpoint_option
@answers("dashboard.screen")
def dashboard(output: Path | None, publish: bool, store: str, endpoint_url: str | None) -> dict[str, Any]:
    """Write a page of all runs, champions, money and trends.

    And of what waits for a person. From the store alone; no server is asked.
    """
    from flows.dashboard import write_dashboard

    return write_dashboard(output, publish, store, endpoint_url)


@click.command()
@click.argument("spec", type=SPEC)
@set_option
@click.option("--emit", is_flag=True, help="Tell the Prefect server what is worth a retraining.")
@answers("sensors_screens.looks", exit_code=lambda answer: 3 if any(row["trouble"] for row in answer["looks"]) else 0)
def watch(spec: Path, overrides: tuple[str, ...], emit: bool) -> dict[str, Any]:
    """Look once whether SPEC's champion needs retraining.

    New data, quality, inputs, the base model's last day. Deployments look by the clock.
    """
    from flows.sensors import look_once

    return look_once(spec, overrides, emit)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", default=8788, show_default=True, help="0 = any free one.")
@store_option
@endpoint_option
@click.option("--json", "as_json", is_flag=True, help="Print the address as one JSON document, everything else on stderr.")
def listen(host: str, port: int, store: str, endpoint_url: str | None, as_json: bool) -> None:
    """Take requests for retrainings over HTTP.

    Signed with the secret in PROOFTUNE_WEBHOOK_SECRET or in the Prefect Secret block prooftune-webhook.
    """
    from flows.sensors import listen as receive

    with ending(as_json):
        receive(host, port, store, endpoint_url, as_json)


COMMANDS = (deploy, automations, dashboard, watch, listen)
"""In the order in which one needs them."""
