"""What people see of managed jobs: the ledger, one order, and deployments that still run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from flows.layout import figures_table, marked, pairs, plain, show
from prooftune.report.wording import visible

Answer = Mapping[str, Any]

COLOURS = {"submitted": "cyan", "ended": "green", "needs_reconciliation": "bold red", "submitting": "yellow", "intended": "dim"}


def jobs(answer: Answer) -> None:
    """List the ledger's orders, newest first."""
    for trouble in answer["unreadable"].values():
        show(marked("✗", "red", visible(trouble)))
    if not answer["jobs"]:
        if answer["unreadable"]:
            return
        show(plain(f"no job was ever ordered from {answer['store']}", "dim"))
        return
    table = figures_table("run key", "job, base model, run", ">estimate, bill")
    table.columns[0].no_wrap = table.columns[2].no_wrap = True  # a run key is what other commands take: it can be copied
    for row in answer["jobs"]:
        told = [visible(text) for text in (row["job"], row.get("trouble"), f"{row['provider']} {row['model']}") if text]
        run = [(f"\n{visible(row['run'])}", "dim")] if row["run"] else []  # several runs may share a training on Ray
        job = Text.assemble(_state(row), *(f"\n{text}" for text in told), *run, overflow="fold")
        table.add_row(plain(row["key"], "bold"), job, "\n".join(_money(row)))
    show(table)
    if any(row["state"] == "needs_reconciliation" for row in answer["jobs"]):
        show(marked("!", "red", f"settle what nobody could tell: prooftune jobs reconcile KEY{answer['flags']}"))


def job(answer: Answer) -> None:
    """Show one order and how it came to be."""
    settled = answer["state"] != "submitting"
    show(
        marked("✓" if settled else "…", "green" if settled else "yellow", f"{answer['key']} is {answer['state']}"),
        pairs(
            {
                "  provider": plain(f"{answer['provider']}, {answer['model']}, {answer['address'] or 'its default address'}"),
                "  job": plain(f"{answer['job'] or 'none'} {answer['status'] or ''}".strip()),
                "  run": plain(answer["run"] or "any that asks for this training"),
            }
        ),
    )
    if not settled:
        show(marked(" ", "dim", "a run submits it just now, or died over it: run its spec again, and it finds out"))
    table = figures_table("when", "by", "what")
    for note in answer["history"]:
        table.add_row(plain(note["at"], "dim"), plain(note["by"]), plain(note["what"]))
    show(table)


def deployments(answer: Answer) -> None:
    """List what runs, what it costs by the hour, and what was taken down."""
    if not answer["deployments"] and not answer["not_asked"]:
        show(marked("✓", "green", "nothing of ours runs at any provider"))
        return
    table = figures_table("deployment", "provider", ">hours", ">USD an hour", "now")
    for one in answer["deployments"]:
        hours = "–" if one["hours"] is None else f"{one['hours']:.1f}"
        rate = "not known" if one["usd_per_hour"] is None else f"{one['usd_per_hour']:.2f}"
        table.add_row(plain(f"{one['name']}\n{one['model']}"), plain(one["provider"]), hours, rate, plain(_now(one)))
    if answer["deployments"]:
        show(table)
    for trouble in answer["not_asked"]:
        show(marked("✗", "red", f"could not be asked, so nobody knows what runs there: {trouble}"))
    if any(one["leased"] and not one["in_use"] and not one["removed"] for one in answer["deployments"]):
        show(marked("!", "yellow", f"take down what dead runs left: prooftune jobs sweep --remove{answer['flags']}"))


def _now(one: Answer) -> str:
    if not one["leased"]:
        return "no lease in this store: left alone"
    if one["in_use"]:
        return "in use"
    return "removed" if one["removed"] else one["failed"] or "left by a dead run"


def _state(row: Answer) -> Text:
    state = Text(row["state"].replace("_", " "), COLOURS[row["state"]])
    return Text.assemble(state, f": {visible(row['status'])}" if row["status"] else "")


def _money(row: Answer) -> tuple[str, str]:
    estimate = "–" if row["estimate_usd"] is None else f"${row['estimate_usd']:.2f}"
    billed = "–" if row["billed_usd"] is None else f"${row['billed_usd']:.2f}"
    if row["billed_usd"] is None and row["billed_tokens"] is not None:
        billed = f"{row['billed_tokens']:,} tokens"
    return estimate, billed


def resumed(answer: Answer) -> None:
    """Say which runs went on, and which still wait."""
    if not answer["runs"]:
        show(marked("✓", "green", f"no run of {answer['store']} waits for a job"))
    for row in answer["runs"]:
        done = row["result"]
        if done and done["verdict"]:
            show(marked("✓", "green", f"{row['run']}: {done['verdict']}, {done['report']}"))
        elif row["trouble"]:
            show(marked("!", "yellow", f"{row['run']}: {row['trouble']}"))
        else:
            show(marked("·", "dim", f"{row['run']} waits: its job is {row['status']}"))


def approval(answer: Answer) -> None:
    """Say what was answered, or list what waits for an answer."""
    if "waiting" in answer:
        if not answer["waiting"]:
            show(marked("✓", "green", f"no run of {answer['store']} waits for an approval"))
        for asked in answer["waiting"]:
            show(marked("!", "yellow", f"{asked['key']} {asked['text']}, since {asked['at']}"))
        return
    said = answer["answer"]
    word = "approved" if said["approved"] else "rejected"
    show(
        marked(
            "✓" if said["approved"] else "✗",
            "green" if said["approved"] else "red",
            f"{'the promotion' if said['usd'] is None else _dollars(said['usd'])} of {said['key']} {word} by {said['by']}",
        )
    )
    if (promoted := answer["promotion"]) is not None:
        note = f"; {promoted['note']}" if promoted["note"] else ""
        show(plain(f"  the champion of {promoted['task']} is {promoted['champion'] or 'none'}{note}", "dim"))
    elif not answer["woken"]:
        show(plain("  no run was woken: one that waits looks for the answer itself, and the next run of the spec finds it", "dim"))


def _dollars(usd: float) -> str:
    return f"${usd:,.2f}"


def comparison(answer: Answer) -> None:
    """Show the paired table of backends, or what is waited for."""
    from prooftune.evaluation.backends import BackendComparison
    from prooftune.report.comparison import comparison_table

    if answer["waiting"]:
        waiting(answer["waiting"])
        return
    found = BackendComparison.model_validate({name: answer[name] for name in BackendComparison.model_fields})
    table = comparison_table(found)
    shown = figures_table("on the sealed holdout", *(f">{name}" for name, _ in table.rows))
    for at, column in enumerate(table.columns):
        cells = [row[at] for _, row in table.rows]
        shown.add_row(plain(column), *("\n".join(filter(None, (cell.value, cell.detail, cell.counts))) for cell in cells))
    show(shown, plain(f"differences are paired, to {found.reference}; p-values Holm-corrected", "dim"))
    show(pairs({"  page": plain(answer["page"])}))


def waiting(found: Answer) -> None:
    """Say what a run waits for."""
    show(marked("…", "yellow", f"{found['run_key']} waits for its {found['waits_for']}: {found['text']}"))
