"""The screen of ``prooftune plan`` for a managed run: what it would cost, line by line, and which limits apply."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from flows.layout import figures_table, marked, pairs, plain, show
from flows.terminal import split_text, stages_table
from prooftune.report.wording import usd, visible

Answer = Mapping[str, Any]


def plan_managed(answer: Answer) -> None:
    """Say what would run, what it may cost, and what stands in its way."""
    data, tokens, model, training = answer["data"], answer["tokens"], answer["model"], answer["training"]
    about = "" if tokens["exact"] else "at most about "
    facts = {
        "data": f"{data['kept']:,} examples of {data['rows']:,} rows: {split_text(data['split'])}",
        "tokens": " · ".join(f"{name} {about}{tokens[name]['total']:,}" for name in ("train", "validation", "holdout")),
        "": tokens["how"],
        "model": f"{model['name']} at {model['provider']}, {model['method']}",
        "training": f"epochs: {training['epochs']:g}, {about}{training['tokens']:,} tokens billed",
    }
    show(
        Text.assemble(("Plan for ", "bold"), (visible(answer["name"]), "bold cyan"), ("  nothing was run or sent", "dim")),
        "",
        pairs({name: plain(value, "" if name else "dim") for name, value in facts.items()}),
        stages_table(answer["stages"]),
        pairs({"in all": plain(f"unknown: {answer['seconds_note']}", "bold")}),
        _money(answer["estimate"]),
        *_limits(answer["limits"]),
        *[marked("·", "dim", sentence) for sentence in answer["kept"]],
        *[marked("!", "yellow", warning) for warning in (*answer["estimate"]["warnings"], *answer["warnings"])],
        "",
        plain("A stage whose result is in the store already is not done again, and no answer or job is paid for twice.", "dim"),
    )


def _money(estimate: Answer) -> Table:
    """Table of the estimate's lines."""
    table = figures_table("what it may cost", ">quantity", ">each", ">USD")
    for line in estimate["lines"]:
        tokens = line["unit"] == "tokens"
        quantity = (
            f"{line['quantity']:,.0f} tokens" if tokens else f"{line['quantity']:g} {line['unit']}{'' if line['quantity'] == 1 else 's'}"
        )
        each = f"{usd(1e6 * line['usd_per_unit'])} / 1M" if tokens else f"{usd(line['usd_per_unit'])} / {line['unit']}"
        table.add_row(plain(line["what"]), Text(quantity, "dim"), Text(each, "dim"), usd(line["usd"]))
    table.add_row(Text("in all", "bold"), "", "", Text(usd(estimate["usd"]), "bold"))
    table.add_row(Text("with every answer at its longest", "dim"), "", "", Text(usd(estimate["longest_usd"]), "dim"))
    return table


def _limits(limits: Answer) -> Iterator[Table]:
    """Yield what the budget says to the estimate."""
    if limits["allowed"]:
        yield marked("✓", "green", f"within budget.max_usd, {usd(limits['max_usd'])}")
    else:
        yield marked("✗", "red", f"above budget.max_usd, {usd(limits['max_usd'])}: a run would be refused before anything is uploaded")
    if limits["beyond"]:
        yield marked("!", "yellow", limits["beyond"])
    above, hours = limits["approve_above_usd"], limits["approve_within_hours"]
    if limits["needs_approval"]:
        yield marked("!", "yellow", f"above budget.approve_above_usd, {usd(above)}: a person has to say yes within {hours:g} hours")
    else:
        why = "budget.approve_above_usd is null" if above is None else f"budget.approve_above_usd is {usd(above)}"
        yield marked("✓", "green", f"nobody has to approve it: {why}")
    if limits["monthly_usd"] is not None:
        month = f"the month of the project {limits['project']} may cost {usd(limits['monthly_usd'])}, with what other runs hold"
        yield marked("·", "dim", month)
