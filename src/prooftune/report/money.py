"""The money of a run in tables and in one sentence."""

from __future__ import annotations

from prooftune.evidence import BreakEven, Costs
from prooftune.report.managed import bill_sentence, provider_name
from prooftune.report.tables import Cell, Table
from prooftune.report.view import RunView
from prooftune.report.wording import capitalize_first, duration, months, usd


def option_table(view: RunView, *, measured: bool) -> Table:
    """Return every way to serve the task that was, or was not, measured, with what it costs."""
    columns = ("tuning, once", "hosting, a month", "per 1,000 requests", "prompt tokens", "answer tokens")
    options = view.costs.options if view.costs else ()
    rows = tuple(
        (
            option.name,
            (
                cost_cell(option.tuning_usd, estimated=option.tuning_estimated) if option.tuned else Cell("–"),
                Cell(usd(option.hosting_usd_per_month)),
                Cell(usd(option.usd_per_1000_requests)),
                Cell(f"{option.prompt_tokens:,.1f}"),
                Cell(f"{option.answer_tokens:,.1f}"),
            ),
        )
        for option in options
        if option.measured is measured
    )
    return Table(columns, rows)


def cost_cell(amount: float | None, *, estimated: bool = False) -> Cell:
    """Return an amount of USD, and whether it was estimated, since nobody tells it; None = it is not known."""
    if amount is None:
        return Cell("not known")
    return Cell(usd(amount), "as estimated") if estimated else Cell(usd(amount))


def break_even_table(view: RunView, *, measured: bool) -> Table:
    """Return when each tuned option is paid back, of those that were, or were not, measured."""
    columns = ("against", "saving, a request", "saving, a month", "paid back after")
    costs = view.costs
    here = {option.name for option in costs.options if option.measured} if costs else set()
    untold = {option.name for option in costs.options if option.tuning_usd is None} if costs else set()
    rows = tuple(
        (
            row.option,
            (
                Cell(row.against),
                Cell(usd(row.saving_usd_per_request)),
                Cell("–" if row.saving_usd_per_month is None else usd(row.saving_usd_per_month)),
                Cell("not known") if row.option in untold else Cell(*_paid_back(row)),
            ),
        )
        for row in (costs.break_even if costs else ())
        if (row.option in here) is measured
    )
    return Table(columns, rows)


def money_sentence(view: RunView) -> str:
    """Return what tuning costs, saves and when it is paid back; empty without costs."""
    if view.costs is None:
        return ""
    training = _training(view, view.costs)
    if (row := view.break_even) is None:
        return training
    saving = row.saving_usd_per_request
    does = f"saves {usd(saving)} a request" if saving > 0 else f"costs {usd(-saving)} more a request"
    compared = f"{capitalize_first(row.option)} {does}, corrections counted, against {row.against}"
    if view.costs.training_usd is None:
        return f"{training} {compared}; when tuning is paid back is not known."
    if row.requests is None and row.months is not None:
        return f"{training} {compared}: paid back after {months(row.months)}{_at_volume(view)}."
    if row.requests is None:
        return f"{training} {compared}: tuning is not paid back{_at_volume(view)}."
    volume = f", {months(row.months)}{_at_volume(view)}" if row.months is not None else ""
    return f"{training} {compared}: paid back after {row.requests:,} requests{volume}."


def _training(view: RunView, costs: Costs) -> str:
    """Return what training took and costs: of a managed job as the provider tells it, since the run itself only collected it."""
    if not view.spec.backend.managed:
        return f"Training took {duration(3600 * costs.training_hours)} and costs {usd(costs.training_usd or 0.0)}."
    seconds = view.figures.get("train", {}).get("job_seconds")
    took = f"took {duration(seconds)} and " if seconds else ""
    bill = f" {sentence}" if (sentence := bill_sentence(view)) else ""
    if costs.training_usd is None:
        return f"Training at {provider_name(view)} {took}has a cost that nobody tells.{bill}"
    estimated = any(option.tuning_estimated for option in costs.options)
    as_told = f", as it was estimated: {provider_name(view)} does not say" if estimated else ""
    return f"Training at {provider_name(view)} {took}costs {usd(costs.training_usd)}{as_told}.{bill}"


def _paid_back(row: BreakEven) -> tuple[str, str]:
    if row.requests is None:
        return ("never" if row.months is None else months(row.months)), ""
    return f"{row.requests:,} requests", "" if row.months is None else months(row.months)


def _at_volume(view: RunView) -> str:
    volume = view.costs.requests_per_month if view.costs else None
    return f" at {volume:,} requests a month" if volume else ""


def assumptions(view: RunView) -> list[str]:
    """Return what the money rests on that was not measured, each said once with the options that it is of."""
    if view.costs is None:
        return []
    options: dict[str, list[str]] = {}
    for option in view.costs.options:
        if option.assumption:
            options.setdefault(option.assumption, []).append(option.name)
    said = [f"{_listed(names)}: {text}" for text, names in options.items()]
    return [*said, *dict.fromkeys(view.costs.warnings), f"Prices are of {view.costs.priced_at}."]


def _listed(names: list[str]) -> str:
    """Return at most two names and how many more there are."""
    return "; ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
