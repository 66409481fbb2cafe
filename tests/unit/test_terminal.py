"""What people see: screens of any width, with and without a terminal, and progress while a run runs."""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from rich.console import Console

import flows.live
from flows import terminal
from prooftune.providers.serving import LEFT_UP, SWEEP
from prooftune.types import Progress, Verdict

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def evaluation(name: str, value: float) -> dict[str, Any]:
    """A contestant's evaluation with two metrics, one of them partly unscored."""
    metrics = {
        "exact_match": {"name": "exact_match", "value": value, "ci_low": value - 0.1, "ci_high": value + 0.1, "n": 172, "unscored": 0},
        "macro_f1": {"name": "macro_f1", "value": value, "ci_low": value - 0.1, "ci_high": value + 0.1, "n": 170, "unscored": 2},
    }
    figures = {"answer_tokens_p50": 21.0, "answer_tokens_p95": 23.0, "prompt_tokens_mean": 61.3, "latency_p50_s": 1.3, "latency_p95_s": 1.9}
    return {"name": name, "description": "", "metrics": metrics, **figures}


def outcome(verdict: str) -> dict[str, Any]:
    """What ``run --json`` says for a verdict."""
    trained = verdict != "do_not_fine_tune"
    decision = {
        "verdict": verdict,
        "metric": "exact_match",
        "baseline": "few_shot",
        "baseline_value": 0.186,
        "candidate_value": 0.663 if trained else None,
        "difference": 0.477 if trained else None,
        "n": 172,
    }
    evaluations = [evaluation("zero_shot", 0.1), evaluation("few_shot", 0.186), *([evaluation("candidate", 0.663)] if trained else [])]
    return {
        "run_id": "support-triage-1f3ab2c4d5e6",
        "verdict": verdict,
        "reasons": ["The first reason, which is long enough to need a second line on a terminal of eighty columns.", "The second reason."],
        "decision": decision,
        "evaluations": evaluations,
        "stages": [{"name": "ingest", "seconds": 0.02, "cached": True}, {"name": "train", "seconds": 288.2, "cached": False}],
        "report": "/a/very/long/path/that/is/much/longer/than/eighty/columns/would/ever/hold/support-triage-1f3ab2c4d5e6/report.html",
        "manifest": "s3://bucket/prefix/manifest.json",
        "ui_url": "http://127.0.0.1:4200/runs/flow-run/1",
    }


LISTING = {
    "store": "/store",
    "runs": [{"run_id": "support-triage-1f3ab2c4d5e6", "report": "", **outcome("promote")["decision"]}],
}
EXAMINED = {
    "ok": False,
    "failed": 1,
    "warned": 1,
    "items": [
        {"name": "CPU", "status": "ok", "found": "2 cores", "needed": "2 cores", "todo": ""},
        {"name": "disk", "status": "warn", "found": "1 GiB", "needed": "2 GiB", "todo": "free some"},
        {"name": "store", "status": "fail", "found": "no", "needed": "writable", "todo": "chmod it"},
    ],
}
CHECKED = {
    "usable": False,
    "name": "triage",
    "rows": 10,
    "invalid": 2,
    "kept": 8,
    "shape": "chat",
    "split": None,
    "findings": {"broken-line": {"dropped": 2}},
    "reasons": ["2 of 10 rows are invalid"],
    "warnings": ["Look at this."],
    "problems": [
        {"where": f"a\x1b[2J.jsonl:{row}", "code": "broken-line", "reason": "is [bold]not JSON\x1b]0;evil\x07", "action": "dropped"}
        for row in (3, 4)
    ],
}


def seen(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what was printed, without colours and folded white space."""
    return " ".join(ESCAPE.sub("", capsys.readouterr().out).split())


@pytest.mark.parametrize("width", ["60", "80", "200"])
@pytest.mark.parametrize("verdict", get_args(Verdict))
def test_a_result_says_everything_at_any_width(
    verdict: str, width: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Verdict, reasons, contestants, seconds and places are there, and the places stand unbroken on one line."""
    monkeypatch.setenv("COLUMNS", width)
    answer = outcome(verdict)
    terminal.result(answer)
    lines = ESCAPE.sub("", capsys.readouterr().out).splitlines()
    for place in ("report", "manifest", "ui_url"):
        assert any(answer[place] in line for line in lines)
    text = "".join("".join(line.strip("│ ") for line in lines).split())
    for words in (terminal.TITLES[verdict], "The second reason", "0.186", "4 min 48 s", "2 unscored"):
        assert "".join(words.split()) in text
    assert ("47.7points" in text) == (verdict != "do_not_fine_tune")


def test_colour_only_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe gets no escape codes; NO_COLOR takes the colours from a terminal."""

    def printed(**environment: str) -> str:
        for name in ("NO_COLOR", "FORCE_COLOR", "TERM", "COLORTERM"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stdout", stream)
        terminal.result(outcome("promote"))
        return stream.getvalue()

    assert "\x1b" not in printed()
    assert "\x1b[32m" in printed(FORCE_COLOR="1", TERM="xterm") or "32" in printed(FORCE_COLOR="1", TERM="xterm")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7][;m]", printed(FORCE_COLOR="1", TERM="xterm", NO_COLOR="1"))


def test_text_from_data_is_neither_markup_nor_control_code(capsys: pytest.CaptureFixture[str]) -> None:
    """Escape sequences in names and reasons are shown as characters, and brackets stay."""
    terminal.validation(CHECKED)
    raw = capsys.readouterr().out
    assert "\x1b[2J" not in raw
    assert "\x07" not in raw
    assert "[bold]not" in raw
    assert "⟨U+001B⟩" in raw


def test_the_other_screens_say_what_matters(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Validation, listing, examination, server and init screens hold the words that a reader looks for."""
    terminal.validation(CHECKED)
    assert "the data is not usable" in (text := seen(capsys))
    assert ":3, 4" in text
    terminal.result(LISTING)
    assert "support-triage-1f3ab2c4d5e6 promote 0.186 → 0.663 +47.7 172" in seen(capsys)
    terminal.result({"store": "/store", "runs": []})
    assert "No runs in /store" in seen(capsys)
    terminal.examination(EXAMINED)
    assert "✗ store no needed: writable → chmod it" in (text := seen(capsys))
    assert "1 of 3 must be put right" in text
    terminal.server({"running": True, "local": True, "ui": "http://127.0.0.1:4200"})
    assert "runs at http://127.0.0.1:4200" in seen(capsys)
    terminal.server({"running": False, "stopped": False, "ui": None})
    assert "No local Prefect server" in seen(capsys)
    terminal.initialised({"directory": "d", "spec": "d/a b.yaml", "data": "d/t.jsonl", "rows": 715, "name": "d"})
    assert "prooftune validate 'd/a b.yaml'" in seen(capsys)


def test_a_plan_without_seconds_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown seconds are question marks with a reason, not zeros."""
    split = {"total": 10}
    terminal.plan(
        {
            "name": "a",
            "data": {"rows": 3, "kept": 2, "split": {"train": 1, "validation": 1, "holdout": 1, "unused": 4}},
            "tokens": {"exact": False, "how": "guessed", "train": split, "validation": split, "holdout": split},
            "model": {"name": "m", "here": False, "parameters": None, "trained": None, "method": "lora"},
            "training": {"steps": 1, "epochs": 1.0, "tokens": 10},
            "machine": {"device": "cpu", "cores": 2, "gflops": 100.0},
            "stages": [{"name": "train", "what": "train", "seconds": None}],
            "seconds": None,
            "seconds_note": "not here",
            "cost_usd": 0.0,
            "cost_reason": "local",
            "kept": ["openai (judge) keeps prompts."],
            "warnings": [],
        }
    )
    text = seen(capsys)
    assert "openai (judge) keeps prompts." in text
    assert "train train ?" in text
    assert "unknown: not here" in text
    assert "about 10" in text
    assert "4 unused" in text


def test_a_managed_plan_shows_the_money(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines with quantity and price, the sum, and what the limits mean for it."""
    line = {"what": "training", "quantity": 46599.0, "unit": "tokens", "usd_per_unit": 5e-6, "usd": 0.232995}
    hour = {"what": "hosting, for the evaluation", "quantity": 2.0, "unit": "hour", "usd_per_unit": 1.7, "usd": 3.4}
    limits = {"max_usd": 3, "allowed": False, "approve_above_usd": 1, "needs_approval": True, "approve_within_hours": 24, "beyond": ""}
    split = {"total": 10}
    answer = {
        "name": "a",
        "data": {"rows": 3, "kept": 2, "split": {"train": 1, "validation": 1, "holdout": 1, "unused": 4}},
        "tokens": {"exact": True, "how": "o200k_base", "train": split, "validation": split, "holdout": split},
        "model": {"name": "gpt-4.1-mini", "provider": "openai", "method": "supervised"},
        "training": {"epochs": 3, "tokens": 46599},
        "stages": [{"name": "wait", "what": "wait for the job", "seconds": None}],
        "seconds_note": "it takes its time",
        "estimate": {"lines": [line, hour], "usd": 3.632995, "longest_usd": 5.1, "warnings": ["old prices"]},
        "limits": limits | {"monthly_usd": 500, "project": "default"},
        "kept": ["openai (backend) keeps files."],
        "warnings": [],
    }
    terminal.plan(answer)
    text = seen(capsys)
    assert "training 46,599 tokens $5 / 1M $0.23" in text
    assert "hosting, for the evaluation 2 hours $1.70 / hour $3.40" in text
    assert "in all $3.63" in text
    assert "with every answer at its longest $5.10" in text
    assert "wait wait for the job ?" in text
    assert "✗ above budget.max_usd, $3: a run would be refused" in text
    assert "a person has to say yes within 24 hours" in text
    assert "! old prices" in text
    assert "openai (backend) keeps files." in text
    terminal.plan(answer | {"limits": answer["limits"] | {"allowed": True, "needs_approval": False, "approve_above_usd": None}})
    assert "nobody has to approve it: budget.approve_above_usd is null" in seen(capsys)


@pytest.fixture
def tell() -> Iterator[Any]:
    """Send an event to whoever listens."""
    from tasks import listening

    yield listening.tell
    assert listening.listeners == []


def test_without_a_terminal_progress_is_plain_lines(tell: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Start, end and now and then a line in between, on stderr, without escape codes."""
    from tasks.listening import Said, StageFinished, StageStarted

    with flows.live.live_progress():
        tell(StageStarted("train"))
        tell(("train", Progress(done=1, total=9, unit="steps", text="loss 2.1")))
        monkeypatch.setattr(flows.live.time, "monotonic", lambda: 1e9)
        tell(("train", Progress(done=2, total=9, unit="steps", text="loss 2.0\x1b[2J")))
        tell(StageFinished("train", 12.3, cached=False))
        tell(Said("The server is away.\x1b[2J"))
        tell(StageFinished("gate", 0.3, cached=True))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "train: started",
        "train: 2/9 steps · loss 2.0⟨U+001B⟩[2J",
        "train: done in 12.3 s",
        "The server is away.⟨U+001B⟩[2J",
        "gate: already done",
    ]


def test_what_goes_on_costing_money_is_said_on_the_terminal(tell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Of what nobody takes down it is not enough that the log says so: whoever runs the command does not see that. Only while it runs."""
    serving = logging.getLogger("prooftune.providers.serving")
    with flows.live.live_progress():
        serving.error("the deployment %s may still run \x1b[2J", "prooftune-01")
        serving.warning(LEFT_UP, "prooftune-02", SWEEP)
        serving.info("as it should be")
    serving.error("nobody listens")
    assert capsys.readouterr().err.splitlines() == [
        "the deployment prooftune-01 may still run ⟨U+001B⟩[2J",
        LEFT_UP % ("prooftune-02", SWEEP),
    ]
    assert not serving.handlers


def test_on_a_terminal_each_stage_has_a_line(tell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Done, cached and failed stages are marked; figures of a running one stand beside its bar."""
    from tasks.listening import Said, StageFinished, StageStarted

    stream = io.StringIO()
    monkeypatch.setattr(flows.live, "Console", lambda **_: Console(file=stream, force_terminal=True, width=80, _environ={"TERM": "xterm"}))

    def run() -> None:
        with flows.live.live_progress():
            tell(StageStarted("ingest"))
            tell(StageFinished("ingest", 0.3, cached=True))
            tell(StageFinished("split", 0.3, cached=False))
            tell(Said("The server is away.\x1b[2J"))
            tell(("train", Progress(done=12, total=56, unit="steps", text="loss 0.154, validation 0.417")))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run()
    last = ESCAPE.sub("", stream.getvalue()).replace("\r", "").splitlines()[-4:]
    text = "\n".join(re.sub(r"\x1b\[.*?[A-Za-z]", "", line) for line in last)
    assert re.search(r"✓ ingest\s+already done\s+300 ms", text)
    assert re.search(r"✓ split\s+300 ms", text)
    assert "! The server is away." in ESCAPE.sub("", stream.getvalue())
    assert re.search(r"✗ train\s+━.*12/56 steps · loss 0.154, validation 0.417", text)
