"""Options and answers that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

SPEC = click.Path(path_type=Path)

reason_option = click.option("--reason", required=True, help="Why, for those who read the history.")
by_option = click.option("--by", default=None, metavar="NAME", help="Who changes the champion; default: you, as this machine knows you.")
STORE = "PROOFTUNE_STORE"
"""Environment variable in place of the option ``--store``, for a machine or a container whose store is always the same."""

store_option = click.option(
    "--store", envvar=STORE, default="./prooftune-store", show_default=True, show_envvar=True, help="Folder or s3://bucket/prefix."
)
endpoint_option = click.option("--endpoint-url", default=None, help="For S3-compatible servers.")
set_option = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set a field of the spec: --set data.split.seed=3")


def waits(answer: dict[str, Any]) -> int:
    """Return the exit code of a run: 4 where it waits for a job."""
    return 4 if answer.get("waiting") else 0
