"""What is estimated before a job is what the stand-in bills after it, to the token, wherever the tokenizer is public."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fixtures_models import make_model
from fixtures_stand_ins import open_stand_in

from prooftune.data.counting import counter_of
from prooftune.data.lines import read_lines
from prooftune.economics.billable import billable_tokens
from prooftune.types import Example

if TYPE_CHECKING:
    from pathlib import Path

OPEN = {"together": "Qwen/Qwen3.5-9B", "fireworks": "accounts/fireworks/models/llama-v3p1-8b-instruct"}
SYSTEM = "Sort the ticket; ä, 票 and 🎫 are tickets too."


@pytest.mark.parametrize("provider", ["openai", "azure", "together", "fireworks"])
def test_the_estimate_is_the_bill(provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs over forty rows with a system message cost exactly the tokens that were estimated."""
    tokenizer = make_model(tmp_path / "tokenizer") if provider in OPEN else None
    with open_stand_in(provider, tmp_path, monkeypatch) as here:
        if tokenizer is not None:
            here.api.works.brain.counter = counter_of(provider, str(tokenizer)).conversation_tokens  # type: ignore[attr-defined]
        rows = here.rows(40, SYSTEM)
        order = here.order(rows)
        job = here.tuner.create(order, here.uploaded(rows, order))
        here.api.works.settle()  # type: ignore[attr-defined]
        billed = here.tuner.job(job.id).billed_tokens
        examples = list(read_lines(here.examples(40), Example))
    estimated = billable_tokens(provider, OPEN.get(provider, here.model), examples, SYSTEM, tokenizer)
    assert estimated.exact
    assert billed == estimated.tokens * order.hyperparameters.epochs
