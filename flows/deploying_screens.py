"""What people see of ``deploy`` and ``automations``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flows.layout import command, figures_table, marked, pairs, plain, show, unbroken

Answer = Mapping[str, Any]

COLOURS = {"created": "green", "changed": "yellow", "removed": "red", "unchanged": "dim", "deployed": "green"}


def deployed(answer: Answer) -> None:
    """Say what became of each pool, limit, deployment and automation."""
    store = {"  store": plain(answer["store"])} if answer["store"] else {}
    show(
        marked("✓", "green", f"{len(answer['deployments'])} deployments are on {answer['ui']}"),
        pairs({"  deployments": plain(", ".join(answer["deployments"]))} | store),
    )
    table = figures_table("kind", "name", "became")
    for kind, rows in (("pool", answer["pools"]), ("limit", answer["limits"]), ("automation", answer["automations"])):
        for row in rows:
            name = f"{row['tag']}: {row['limit']}" if kind == "limit" else row["name"]
            table.add_row(plain(kind, "dim"), plain(name), plain(row["became"], COLOURS[row["became"]]))
    show(table)
    _notifications(answer)


def applied(answer: Answer) -> None:
    """Say what became of each automation."""
    for row in answer["automations"]:
        show(marked("✓", COLOURS[row["became"]], f"{row['name']}: {row['became']}"))
    _notifications(answer)


def automations(answer: Answer) -> None:
    """List the automations of ours."""
    if not answer["automations"]:
        show(marked("!", "yellow", "the server has no automation of ours; `prooftune automations apply` makes them"))
        return
    table = figures_table("automation", "what it does", "")
    for row in answer["automations"]:
        table.add_row(plain(row["name"]), plain(row["description"]), plain("" if row["enabled"] else "paused", "yellow"))
    show(table)
    _notifications(answer)


def _notifications(answer: Answer) -> None:
    if answer["channels"]:
        show(marked(" ", "dim", f"notifications go to {', '.join(answer['channels'])}"))
    if left_out := answer.get("left_out"):
        show(
            marked("!", "yellow", f"left out: {', '.join(left_out)}. No block named prooftune-notify-… is registered."),
            marked(
                " ",
                "dim",
                "Make one in the UI (Blocks: Slack Webhook, Sendgrid Email, Webhook …), or with a secret from the environment:",
            ),
            *unbroken({"": command(answer["register"])}),
            marked(" ", "dim", "and apply again."),
        )
