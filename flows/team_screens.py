"""What people see of a team's stack: where its servers are, or that they stopped."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from flows import terminal
from flows.layout import command, figures_table, marked, place_of, plain, show, unbroken

Answer = Mapping[str, Any]


def up(answer: Answer) -> None:
    """Say where the servers are: the team's, or the one of this machine."""
    if "parts" not in answer:
        terminal.server(answer)
        return
    table = figures_table("", "address", ">pid")
    for part in answer["parts"]:
        address = plain(part["address"] or "pool cpu")
        if part["port"] != part["port_wanted"]:
            address.append(f"\nport {part['port_wanted']} was taken", "dim")
        table.add_row(plain(part["what"], "bold"), address, str(part["pid"]))
    new = sum(part["started_now"] for part in answer["parts"])
    told = f"{new} of {len(answer['parts'])} started just now" if new else "nothing had to be started"
    show(
        marked("✓", "green", f"The team's stack runs: {told}"),
        table,
        "",
        *unbroken(
            {
                "use it from this shell": command(f". {shlex.quote(answer['env_file'])}"),
                "data and logs": place_of(answer["folder"]),
                "stop it": command("prooftune down"),
            }
        ),
    )


def down(answer: Answer) -> None:
    """Say what stopped."""
    if answer["team"]:
        show(marked("✓", "green", f"Stopped: {', '.join(answer['team'])}; their data stays"))
    if answer["stopped"] or not answer["team"]:
        terminal.server(answer)
