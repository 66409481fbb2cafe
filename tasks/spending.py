"""Money of a managed run: estimated before anything is uploaded, held, and settled with what was billed."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, get_args

from prefect import task
from prefect.logging import get_run_logger
from prefect.settings import get_current_settings

from prooftune.economics.bill import Bill, bill_of
from prooftune.economics.spending import Item, find, hold, release, settle, spent
from prooftune.providers.collection import MANAGED, ManagedModel
from prooftune.spec import RunSpec
from prooftune.storage.objects import ObjectStore, open_store
from prooftune.types import FileRef, SplitName, StageOutput
from tasks.artifacts import show_figures, show_table
from tasks.policies import UNCACHED, policy
from tasks.stage import Stage

if TYPE_CHECKING:
    from prooftune.providers.tuning import Job

ORDER = "order.json"
"""What a run would order, for this stage's successor alone: it is not published."""


@task(**policy("estimate", 2, 30))
def estimate_spend(spec: RunSpec, prices: FileRef, validated: StageOutput, splits: StageOutput) -> StageOutput:
    """Say what the run may cost, and that its data may go where they would go, and would be taken.

    Hands on ``estimate.json``, and ``order.json``: what would be bought. ``prices`` is the price list that the spec names; it is here for
    the stage's key.

    Raises:
        SpecError: a price is missing, or the provider may not get the data, or not in that bucket.
        EnvironmentLacks: nobody may ask where the bucket is.
        BudgetExceeded: the estimate is above ``budget.max_usd``.
        DataError: the provider would refuse rows: better told before the baselines are paid for.
    """
    from datetime import date

    from prooftune.economics.managed import check_limit, estimate_managed
    from prooftune.economics.policy import by_code, check_policy, told_kept
    from prooftune.economics.prices import load_prices
    from prooftune.providers.bucket import check_bucket
    from prooftune.providers.orders import checked_order
    from prooftune.providers.tuning import open_tuner

    stage = Stage(spec.store)
    files: dict[SplitName, Path] = {name: stage.path(splits, f"{name}.jsonl") for name in get_args(SplitName)}
    listed = load_prices(Path(spec.use.prices) if spec.use.prices else None, date.today())
    check_policy(spec, listed, by_code(validated.figures["findings"]))
    check_bucket(spec)

    def work(out: Path) -> dict[str, Any]:
        estimate = estimate_managed(spec, files, listed)
        check_limit(spec, estimate)
        with TemporaryDirectory() as folder:
            learnt = {name: files[name] for name in ("train", "validation")}
            order, _ = checked_order(open_tuner(spec.backend.provider, spec.provider), spec, learnt, Path(folder))
        (out / ORDER).write_text(order.model_dump_json(indent=1) + "\n", encoding="utf-8")
        (out / "estimate.json").write_text(estimate.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return estimate.model_dump(mode="json")

    output = stage.perform(work)
    rows = [*output.figures["lines"], {"what": "total", "usd": output.figures["usd"]}]
    longest = f"${output.figures['longest_usd']:.2f} with every answer as long as its request allows"
    kept = " ".join(told_kept(spec))
    show_table(rows, key="estimate", description=f"The run may cost ${output.figures['usd']:.2f}; {longest}. {kept}")
    for warning in output.figures["warnings"]:
        get_run_logger().warning("%s", warning)
    return output


@task(**(policy("hold", 1, 30) | UNCACHED))
def hold_budget(spec: RunSpec, run_key: str, estimate: StageOutput) -> StageOutput:
    """Hold the estimate in the project's month, once a run; the estimate is handed on.

    Raises:
        BudgetExceeded: as ``hold_estimate``.
    """
    item, month = hold_estimate(spec, run_key, estimate), spent(open_store(spec.store), spec.budget.project)
    figures = {"of this run": item.usd, "held in the month": month.held_usd, "billed in the month": month.billed_usd}
    limit = "no limit" if spec.budget.monthly_usd is None else f"of ${spec.budget.monthly_usd:,.2f}"
    told = f"${item.usd:,.2f} of {month.project} are held or billed for this run; in {month.month} ${month.usd:,.2f} in all, {limit}."
    show_figures(figures | {"monthly_usd": spec.budget.monthly_usd}, key="hold", description=told)
    get_run_logger().info("%s", told)
    return estimate


def hold_estimate(spec: RunSpec, run_key: str, estimate: StageOutput) -> Item:
    """Hold what a run may cost, and return what it then holds.

    A run that is settled and has bought what it needed holds nothing more. One that has not, since the clock said no and a person says yes
    now, holds anew; so does one that measures afresh, and pays for its answers again.

    Raises:
        BudgetExceeded: it is above ``budget.max_usd``, which may have been lowered since it was estimated, or ``budget.monthly_usd`` has no
            room for it. A run whose job is ordered goes on; where that one failed it buys nothing, unless `jobs again` allowed it.
    """
    from prooftune.economics.managed import Estimate, beyond_limit, check_limit
    from prooftune.providers.ledger import Ledger
    from prooftune.providers.tuning import Order

    budget, objects = spec.budget, open_store(spec.store)
    order = Order.model_validate_json(objects.fetch(estimate.artifacts[ORDER]).read_bytes())
    newest, known = Ledger(objects).newest(order), find(objects, budget.project, run_key)
    if newest is None or newest.state == "intended":
        estimated = Estimate.model_validate(estimate.figures)
        check_limit(spec, estimated)
        if beyond := beyond_limit(spec, estimated):
            get_run_logger().warning("%s", beyond)
    nothing_to_buy = (known is not None and known.bought) or (newest is not None and newest.failed)
    afresh = get_current_settings().tasks.refresh_cache
    usd = 0.0 if nothing_to_buy and not afresh else float(estimate.figures["usd"])
    return hold(objects, budget.project, run_key, usd, budget.monthly_usd)


@task(**(policy("settle", 2, 30) | {"refresh_cache": True}))
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
    bill = Bill.model_validate_json(stage.path(output, "bill.json").read_bytes())
    job = ManagedModel.model_validate_json(stage.path(done["train"], f"model/{MANAGED}").read_bytes()).key if "train" in done else ""
    settle(stage.objects, spec.budget.project, run_key, _bought(bill, done, job))
    told = f"Billed were ${bill.usd:.4f}, estimated ${bill.estimated_usd:.4f}."
    untold = f" ${bill.untold_usd:.4f} more count as estimated: {'; '.join(bill.left_out)}." if bill.untold else ""
    show_table(output.figures["lines"], key="bill", description=told + untold)
    get_run_logger().info("%s%s", told, untold)
    return output


def settle_failed(spec: RunSpec, run_key: str, job_key: str, outputs: tuple[StageOutput, ...]) -> None:
    """Settle what a run holds whose job ended without a model: with what the job and the answers so far cost.

    It is settled under the job's own key, and the run holds nothing any more: a run that submits the job again holds anew, and what the
    failed one cost stays in the month.
    """
    from prooftune.providers.ledger import Ledger

    objects, project = open_store(spec.store), spec.budget.project
    done = {output.stage: output for output in outputs}
    bill = _bill(spec, objects, done, Ledger(objects).read(job_key).job)
    bought = _bought(bill, done, job_key)
    held = find(objects, project, run_key)
    hold(objects, project, job_key, 0.0, None, datetime.fromisoformat(held.at) if held else None)  # in the month that counted it so far
    settle(objects, project, job_key, bought)
    release(objects, project, run_key)
    get_run_logger().info("$%.4f count for the job that failed and the answers before it", sum(bought.values()))


def _bought(bill: Bill, outputs: dict[str, StageOutput], job_key: str) -> dict[str, float]:
    """Return what a bill counts, by what was bought: the order's job, and each time that a stage was done."""
    names = {stage: f"{output.key} {output.done_at}" for stage, output in outputs.items()} | {"train": job_key}
    return {names[stage]: usd for stage, usd in bill.by_stage.items()}


def _bill(spec: RunSpec, objects: ObjectStore, outputs: dict[str, StageOutput], failed: Job | None = None) -> Bill:
    from datetime import date

    from prooftune.economics.prices import load_prices

    listed = load_prices(Path(spec.use.prices) if spec.use.prices else None, date.today())
    return bill_of(spec, listed, outputs, objects, failed)
