"""What people see of the commands after the verdict: changes of the champion, their history, and what a verification found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from flows.layout import command, figures_table, marked, pairs, plain, show, unbroken
from flows.terminal import COLOURS
from prooftune.report.wording import points, visible

Answer = Mapping[str, Any]

SHOWN = 30
"""Mismatches on the screen; ``--json`` has all of them."""
DONE = {"register": "promoted by the gate", "approve": "approved", "promote": "promoted", "rollback": "rolled back"}


def change(answer: Answer) -> None:
    """Say which run is in use now, and since when, by whom and why."""
    made = answer["change"]
    show(
        marked("✓", "green", f"{answer['champion']} is the champion of {answer['task']}"),
        pairs(
            {
                "  before": plain(made["champion_before"] or "none"),
                "  why": plain(_reason(made)),
                "  by": plain(f"{made['by']}, {made['at']}"),
            }
        ),
        *_mirrored(answer["mlflow"]),
        "",
        *unbroken({"how it came to be": command(answer["next"])}),
    )


def _mirrored(mlflow: Mapping[str, Any] | None) -> Iterable[RenderableType]:
    if mlflow is None:
        return
    if mlflow["failed"] is None:
        yield marked(" ", "dim", f"MLflow's {mlflow['model']} has the same champion")
    else:
        yield marked("!", "yellow", f"MLflow was not told: {mlflow['failed']}. Promote the champion once more to try again.")


def history(answer: Answer) -> None:
    """Show champion and challenger, every change of the champion, newest first, and every run."""
    head = {"champion": plain(answer["champion"] or "none", "bold green" if answer["champion"] else "")}
    if answer["challenger"]:
        head["challenger"] = plain(f"{answer['challenger']}: {_open_because(answer)}")
    show(pairs(head), _changes(answer["changes"]), _runs(answer["runs"]), plain(f"store {answer['store']}", "dim"))


def _open_because(answer: Answer) -> str:
    why = next((run["held_back"] for run in answer["runs"] if run["run_id"] == answer["challenger"]), "")
    return why or "inconclusive; more held-out examples may settle it"


def _changes(changes: Iterable[Answer]) -> Table:
    table = figures_table("change", "champion", "by", "why")
    for made in reversed(list(changes)):
        when = Text.assemble(DONE[made["action"]], (f"\n{visible(made['at'])}", "dim"))
        moved = Text.assemble((visible(made["champion"]), "bold"), (f"\nbefore: {visible(made['champion_before'] or 'none')}", "dim"))
        table.add_row(when, moved, plain(made["by"]), plain(_reason(made)))
    return table


def _runs(runs: Iterable[Answer]) -> Table:
    table = figures_table("run", "verdict", ">baseline → candidate", ">points", ">n")
    for run in runs:
        values = ["–" if run[name] is None else f"{run[name]:.3f}" for name in ("baseline_value", "candidate_value")]
        gain = "–" if run["difference"] is None else points(run["difference"])
        verdict = Text(run["verdict"], COLOURS[run["verdict"]])
        table.add_row(_named(run), verdict, " → ".join(values), gain, f"{run['n']:,}")
    return table


def _named(run: Answer) -> Text:
    return Text.assemble(visible(run["run_id"]), (f"\n{visible(run['held_back'])}" if run["held_back"] else "", "yellow"), overflow="fold")


def _reason(made: Answer) -> str:
    return f"{made['reason']} (against the verdict)" if made["forced"] else str(made["reason"])


def verification(answer: Answer) -> None:
    """Say whether everything that was computed again is what is published, and list what is not."""
    counted = " · ".join(f"{count:,} {name}" for name, count in answer["checked"].items())
    found = answer["mismatches"]
    if answer["matches"]:
        show(marked("✓", "green", f"{answer['run_id']} is what it says: everything computed again matches"))
    else:
        show(marked("✗", "red", f"{answer['run_id']} is not what it says: {len(found):,} mismatches"), _mismatches(found[:SHOWN]))
    hidden = len(found) - SHOWN
    if hidden > 0:
        show(plain(f"… and {hidden:,} more; --json lists all", "dim"))
    show(pairs({"  compared": plain(counted), "  manifest": plain(f"SHA-256 {answer['manifest_sha256']}", "dim")}))
    for part in answer["not_recomputed"]:
        show(marked("·", "dim", f"not computed again: {part}"))


def _mismatches(found: Iterable[Answer]) -> Table:
    table = figures_table("file", "what", "found", "expected")
    for one in found:
        table.add_row(plain(one["file"], "bold"), plain(one["what"]), plain(one["found"], "red"), plain(one["expected"]))
    return table
