"""A managed run in words and tables: the job, where the tuned model is and until when, and the bill beside its estimate."""

from __future__ import annotations

from typing import Final, get_args

from prooftune.economics.bill import Part, estimated_by_part
from prooftune.report.tables import Cell, Table
from prooftune.report.view import RunView
from prooftune.report.wording import duration, number, usd

NAMES: Final = {
    "openai": "OpenAI",
    "azure": "Azure OpenAI",
    "bedrock": "Amazon Bedrock",
    "vertex": "Vertex AI",
    "together": "Together",
    "fireworks": "Fireworks",
}
WEIGHTS: Final = (".safetensors", ".bin", ".zst", ".tar", ".tgz", ".zip")
"""What the name of a result file with weights ends in."""
WHAT: Final[dict[Part, str]] = {
    "training": "training",
    "base model": "answers of the base model",
    "tuned model": "answers of the tuned model",
    "larger model": "answers of the larger model",
    "judge": "the judge's verdicts",
    "hosting": "hosting",
}


def provider_name(view: RunView) -> str:
    """Return the backend's name as people write it."""
    return NAMES.get(view.spec.backend.provider, view.spec.backend.provider)


def tuned_model(view: RunView) -> str:
    """Return the tuned model as the provider calls it; empty where nothing was trained."""
    return view.managed.model if view.managed else str(view.figures.get("train", {}).get("tuned_model") or "")


def whereabouts(view: RunView) -> str:
    """Return where the tuned model is, who has its weights, and until when it answers; empty where nothing was trained."""
    if (managed := view.managed) is None:
        return ""
    name = provider_name(view)
    files = [str(file) for file in view.figures.get("train", {}).get("result_files", ()) if str(file).endswith(WEIGHTS)]
    here = f" and are among this run's files ({', '.join(f'result/{file}' for file in files)})" if files else ""
    weights = f"Its weights can be downloaded{here}" if managed.owns_weights else f"Its weights stay at {name}: they cannot be downloaded"
    until = f"It answers until {managed.shutdown}." if managed.shutdown else f"{name} names no day on which it stops to answer."
    return f"The tuned model answers at {name}. {weights}. {until}"


def facts(view: RunView) -> list[tuple[str, str]]:
    """Return what identifies the job and what became of it."""
    managed, job = view.managed, view.job
    if managed is None:
        return []
    seconds = view.figures.get("train", {}).get("job_seconds")
    told: dict[str, str | None] = {
        "provider": provider_name(view),
        "address": managed.address,
        "base model": managed.base_model,
        "tuned model": managed.model,
        "job": managed.job,
        "run key": managed.key,
        "status": job.job.told if job else None,
        "took": duration(seconds) if seconds else None,
        "checkpoints": ", ".join(f"step {checkpoint.step}" for checkpoint in job.checkpoints) or "none" if job else None,
        "weights": "can be downloaded" if managed.owns_weights else f"stay at {provider_name(view)}",
        "answers until": managed.shutdown or "no end is known",
    }
    return [(name, value) for name, value in told.items() if value is not None]


def history(view: RunView) -> list[tuple[str, str]]:
    """Return ``(when, what)`` of the ledger's notes on the job, oldest first."""
    return [(f"{step.at[:19].replace('T', ' ')} UTC", step.what) for step in view.job.history] if view.job else []


def bill_table(view: RunView) -> Table:
    """Return each part of the estimate beside what was billed for it; without a bill, the estimate's lines."""
    if view.estimate is None:
        return Table((), ())
    if (bill := view.bill) is None:
        lines = ((line.what, (_quantity(line.quantity, line.unit), Cell(usd(line.usd)))) for line in view.estimate.lines)
        return Table(("quantity", "estimated"), (*lines, ("in all", (Cell(""), Cell(usd(view.estimate.usd))))))
    estimated = estimated_by_part(view.estimate.lines)
    rows = []
    for part in get_args(Part):
        lines_of = [line for line in bill.lines if line.part == part]
        if not lines_of and not estimated[part]:
            continue
        told = ", ".join(dict.fromkeys(line.told_by for line in lines_of))
        amount = _quantity(sum(line.quantity for line in lines_of), lines_of[0].unit) if lines_of else Cell("–")
        rows.append((WHAT[part], (Cell(usd(estimated[part])), Cell(usd(bill.of(part)) if lines_of else "–"), amount, Cell(told or "–"))))
    rows.append(("in all", (Cell(usd(bill.estimated_usd)), Cell(usd(bill.usd)), Cell(""), Cell(""))))
    return Table(("estimated", "billed", "measured", "priced by"), tuple(rows))


def bill_sentence(view: RunView) -> str:
    """Return the bill, the estimate and how far they are apart; empty without an estimate."""
    if (estimate := view.estimate) is None:
        return ""
    if (bill := view.bill) is None:
        return f"The run was estimated to cost {usd(estimate.usd)}."
    if bill.error is None:
        apart = "nothing was billed"
    elif bill.error >= 1:
        apart = f"the estimate was {bill.error + 1:.3g} times the bill"
    else:
        apart = f"the estimate was {100 * abs(bill.error):.1f} % {'above' if bill.error >= 0 else 'below'} the bill"
    text = f"The run was billed {usd(bill.usd)} and estimated at {usd(bill.estimated_usd)}: {apart}."
    if not bill.left_out:
        return text
    counted = f" For that the project's month counts {usd(bill.untold_usd)}, as it was estimated." if bill.untold else ""
    return f"{text} Not in the bill: {'; '.join(bill.left_out)}.{counted}"


def tokens_sentence(view: RunView) -> str:
    """Return the trained tokens as they were estimated and as they were billed; empty where neither is known."""
    if (bill := view.bill) is None or bill.training_tokens_billed is None:
        return ""
    how = f" ({view.estimate.how})" if view.estimate and view.estimate.how else ""
    if bill.training_tokens_billed == bill.training_tokens_estimated:
        return f"The {number(bill.training_tokens_billed)} trained tokens were estimated to the token{how}."
    return f"Trained tokens: {number(bill.training_tokens_estimated)} estimated{how}, {number(bill.training_tokens_billed)} billed."


def approval_sentence(view: RunView) -> str:
    """Return who agreed to the estimate, or why nobody was asked; empty without an estimate."""
    if view.estimate is None:
        return ""
    if (said := view.approval) is not None:
        why = f": {said.reason}" if said.reason else ""
        word = "approved" if said.approved else "rejected"
        return f"{usd(said.usd or 0.0)} {word} by {said.by} on {said.at[:16].replace('T', ' ')} UTC{why}."
    limit = view.spec.budget.approve_above_usd
    return "Nobody had to approve it." if limit is None else f"Nobody had to approve it: budget.approve_above_usd is {usd(limit)}."


def _quantity(quantity: float, unit: str) -> Cell:
    if unit == "tokens":
        return Cell(f"{quantity:,.0f} tokens")
    return Cell(f"{quantity:.4g} {unit}{'' if quantity == 1 else 's'}")
