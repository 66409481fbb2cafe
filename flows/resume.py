"""Goes on with runs that ended for now because their managed job went on."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.finetune import finetune
from prooftune.errors import JobFailed, ProoftuneError
from prooftune.providers.ledger import Ledger
from prooftune.providers.submission import look
from prooftune.providers.tuning import open_tuner
from prooftune.providers.waiting import read_waiting, went_on
from prooftune.results import result_json
from prooftune.retraining.claims import settle_run
from prooftune.spec import Store
from prooftune.storage.objects import open_store
from prooftune.types import RunWaiting


@flow(name="resume-waiting")
def go_on(store: Store) -> list[dict[str, Any]]:
    """Ask how each awaited job is, and go on with the runs whose job has ended; a schedule of this flow needs no process in between."""
    objects = open_store(store)
    ledger = Ledger(objects)
    told = []
    for waiting in list(read_waiting(objects)):
        row: dict[str, Any] = {"run": waiting.run, "key": waiting.key, "status": None, "result": None, "trouble": None}
        try:
            entry = ledger.read(waiting.key)
            if entry.state != "ended":
                entry = look(open_tuner(entry.order.provider, entry.options), ledger, entry)
            row["status"] = entry.job.told if entry.job else entry.state
            if entry.state == "ended":
                result = finetune(waiting.spec)
                row["result"] = result_json(result)
                if not isinstance(result, RunWaiting):
                    went_on(objects, waiting.run)
                    settle_run(objects, waiting.spec.name, waiting.run, f"{result.verdict}, run {result.run_id}")
        except JobFailed as error:
            row["trouble"] = str(error)
            settle_run(objects, waiting.spec.name, waiting.run, f"JobFailed: {error}", failed=True)
        except ProoftuneError as error:  # of this run; the others go on
            row["trouble"] = str(error)
        told.append(row)
    return told
