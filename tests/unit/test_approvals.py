"""A person's answer to an estimate: the first one counts, for its amount and, if it is a yes, for less."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.exceptions import FlowPauseTimeout, NotPausedError, ObjectNotFound

from prooftune.economics.approvals import Answer, answer, ask, open_questions, read, waiting
from prooftune.errors import IntegrityError, SpecError, StoreUnavailable, TransientError
from prooftune.storage.local import LocalStore
from prooftune.storage.objects import ObjectStore
from tasks import approval


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """A local store."""
    return LocalStore(tmp_path / "store")


def say(store: ObjectStore, usd: float, approved: bool, by: str = "ada", key: str = "run") -> Answer:
    """Answer."""
    return answer(store, key, usd, approved=approved, by=by, reason="because")


def test_the_first_answer_counts(store: ObjectStore) -> None:
    """Who comes second is told what the first one said."""
    assert read(store, "run", 30) is None
    first = say(store, 30, approved=True)
    assert say(store, 30, approved=False, by="bob") == first
    assert read(store, "run", 30) == first
    assert read(store, "other-run", 30) is None


def test_of_answers_at_once_one_counts(store: ObjectStore) -> None:
    """In 50 races everybody is told the same answer, and it is the one that is kept."""
    for race in range(50):
        gate = threading.Barrier(4)

        def reply(person: int, race: int = race, gate: threading.Barrier = gate) -> Answer:
            gate.wait()
            return say(store, 30, approved=person % 2 == 0, by=f"person {person}", key=f"run-{race}")

        with ThreadPoolExecutor(4) as pool:
            told = list(pool.map(reply, range(4)))
        assert len({one.by for one in told}) == 1
        assert read(store, f"run-{race}", 30) == told[0]


@pytest.mark.parametrize(
    ("said", "usd", "counts"),
    [
        pytest.param([(30, True)], 30.004, True, id="a fraction of a cent is no difference"),
        pytest.param([(30, True)], 30.01, None, id="a higher estimate is asked for anew"),
        pytest.param([(30, True)], 12.5, True, id="a yes covers less"),
        pytest.param([(30, False)], 12.5, None, id="a no covers its amount alone"),
        pytest.param([(30, False)], 40, None, id="a higher estimate after a no is asked for anew"),
        pytest.param([(30, False), (40, True)], 35, True, id="a yes to more covers what lies between"),
        pytest.param([(30, False), (40, True)], 30, False, id="an answer to the amount itself comes first"),
    ],
)
def test_an_answer_is_to_an_amount(store: ObjectStore, said: list[tuple[float, bool]], usd: float, counts: bool | None) -> None:
    """What counts for an estimate follows from the amounts that were answered."""
    for amount, approved in said:
        say(store, amount, approved=approved)
    found = read(store, "run", usd)
    assert (None if found is None else found.approved) == counts


def test_what_waits_is_told_until_it_is_answered(store: ObjectStore) -> None:
    """A question stands until its amount is answered; asked by a later flow run, that one is to be woken."""
    ask(store, "run", 30, "flow-1")
    ask(store, "run", 30, "flow-2")
    ask(store, "run-2", 5, None)
    assert waiting(store, "run").flow_run == "flow-2"
    assert [asked.key for asked in open_questions(store)] == ["run-2", "run"]
    say(store, 30, approved=False)
    assert [asked.key for asked in open_questions(store)] == ["run-2"]
    ask(store, "run", 31, "flow-3")
    assert {asked.key: asked.usd for asked in open_questions(store)} == {"run-2": 5, "run": 31}


@pytest.mark.parametrize("key", ["unknown", "../../etc/passwd", "white space"])
def test_a_run_that_asked_nothing_is_named(store: ObjectStore, key: str) -> None:
    """The message says which runs do wait, whatever was typed."""
    ask(store, "run", 30, None)
    with pytest.raises(SpecError, match="waiting: run"):
        waiting(store, key)


def test_damaged_files_are_told(store: ObjectStore) -> None:
    """Neither a question nor an answer is guessed."""
    store.put("ledger/approvals/asked/run.json", b"{}")
    store.put("ledger/approvals/answers/run/3000.json", b"yes")
    with pytest.raises(IntegrityError, match=r"asked/run\.json is damaged"):
        waiting(store, "run")
    with pytest.raises(IntegrityError, match=r"3000\.json is damaged"):
        read(store, "run", 30)


def test_an_answer_wakes_the_run_however_often_that_fails_before(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is not paused yet, a server or a store that is away: the next look tries again, and the answer arrives."""
    say(store, 30, approved=True)
    gone = httpx.HTTPStatusError("404", request=httpx.Request("GET", "http://x"), response=httpx.Response(404))
    troubles = [
        NotPausedError("x"),
        FlowPauseTimeout("x"),
        ObjectNotFound(gone),
        gone,
        httpx.ConnectError("x"),
        RuntimeError("Failed to reach"),
    ]
    away = [StoreUnavailable("x"), TransientError("x")]
    given: list[dict[str, Any]] = []
    arrived = threading.Event()

    def look(*asked: Any) -> Answer | None:
        if away:
            raise away.pop()
        return read(*asked)

    def resume(run: UUID, run_input: dict[str, Any]) -> None:
        if troubles:
            raise troubles.pop()
        given.append(run_input)
        arrived.set()

    monkeypatch.setattr(approval, "LOOK_S", 0.01)
    monkeypatch.setattr(approval, "flow_run", SimpleNamespace(id=str(uuid4())))
    monkeypatch.setattr(approval, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(approval, "resume_flow_run", resume)
    monkeypatch.setattr(approval, "read", look)
    with approval._woken(store, "run", 30, hours=1):
        assert arrived.wait(20), (troubles, away)
    assert given[0] == {"decision": "approve", "by": "ada", "reason": "because"}
