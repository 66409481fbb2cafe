"""Whether one run's holdout may go to the model of another, at its provider."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prooftune.data.lines import write_lines
from prooftune.evaluation.champion_rules import why_not_sent
from prooftune.spec import Data, RunSpec, parse_spec
from prooftune.types import Example, Message

PERSONAL = "write to ada@example.org"


def holdout(folder: Path, text: str = "hello") -> Path:
    """Write one example."""
    path = folder / "holdout.jsonl"
    messages = (Message(role="user", content=text), Message(role="assistant", content="to x@example.org"))
    write_lines(path, [Example(id="1", messages=messages, source="x:1")])
    return path


def run(provider: str = "openai", **data: Any) -> RunSpec:
    """A run with a model there."""
    return parse_spec({"name": "x", "data": {"source": "x"} | data, "backend": {"provider": provider, "model": "m"}})


@pytest.mark.parametrize(
    ("rules", "kept", "said"),
    [
        pytest.param({"residency": "eu"}, {}, "must stay in eu", id="a region that was none of its rules"),
        pytest.param({"residency": "eu"}, {"residency": "us"}, "must stay in eu", id="another region"),
        pytest.param({"residency": "eu"}, {"residency": "eu"}, "", id="the same region"),
        pytest.param({}, {"residency": "us"}, "", id="no rule"),
        pytest.param({"max_retention_days": 7}, {}, "may be kept for 7 days", id="a period that was none of its rules"),
        pytest.param({"max_retention_days": 7}, {"max_retention_days": 8}, "may be kept for 7 days", id="a longer period"),
        pytest.param({"max_retention_days": 7}, {"max_retention_days": 7}, "", id="the same period"),
    ],
)
def test_the_stricter_rule_holds(rules: dict[str, Any], kept: dict[str, Any], said: str, tmp_path: Path) -> None:
    """What the other run did not keep to is not shown to be kept; a model on this machine may be asked all."""
    data, path = Data(source="x", **rules), holdout(tmp_path)
    found = why_not_sent(data, path, run(**kept))
    assert said in found
    assert bool(said) == bool(found)
    assert why_not_sent(data, path, run("local", **kept)) == ""


def test_personal_data_of_one_run_go_to_no_provider_of_another(tmp_path: Path) -> None:
    """A holdout that data.pii: allow left as it was is looked through; without personal data it may go."""
    allowed = Data(source="x", pii="allow")
    assert "(1 pii-email)" in why_not_sent(allowed, holdout(tmp_path, PERSONAL), run())
    assert why_not_sent(allowed, holdout(tmp_path), run()) == ""
    assert why_not_sent(allowed, holdout(tmp_path, PERSONAL), run("local")) == ""
    assert why_not_sent(Data(source="x"), holdout(tmp_path, PERSONAL), run()) == ""
