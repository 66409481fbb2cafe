"""What the Prefect UI shows of a run: the verdict in Markdown, the loss as a curve, and what runs and stages are called."""

from __future__ import annotations

import base64
import inspect
import re
import string
from types import SimpleNamespace
from typing import Any
from uuid import UUID
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect import Task

from flows import finetune
from prooftune.economics.approvals import Question
from prooftune.report.story import code, question_story, verdict_story
from prooftune.report.wording import TITLES, named, sentence, with_flags
from prooftune.spec import parse_spec
from prooftune.types import Check, Progress, RunResult, Verdict
from tasks import live_loss
from tasks.live_loss import MOST_POINTS, SHOWN, LiveLoss, draw, with_live_loss
from tasks.names import title_of_run
from tests.fixtures_report import ACCURACY, HOSTILE, make_view

PLACES = {"report": "/store/runs/x/report.html", "manifest": "s3://bucket/runs/x/manifest.json"}


def result_of(verdict: Verdict, hostile: str = "") -> RunResult:
    """Return how a made-up run ended, its contestants out of order."""
    view = make_view(verdict)
    checks = (
        Check(name=f"forgetting{hostile}", passed=True, text=f"It forgot nothing.{hostile}"),
        Check(name="judge", passed=None, text="It says nothing."),
    )
    decision = view.decision.model_copy(update={"checks": checks, "reasons": (f"Because.{hostile}", *view.decision.reasons)})
    return RunResult(
        run_id="run-1",
        verdict=verdict,
        reasons=decision.reasons,
        decision=decision,
        evaluations=tuple(reversed(view.evaluations)),
        report=PLACES["report"],
        manifest=PLACES["manifest"],
    )


@pytest.mark.parametrize("verdict", ACCURACY)
def test_the_verdict_is_told_with_evidence_and_places(verdict: Verdict) -> None:
    """Title, reasons, a row a contestant in ladder order with intervals, what the gate checked, and where everything is."""
    text = verdict_story(result_of(verdict), "", PLACES, "prooftune show run-1")
    assert text.startswith(f"# {TITLES[verdict]}\n\n- Because.\n")
    names = re.findall(r"^\| (\S+) \| \d", text, flags=re.MULTILINE)
    assert names == ["zero-shot", "few-shot", *(["candidate"] if "candidate" in ACCURACY[verdict] else [])]
    assert re.search(r"\| \d\.\d{3} \(\d\.\d{3} to \d\.\d{3}\) \|", text)
    assert "- ✓ **forgetting**: It forgot nothing." in text
    assert "- ? **judge**" in text
    assert "- report: `/store/runs/x/report.html`" in text
    assert "- on the command line: `prooftune show run-1`" in text
    assert ("Candidate − few-shot: **" in text) == ("candidate" in ACCURACY[verdict])
    assert "\n\n\n" not in text


def test_whether_it_is_in_use_is_told_with_commands_to_copy() -> None:
    """It stands above the reasons; a command in it is code, whatever stands around it."""
    text = verdict_story(result_of("promote"), "Not in use: <b>: `prooftune approve x`; `rm`.", PLACES, "x")
    assert "\n\nNot in use: \\<b\\>: `prooftune approve x`; \\`rm\\`.\n\n- Because.\n" in text


def test_a_question_is_told_with_its_evidence_and_where_to_answer() -> None:
    """What is asked, why, a point each, places, the command, the time; a reader of another flow run is led to the one that waits."""
    question = Question(key="toy-1", usd=None, task="toy")
    asked = (question, "Because.", ["It is better.", "It is cheaper."], {"report": "/store/report.html"}, "prooftune approve toy-1", 1)
    here, above = question_story(*asked, ""), question_story(*asked, "http://server/runs/1")
    for text in (here, above):
        assert text.startswith("### toy-1 is to be the champion of toy\n\nBecause.\n\n- It is better.\n- It is cheaper.\n\n")
        assert "\n\nReport: `/store/report.html`\n\nNo answer within 1 hour is a no. " in text
        assert text.endswith("n the command line: `prooftune approve toy-1`\n")
    assert "(http://server/runs/1)" in above
    assert "answer" not in question_story(*asked[:4], "", 1, "").lower()
    assert "http" not in here


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("exact_match 0.3 → 0.9 (n = 60)", "Exact match 0.3 → 0.9 (n = 60)."),
        ("The gain over zero_shot, the best baseline, is real.", "The gain over zero-shot, the best baseline, is real."),
        ("metric json_valid: 1.0", "Metric JSON valid: 1.0."),
        ("set task.json_schema and data.min_examples!", "Set task.json_schema and data.min_examples!"),
        ("retrieved beats custom:tone.", "Retrieved few-shot beats tone."),
    ],
)
def test_a_reason_is_told_in_the_words_of_the_tables(text: str, told: str) -> None:
    """Metrics and contestants have one name each, fields of the spec keep theirs, and a sentence has its full stop."""
    assert sentence(text, "retrieved", "custom:tone", None) == told
    assert sentence(told) == told
    assert named("exact_match") == "exact match"


def test_commands_in_a_note_reach_its_store() -> None:
    """Each gets the flags, and nothing else is touched."""
    note = "waits: `prooftune approve x`; `prooftune promote t x --reason …` or `that`"
    assert with_flags(note, " --at s") == "waits: `prooftune approve x --at s`; `prooftune promote t x --reason … --at s` or `that`"
    assert with_flags(note, "") == note


def test_text_from_elsewhere_does_not_act_as_markdown() -> None:
    """Reasons and notes cannot open a tag, a link, a table cell or a code span."""
    hostile = HOSTILE + "[a](javascript:b) \n# big"
    verdict = verdict_story(result_of("promote", hostile), f"Rejected: {hostile}", {"report": "a`b``c"}, "x")
    question = question_story(Question(key="run-1", usd=3, task="t"), hostile, [hostile], {"report": "a`b``c"}, "x", 24, "")
    for text in (verdict, question):
        check_harmless(text)


def check_harmless(text: str) -> None:
    """Check that nothing of the hostile text acts."""
    assert "<script>" not in text.replace("\\<", "")
    assert "[a](" not in text.replace("\\[", "")
    assert "\n# big" not in text
    assert "```  a`b``c ```".replace("  ", " ") in text


@given(st.text(min_size=1))
def test_code_stays_code(text: str) -> None:
    """No run of backticks in a text is as long as the fence around it."""
    shown = str(code(text))
    fence = re.match(r"`+", shown)
    assert fence is not None
    inner = shown[len(fence[0]) : -len(fence[0])]
    assert fence[0] not in inner
    assert "\n" not in shown


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, UUID | None]]:
    """What the UI is told instead of a server: each text, and the artifact that it replaces."""
    told: list[tuple[str, UUID | None]] = []

    def show(text: str, key: str, description: str, known: UUID | None = None) -> UUID:
        assert key == "live-loss"
        told.append((text, known))
        return UUID(int=1)

    monkeypatch.setattr(live_loss, "show_markdown", show)
    return told


def test_the_loss_is_one_artifact_that_is_written_anew(shown: list[tuple[str, UUID | None]]) -> None:
    """The first loss makes it, later ones replace it now and then, and the last step always does."""
    passed: list[Progress] = []
    report = with_live_loss(passed.append)
    report(Progress(done=0, total=50, unit="steps", text="loading the model"))
    assert shown == []
    for step in range(1, 51):
        checked = f", validation {1 / (step // 10):.3f}" if step >= 10 else ""
        report(Progress(done=step, total=50, unit="steps", text=f"loss {2 / step:.3f}{checked}"))
    assert len(passed) == 51
    assert [known for _, known in shown] == [None, UUID(int=1)]
    last = shown[-1][0]
    rows = re.findall(r"^\| (\d+) \| (\S+) \|(.*)\|$", last, flags=re.MULTILINE)
    assert [row[0] for row in rows] == ["50", "40", "30", "20", "10"]
    assert rows[-1][2].strip() == "1"
    assert "Loss after step 50 of 50, in nats per token: train 0.04, validation 0.2." in last


def test_nothing_new_tells_nothing(shown: list[tuple[str, UUID | None]]) -> None:
    """Polling a job that tells no loss asks nothing of the server."""
    losses = LiveLoss()
    losses.add(1, float("nan"), float("inf"))
    losses.show(last=True)
    assert shown == []
    losses.add(2, 0.5, None)
    losses.show()
    losses.show(last=True)
    assert len(shown) == 1


curves = st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 1e6)), max_size=MOST_POINTS * 3)


@given(train=curves, validation=curves)
def test_the_curve_stays_in_its_picture(train: Any, validation: Any) -> None:
    """Whatever the losses are, the picture is well-formed, small, and every point lies in it."""
    if not train and not validation:
        return
    root = ElementTree.fromstring(draw(sorted(train), sorted(validation)))
    lines = [element.attrib["points"].split() for element in root.iter() if element.tag.endswith("polyline")]
    assert len(lines) == bool(train) + bool(validation)
    for line in lines:
        assert len(line) <= MOST_POINTS + 1
        for across, down in (map(float, point.split(",")) for point in line):
            assert 0 <= across <= live_loss.WIDTH
            assert 0 <= down <= live_loss.HEIGHT


def test_the_text_of_a_long_training_stays_small() -> None:
    """A hundred thousand steps make a curve and a table that a browser can show."""
    losses = LiveLoss(100_000)
    for step in range(100_000):
        losses.add(step, 1 / (step + 1), None)
    text = losses.text()
    picture = re.search(r"base64,([\w+/=]+)\)", text)
    assert picture is not None
    assert b"polyline" in base64.b64decode(picture[1])
    assert len(text) < 20_000
    assert text.count("\n| ") == SHOWN + 1


@pytest.mark.parametrize(
    ("backend", "title"),
    [
        ({}, "triage: lora of smollm2-135m-instruct"),
        ({"model": "/models/tiny/", "method": {"kind": "full"}}, "triage: full training of tiny"),
        ({"model": "owner/name-1b", "method": {"kind": "qlora"}, "provider": "ray"}, "triage: qlora of name-1b on ray"),
        ({"model": "gpt-4.1-mini", "provider": "openai"}, "triage: gpt-4.1-mini at openai"),
    ],
)
def test_a_run_is_called_by_what_it_does(backend: dict[str, Any], title: str) -> None:
    """The name of a flow run says the task, how and what is tuned, and never where a folder lies."""
    assert parse_spec({"name": "triage", "data": {"source": "x.jsonl"}, "backend": backend}).title == title


@pytest.mark.parametrize("name", ["hopeful-otter", "xi3-inoue-fringe", "Second try", "tickets again"])
def test_a_name_that_somebody_typed_is_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server and the form make names up, of words and dashes; only those are replaced by what the run does."""
    spec = parse_spec({"name": "triage", "data": {"source": "x.jsonl"}})
    context = SimpleNamespace(flow_run=SimpleNamespace(name=name), parameters={"spec": spec})
    monkeypatch.setattr("tasks.names.FlowRunContext", SimpleNamespace(get=lambda: context))
    assert title_of_run() == (spec.title if "-" in name else name)


def test_every_stage_says_what_it_does() -> None:
    """Each task of the main job has a name of a few words, and names no parameter that it has not."""
    stages = {task for task in vars(finetune).values() if isinstance(task, Task)}
    assert len(stages) > 25
    for stage in stages:
        name = str(stage.task_run_name)
        assert re.fullmatch(rf"{stage.name}: .{{3,40}}", name), name
        fields = {field for _, field, _, _ in string.Formatter().parse(name) if field}
        assert fields <= set(inspect.signature(stage.fn).parameters), name
