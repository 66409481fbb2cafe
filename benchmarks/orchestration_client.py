"""One client of the orchestration benchmark: runs flows of no-op tasks and prints how long they took. Not to be started by hand.

Each line of its standard input names flows and their numbers of tasks, as JSON; a line of JSON answers it.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from typing import Any
from uuid import uuid4

from prefect import flow, task

from prooftune.spec import Store
from prooftune.types import StageOutput
from tasks.policies import policy, results_in
from tasks.stage import Stage


@task
def nothing(number: int) -> int:
    """Do nothing, as a plain task of Prefect's."""
    return number


@task(**policy("benchmark", version=1, timeout_minutes=1))
def stage(number: int, store: Store) -> StageOutput:
    """Do nothing, as a stage: looked up in the store, its one file verified and kept, its record written last."""
    return Stage(store).perform(lambda out: {"bytes": (out / "number.txt").write_text(str(number))})


@flow
def sequential(tasks: int) -> None:
    """One task after another."""
    for number in range(tasks):
        nothing(number)


@flow
def mapped(tasks: int) -> None:
    """All tasks submitted at once, to Prefect's threads."""
    nothing.map(range(tasks)).result()


@flow
def stages(tasks: int) -> None:
    """One stage after another, in a store of their own."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(uri=folder)
        with results_in(store):
            for number in range(tasks):
                stage(number, store)


def measured(name: str, tasks: int) -> dict[str, Any]:
    """Run a flow, from the call to its return: the start and the end of the run are part of what its tasks wait for."""
    run = uuid4()
    started = time.perf_counter()
    FLOWS[name].with_options(flow_run_name=str(run))(tasks)
    return {"run": str(run), "seconds": time.perf_counter() - started, "ended": time.time()}


FLOWS = {found.name: found for found in (sequential, mapped, stages)}


def main() -> None:
    """Answer line by line."""
    logging.captureWarnings(True)
    for line in sys.stdin:
        print(json.dumps({name: measured(name, tasks) for name, tasks in json.loads(line).items()}), flush=True)


if __name__ == "__main__":
    main()
