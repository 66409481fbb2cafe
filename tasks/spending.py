"""Money of a managed run: estimated before anything is uploaded, held, and settled with what was billed."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, get_args

from prefect import task
from prefect.logging import get_run_logger

from prooftune.economics.spending import hold, release, settle
from prooftune.spec import RunSpec
from prooftune.storage.objects import ObjectStore, open_store
from prooftune.types import FileRef, SplitName, StageOutput
from tasks.artifacts import show_table
from tasks.policies import UNCACHED, policy
from tasks.stage import Stage

if TYPE_CHECKING:
    from prooftune.economics.bill import Bill
    from prooftune.providers.tuning import Job


@task(**policy("estimate", 1, 30))
def estimate_spend(spec: RunSpec, prices: FileRef, validated: StageOutput, splits: StageOutput) -> StageOutput:
    """Say what the run may cost, and that its data may go where they would go, and would be taken; hands on ``estimate.json``.

    ``prices`` is the price list that the spec names; it is here for the stage's key.

    Raises:
        SpecError: a price is missing, or the provider may not get the data.
        BudgetExceeded: the estimate is above ``budget.max_usd``.
        DataError: the provider would refuse rows: better told before the baselines are paid for.
    """
    from datetime import date

    from prooftune.economics.managed import check_limit, estimate_managed
    from prooftune.economics.policy import check_policy
    from prooftune.economics.prices import load_prices
    from prooftune.providers.orders import checked_order
    from prooftune.providers.tuning import open_tuner

    stage = Stage(spec.store)
    files: dict[SplitName, Path] = {name: stage.path(splits, f"{name}.jsonl") for name in get_args(SplitName)}
    listed = load_prices(Path(spec.use.prices) if spec.use.prices else None, date.today())
    check_policy(spec, listed, {code: sum(actions.values()) for code, actions in validated.figures["findings"].items()})

    def work(out: Path) -> dict[str, Any]:
        estimate = estimate_managed(spec, files, listed)
        check_limit(spec, estimate)
        with TemporaryDirectory() as folder:
            learnt = {name: files[name] for name in ("train", "validation")}
            checked_order(open_tuner(spec.backend.provider, spec.provider), spec, learnt, Path(folder))
        (out / "estimate.json").write_text(estimate.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return estimate.model_dump(mode="json")

    output = stage.perform(work)
    rows = [*output.figures["lines"], {"what": "total", "usd": output.figures["usd"]}]
    show_table(rows, key="estimate", description=f"The run may cost ${output.figures['usd']:.2f}.")
    for warning in output.figures["warnings"]:
        get_run_logger().warning("%s", warning)
    return output


@task(**(policy("hold", 1, 30) | UNCACHED))
def hold_budget(spec: RunSpec, run_key: str, estimate: StageOutput) -> StageOutput:
    """Hold the estimate in the project's month, once a run; the estimate is handed on.

    Raises:
        BudgetExceeded: it is above ``budget.max_usd``, which may have been lowered since it was estimated, or ``budget.monthly_usd`` has no
            room for it. A run whose job was ordered goes on.
    """
    from prooftune.economics.managed import Estimate, check_limit
    from prooftune.providers.ledger import Ledger

    budget, objects = spec.budget, open_store(spec.store)
    if not any(entry.run == run_key and entry.state != "intended" for entry in Ledger(objects).entries()):
        check_limit(spec, Estimate.model_validate(estimate.figures))
    item = hold(objects, budget.project, run_key, float(estimate.figures["usd"]), budget.monthly_usd)
    get_run_logger().info("$%.2f of the project %s are held", item.usd, budget.project)
    return estimate


@task(**(policy("settle", 1, 30) | {"refresh_cache": True}))
def settle_spend(spec: RunSpec, run_key: str, outputs: tuple[StageOutput, ...]) -> StageOutput:
    """Replace what is held by what was billed, as far as the provider and the price list say; hands on ``bill.json``.

    It is settled each time, the bill made once. The price list is in the stage's key by the estimate, which is among ``outputs``.
    """
    stage = Stage(spec.store)
    done = {output.stage: output for output in outputs}

    def work(out: Path) -> dict[str, Any]:
        bill = _bill(spec, stage.objects, done)
        (out / "bill.json").write_text(bill.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return bill.model_dump(mode="json") | {"error": bill.error}

    output = stage.perform(work)
    usd, estimated = float(output.figures["usd"]), float(output.figures["estimated_usd"])
    settle(stage.objects, spec.budget.project, run_key, usd)
    show_table(output.figures["lines"], key="bill", description=f"Billed were ${usd:.4f}, estimated ${estimated:.4f}.")
    get_run_logger().info("billed $%.4f, estimated $%.4f", usd, estimated)
    return output


def settle_failed(spec: RunSpec, run_key: str, job_key: str, outputs: tuple[StageOutput, ...]) -> None:
    """Settle what a run holds whose job ended without a model: with what the job and the answers so far cost.

    It is settled under the job's own key, and the run holds nothing any more: a run that submits the job again holds anew, and what the
    failed one cost stays in the month. The answers so far then count twice, which errs on the side of the limit.
    """
    from prooftune.providers.ledger import Ledger

    objects, project = open_store(spec.store), spec.budget.project
    bill = _bill(spec, objects, {output.stage: output for output in outputs}, Ledger(objects).read(job_key).job)
    hold(objects, project, job_key, bill.usd, None)
    settle(objects, project, job_key, bill.usd)
    release(objects, project, run_key)
    get_run_logger().info("billed $%.4f for the job that failed and the answers before it", bill.usd)


def _bill(spec: RunSpec, objects: ObjectStore, outputs: dict[str, StageOutput], failed: Job | None = None) -> Bill:
    from datetime import date

    from prooftune.economics.bill import bill_of
    from prooftune.economics.prices import load_prices

    listed = load_prices(Path(spec.use.prices) if spec.use.prices else None, date.today())
    return bill_of(spec, listed, outputs, objects, failed)
