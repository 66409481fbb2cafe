"""A person's answer to a promotion, carried into the registry and to its mirror."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.logging import get_run_logger

from prooftune.economics.approvals import Answer, Question
from prooftune.report.wording import TITLES, reasons_of, with_flags
from prooftune.spec import Store
from prooftune.storage.objects import open_store
from tasks.approval import Asking, ask_for
from tasks.artifacts import show_figures
from tasks.policies import errand


def ask_for_promotion(store: Store, name: str, run_id: str, hours: float) -> Answer:
    """Pause the flow run until a person has answered, or the clock has, whether a run may be put in use."""
    from prooftune.results import read_result

    result = read_result(open_store(store), run_id)
    asked = Asking(
        question=Question(key=run_id, usd=None, task=name),
        hours=hours,
        why=f"The gate's verdict: {TITLES[result.verdict].lower()}.",
        evidence=reasons_of(result.decision),
        places={"report": result.report},
    )
    return ask_for(store, asked)


@task(**errand("settle_promotion", 10))
def settle_promotion(store: Store, name: str, said: Answer) -> dict[str, Any]:
    """Write the answer into the registry's history; a yes makes the run the champion, unless another one became it meanwhile.

    Returns:
        The registry, JSON-able, with ``note``: why the run is not in use, else "".
    """
    from prooftune.storage.registry import why_not_in_use
    from prooftune.storage.registry_approval import settle_approval

    objects = open_store(store)
    registry = settle_approval(objects, name, said.key, approved=said.approved, by=said.by, reason=said.reason)
    note = with_flags(why_not_in_use(objects, name, said.key), store.flags)
    if note:
        get_run_logger().warning("%s is not in use: %s", said.key, note)
    shown = said.model_dump(mode="json", exclude={"usd"}) | {"champion": registry["champion"], "note": note}
    show_figures(shown, key="promotion", description=f"The promotion was {said.text}.")
    return registry | {"note": note}
