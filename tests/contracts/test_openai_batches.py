"""A batch at OpenAI whose answer is lost: it is looked for, and not paid for twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures_stand_ins import StandIn, open_stand_in

from prooftune.errors import OutcomeUnknown
from prooftune.providers import batches
from prooftune.types import Message

PROMPT = [Message(role="system", content="Sort the ticket."), Message(role="user", content="ticket 4 about login, please help")]


@pytest.fixture(params=["openai", "azure"])
def here(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A provider's stand-in."""
    monkeypatch.setattr("prooftune.providers.calls.time.sleep", lambda seconds: None)
    with open_stand_in(request.param, tmp_path, monkeypatch) as found:
        yield found


def test_a_batch_whose_answer_is_lost_is_looked_for_in_lists_that_lag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions in a batch are paid for once, also where the answer to the request is lost and the next list does not show the batch."""
    monkeypatch.setattr(batches, "FIRST_POLL_S", 0.01)
    with open_stand_in("openai", tmp_path, monkeypatch) as here:
        ordered = [here.api.faults.order("error_after", "create_batch"), here.api.faults.order("stale", "list_batches", after=1)]
        assert len(here.tuner.chat(here.model).complete_batch([PROMPT], max_tokens=9, folder=tmp_path)) == 1
        assert ([one.fired for one in ordered], here.api.state()["batches"]) == ([1, 1], 1)


@pytest.mark.parametrize("made", [True, False])
def test_a_batch_of_which_nobody_knows_is_not_submitted_again_for_an_hour(
    made: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage's own retries look, and send nothing; what is in no list after an hour was not made, and is submitted anew."""
    monkeypatch.setattr(batches, "FIRST_POLL_S", 0.01)
    monkeypatch.setattr(batches, "SEARCH_S", 0.03)
    with open_stand_in("openai", tmp_path, monkeypatch) as here:
        chat = here.tuner.chat(here.model)
        lost = here.api.faults.order("error_after" if made else "error_before", "create_batch")
        lagging = here.api.faults.order("stale", "list_batches", times=10**6)
        for _ in range(5):
            with pytest.raises(OutcomeUnknown, match="looked for until"):
                chat.complete_batch([PROMPT], max_tokens=9, folder=tmp_path)
        assert (lost.fired, here.api.state()["batches"]) == (1, int(made))
        assert here.api.seen[-1][0] == "list_batches"
        if made:
            assert lagging.fired > 5
            here.api.faults.clear()
        else:
            monkeypatch.setattr(batches, "LISTED_WITHIN_S", -1.0)
        assert len(chat.complete_batch([PROMPT], max_tokens=9, folder=tmp_path)) == 1
        assert here.api.state()["batches"] == 1
