"""The demo: the main job on the sample tickets, here or at a stand-in for OpenAI that really tunes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from flows.commands import demo_spec
from flows.running import run_spec
from prooftune.errors import EnvironmentLacks

MANAGED = (
    "name=support-triage-managed",
    "backend.provider=openai",
    "backend.model=gpt-4.1-mini",
    "provider.hyperparameters.epochs=2",
    'baseline.ladder=["few_shot","retrieved"]',  # zero-shot answers are the longest and all wrong, and the stand-in answers one by one
    "general.suite=none",  # 200 questions more, to a model of 135M parameters on this machine
)
"""What the demo's spec becomes for the stand-in."""


def run_demo(managed: bool, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Run the demo's spec; ``managed``: at a stand-in for OpenAI that is started for it and stopped after it.

    Raises:
        EnvironmentLacks: the stand-in does not come up.
        ProoftuneError: as the stages raise it.
    """
    if not managed:
        return run_spec(demo_spec(), overrides)
    with stand_in("openai") as (environment, fields):
        os.environ.update(environment)
        settings = [f"{name}={value}" for name, value in fields.items()]
        return run_spec(demo_spec(), [*MANAGED, *settings, *overrides])


@contextmanager
def stand_in(provider: str) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Serve a provider's stand-in in a process of its own; gives the environment and the fields of a spec that lead to it.

    Raises:
        EnvironmentLacks: it does not come up.
    """
    command = [sys.executable, "-c", "from flows.cli import main; main()", "sandbox", provider, "--port", "0", "--json"]
    quiet = os.environ | {"TQDM_DISABLE": "1"}  # its bars would cross the run's own progress
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=quiet) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            line = process.stdout.readline()
            if not line:
                raise EnvironmentLacks(f"the stand-in for {provider} did not come up; `prooftune sandbox {provider}` says why")
            told = json.loads(line)
            print(f"a stand-in for {provider} answers at {told['address']}; nothing is sent anywhere else", file=sys.stderr)  # noqa: T201
            yield told["environment"], told["set"]
        finally:
            process.terminate()
