"""What people see of ``advise`` and ``break-even``."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from rich.text import Text

from flows.layout import command, figures_table, marked, pairs, plain, show, unbroken
from prooftune.report.wording import number

Answer = Mapping[str, Any]

NAMES = {
    "prompt": "Prompt it",
    "few_shot": "Prompt it with demonstrations",
    "rag": "Retrieve facts (RAG)",
    "larger_model": "Prompt a larger model",
    "managed": "Fine-tune at a provider",
    "lora": "Fine-tune with LoRA",
    "qlora": "Fine-tune with QLoRA",
    "full": "Fine-tune all weights",
    "collect_data": "Collect data first",
}
COLOURS = {"for": "green", "against": "yellow", "neutral": "dim"}
MARKS = {"for": "+", "against": "−", "neutral": "·"}


def advice(answer: Answer) -> None:
    """Show a recommendation and what it rests on."""
    findings = figures_table("", "topic", "figure", "what it says")
    for finding in answer["findings"]:
        speaks = finding["speaks"]
        findings.add_row(
            Text(MARKS[speaks], COLOURS[speaks]), plain(finding["topic"]), plain(finding["figure"]), plain(finding["text"], "dim")
        )
    show(
        Text(NAMES[answer["recommendation"]], "bold"),
        plain(answer["why"]),
        "",
        findings,
        *(marked("!", "yellow", f"A run would end in do_not_fine_tune. {reason}") for reason in answer["stops"]),
        plain("Before any model has run. What the baselines reach is weighed in the run, after they have.", "dim"),
        *unbroken({"next": command(shlex.join(["prooftune", "plan", answer["spec"], *_set(answer["overrides"])]))}),
    )


def _set(overrides: Iterable[str]) -> list[str]:
    return [part for text in overrides for part in ("--set", text)]


def break_even(answer: Answer) -> None:
    """Show when tuning is paid back."""
    requests, months, monthly = answer["requests"], answer["months"], answer["saving_usd_per_month"]
    rows = {
        "saved a request": plain(f"{answer['saving_usd_per_request']:.4f} USD"),
        "saved a month": plain("– (no volume given)" if monthly is None else f"{monthly:,.2f} USD"),
        "paid back": Text(_paid_back(requests, months, monthly), "bold"),
    }
    if requests is not None and months is not None:
        rows["that is"] = plain(f"after {months:.2f} months at {number(answer['requests_per_month'])} requests a month")
    show(pairs(rows))


def _paid_back(requests: int | None, months: float | None, monthly: float | None) -> str:
    """Say it in requests; in months where no request has to be answered for it."""
    if requests is not None:
        return f"after {number(requests)} requests"
    if months is not None:
        return f"after {months:.2f} months"
    return "never at these figures" if monthly is not None else "not to be said without --requests-per-month"
