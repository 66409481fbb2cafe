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

LLAMA_3_1, LLAMA_3_2 = "meta.llama3-1-8b-instruct-v1:0:128k", "meta.llama3-2-3b-instruct-v1:0:128k"
OPEN = {"together": "Qwen/Qwen3.5-9B", "fireworks": "accounts/fireworks/models/llama-v3p1-8b-instruct"}
SYSTEM = "Sort the ticket; ä, 票 and 🎫 are tickets too."


@pytest.mark.parametrize(
    ("provider", "model", "exact"),
    [
        ("openai", None, True),
        ("azure", None, True),
        ("together", None, True),
        ("fireworks", None, True),
        ("bedrock", LLAMA_3_1, False),
        ("bedrock", LLAMA_3_2, True),
    ],
)
def test_the_estimate_is_the_bill(provider: str, model: str | None, exact: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs over forty rows with a system message cost the tokens that were estimated, each row counted in the form it is sent in.

    Of Llama 3.1 at Bedrock that says less: what AWS puts around prompt and completion is not published, so it is called no exact count.
    """
    is_open = provider in OPEN or model is not None
    tokenizer = make_model(tmp_path / "tokenizer") if is_open else None
    with open_stand_in(provider, tmp_path, monkeypatch) as here:
        if tokenizer is not None:
            here.api.works.brain.counter = counter_of(provider, str(tokenizer)).conversation_tokens  # type: ignore[attr-defined]
        rows = tmp_path / "rows.jsonl"
        here.tuner.write_rows(here.examples(40), SYSTEM, "supervised", rows, model)
        order = here.order(rows, model=model or here.model)
        job = here.tuner.create(order, here.uploaded(rows, order))
        here.api.works.settle()  # type: ignore[attr-defined]
        billed = here.api.state()["billed_tokens"]
        assert here.tuner.job(job.id).billed_tokens == (None if provider == "bedrock" else billed)  # Bedrock does not tell it
        examples = list(read_lines(here.examples(40), Example))
    estimated = billable_tokens(provider, model or OPEN.get(provider, here.model), examples, SYSTEM, tokenizer)
    assert estimated.exact == exact
    assert billed == estimated.tokens * order.hyperparameters.epochs > 0
