"""Money of a managed run: estimated before anything is uploaded, held, and settled with what was billed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from prefect import task
from prefect.logging import get_run_logger

from prooftune.economics.spending import hold, settle
from prooftune.spec import RunSpec
from prooftune.storage.objects import open_store
from prooftune.types import FileRef, SplitName, StageOutput
from tasks.artifacts import show_table
from tasks.policies import UNCACHED, policy
from tasks.stage import Stage


@task(**policy("estimate", 1, 30, "managed"))
def estimate_spend(spec: RunSpec, prices: FileRef, validated: StageOutput, splits: StageOutput) -> StageOutput:
    """Say what the run may cost, and that its data may go where they would go; hands on ``estimate.json``.

    ``prices`` is the price list that the spec names; it is here for the stage's key.

    Raises:
        SpecError: a price is missing, or the provider may not get the data.
        BudgetExceeded: the estimate is above ``budget.max_usd``.
    """
    from datetime import date

    from prooftune.economics.managed import check_limit, estimate_managed
    from prooftune.economics.policy import check_policy
    from prooftune.economics.prices import load_prices

    stage = Stage(spec.store)
    files: dict[SplitName, Path] = {name: stage.path(splits, f"{name}.jsonl") for name in get_args(SplitName)}
    listed = load_prices(Path(spec.use.prices) if spec.use.prices else None, date.today())
    check_policy(spec, listed, {code: sum(actions.values()) for code, actions in validated.figures["findings"].items()})

    def work(out: Path) -> dict[str, Any]:
        estimate = estimate_managed(spec, files, listed)
        check_limit(spec, estimate)
        (out / "estimate.json").write_text(estimate.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return estimate.model_dump(mode="json")

    output = stage.perform(work)
    rows = [*output.figures["lines"], {"what": "total", "usd": output.figures["usd"]}]
    show_table(rows, key="estimate", description=f"What the run may cost: ${output.figures['usd']:.2f}")
    for warning in output.figures["warnings"]:
        get_run_logger().warning("%s", warning)
    return output


@task(**(policy("hold", 1, 30, "managed") | UNCACHED))
def hold_budget(spec: RunSpec, run_key: str, estimate: StageOutput) -> StageOutput:
    """Hold the estimate in the project's month, once a run; the estimate is handed on.

    Raises:
        BudgetExceeded: ``budget.monthly_usd`` has no room for it.
    """
    budget = spec.budget
    item = hold(open_store(spec.store), budget.project, run_key, float(estimate.figures["usd"]), budget.monthly_usd)
    get_run_logger().info("$%.2f of the project %s are held", item.usd, budget.project)
    return estimate


@task(**(policy("settle", 1, 30, "managed") | UNCACHED))
def settle_spend(spec: RunSpec, run_key: str, outputs: tuple[StageOutput, ...]) -> dict[str, Any]:
    """Replace what is held by what was billed, as far as the provider and the price list say; returns both and the estimate's error."""
    from datetime import date

    from prooftune.economics.bill import bill_of
    from prooftune.economics.prices import load_prices

    stage_outputs = {output.stage: output for output in outputs}
    objects = open_store(spec.store)
    listed = load_prices(Path(spec.use.prices) if spec.use.prices else None, date.today())
    bill = bill_of(spec, listed, stage_outputs, objects)
    settle(objects, spec.budget.project, run_key, bill.usd)
    show_table(
        [line.model_dump() for line in bill.lines], key="bill", description=f"Billed ${bill.usd:.4f}, estimated ${bill.estimated_usd:.4f}"
    )
    get_run_logger().info("billed $%.4f, estimated $%.4f", bill.usd, bill.estimated_usd)
    return bill.model_dump(mode="json")
