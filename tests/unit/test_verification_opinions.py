"""``verify`` on the general suite and the judge: what is summarised follows from the items."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from prooftune.evaluation.general import Answers, Question, Text, compare_suite
from prooftune.evaluation.judge import JudgedPair, summarise, verdict_on
from prooftune.evidence import Forgetting
from prooftune.providers.chat import ChatAnswer
from prooftune.spec import RunSpec, parse_spec
from prooftune.storage.local import LocalStore
from prooftune.storage.manifest import publish, read_manifest
from prooftune.types import Prediction
from prooftune.verification.audit import Audit
from prooftune.verification.opinions import check_forgetting, check_judge

SPEC: RunSpec = parse_spec({"name": "toy", "data": {"source": "x"}, "judge": {"model": "m", "max_pairs": 12}})


def published(folder: Path, contents: dict[str, str]) -> Audit:
    """An audit of a run that consists of these files."""
    folder.mkdir(exist_ok=True)
    for name, text in contents.items():
        (folder / name).write_text(text)
    store = LocalStore(folder / "store")
    publish(store, "run", {name: folder / name for name in contents}, {})
    return Audit(store, read_manifest(store, "run"))


def lines(rows: Sequence[BaseModel | dict[str, Any]]) -> str:
    """Rows as JSON lines."""
    return "".join((row.model_dump_json() if isinstance(row, BaseModel) else json.dumps(row)) + "\n" for row in rows)


def suite() -> tuple[Forgetting, list[dict[str, Any]]]:
    """A summary and its items as the stage writes them: losses to six decimals."""
    luck = random.Random(0)
    questions = [Question(f"topic {number % 3}", f"question {number}", ("yes", "no"), number % 2) for number in range(60)]
    texts = [Text(f"kind {number % 2}", f"text {number}") for number in range(12)]
    before = Answers(tuple(luck.random() < 0.7 for _ in questions), tuple((luck.uniform(100, 200), 60) for _ in texts))
    after = Answers(tuple(luck.random() < 0.5 for _ in questions), tuple((loss * luck.uniform(0.98, 1.1), 60) for loss, _ in before.losses))
    items: list[dict[str, Any]] = [
        {"topic": one.topic, "question": one.question, "choices": one.choices, "answer": one.answer, "before": early, "after": late}
        for one, early, late in zip(questions, before.right, after.right, strict=True)
    ]
    items += [
        {"topic": one.topic, "text": one.text, "tokens": count, "before": round(early, 6), "after": round(late, 6)}
        for one, (early, count), (late, _) in zip(texts, before.losses, after.losses, strict=True)
    ]
    return Forgetting(parts=tuple(compare_suite(questions, texts, before, after))), items


def test_the_suites_summary_follows_from_its_items(tmp_path: Path) -> None:
    """Untouched it matches; rounding of the items is no mismatch."""
    summary, items = suite()
    audit = published(tmp_path, {"forgetting.json": summary.model_dump_json(), "general.jsonl": lines(items)})
    check_forgetting(audit)
    assert audit.mismatches == []
    assert audit.checked["comparisons"] == 1


@pytest.mark.parametrize("forged", ["summary", "question", "text"])
def test_a_forged_item_or_summary_is_named(tmp_path: Path, forged: str) -> None:
    """A part that looks better than its items, and an item that was put right."""
    summary, items = suite()
    if forged == "summary":
        first = summary.parts[0].model_copy(update={"after": summary.parts[0].before})
        summary = summary.model_copy(update={"parts": (first, *summary.parts[1:])})
    elif forged == "question":
        wrong = next(item for item in items if item.get("after") is False)
        wrong["after"] = True
    else:
        items[-1]["after"] = items[-1]["before"] / 2
    audit = published(tmp_path, {"forgetting.json": summary.model_dump_json(), "general.jsonl": lines(items)})
    check_forgetting(audit)
    assert {one.file for one in audit.mismatches} == {"forgetting.json"}


def answers_of(name: str) -> list[Prediction]:
    """Twenty answers; every fifth is the same on both sides."""
    return [
        Prediction(
            example_id=f"{number:016x}",
            prompt="?",
            target="a",
            answer="same" if number % 5 == 0 else f"{name} {number}",
            prompt_tokens=1,
            answer_tokens=1,
            finished=True,
            latency_s=0.1,
        )
        for number in range(20)
    ]


ANSWERED = {name: answers_of(name) for name in ("few_shot", "candidate")}


def said(text: str) -> ChatAnswer:
    """What the judge answered."""
    return ChatAnswer(text=text, prompt_tokens=7, answer_tokens=3, finished=True, latency_s=0.2)


def judgement() -> dict[str, str]:
    """The judge's files: it likes the candidate in most pairs, contradicts itself in one and is unreadable in another."""
    rows = []
    for number in range(SPEC.judge.max_pairs):
        if number % 5:
            first, second = ("A", "A") if number == 3 else ("A", "B")
            better = "no idea" if number == 4 else json.dumps({"better": first})
            rows.append(
                JudgedPair(
                    example_id=f"{number:016x}", asked="x", candidate_first=said(better), baseline_first=said(f'{{"better": "{second}"}}')
                )
            )
    by_id = {row.example_id: row for row in rows}
    pairs = list(zip(ANSWERED["few_shot"], ANSWERED["candidate"], strict=True))[: SPEC.judge.max_pairs]
    verdicts = [verdict_on(pair, by_id.get(pair[0].example_id)) for pair in pairs]
    report = summarise(SPEC.judge, "few_shot", verdicts, {}, rows).model_copy(update={"kappa": 0.6, "kappa_n": 40, "cost_usd": 0.01})
    return {"judge.json": report.model_dump_json(), "judge.jsonl": lines(verdicts), "judge.answers.jsonl": lines(rows)}


def test_the_judges_counts_follow_from_what_it_said(tmp_path: Path) -> None:
    """Untouched it matches; human labels and cost are not part of the run and not compared."""
    audit = published(tmp_path, judgement())
    check_judge(audit, SPEC, ANSWERED)
    assert audit.mismatches == []
    assert json.loads((tmp_path / "judge.json").read_text())["contradictions"] == 1


@pytest.mark.parametrize(
    ("file", "edit", "named"),
    [
        ("judge.json", lambda text: text.replace('"wins":7', '"wins":9'), "judge.json"),
        ("judge.jsonl", lambda text: text.replace('"outcome":null', '"outcome":"candidate"'), "judge.jsonl"),
        ("judge.jsonl", lambda text: "".join(text.splitlines(keepends=True)[:-1]), "judge.jsonl"),
        ("judge.answers.jsonl", lambda text: "".join(text.splitlines(keepends=True)[1:]), "judge.answers.jsonl"),
    ],
    ids=["a count", "a verdict", "a pair left out", "an answer left out"],
)
def test_a_forged_judgement_is_named(tmp_path: Path, file: str, edit: Any, named: str) -> None:
    """Counts, verdicts, and pairs or answers that are missing."""
    files = judgement()
    edited = edit(files[file])
    assert edited != files[file]
    audit = published(tmp_path, files | {file: edited})
    check_judge(audit, SPEC, ANSWERED)
    assert named in {one.file for one in audit.mismatches}


def test_the_agreement_with_people_is_recomputed_where_their_labels_are_published(tmp_path: Path) -> None:
    """With the labels a forged kappa is named; without them the answer says that it was not checked."""
    files = judgement()
    unlabelled = published(tmp_path, files)
    check_judge(unlabelled, SPEC, ANSWERED)
    assert unlabelled.mismatches == []
    assert [one for one in unlabelled.not_recomputed if "kappa" in one] == [
        "judge.json: kappa, the agreement with people: human_labels.jsonl is not published"
    ]
    labels = [{"example_id": f"{number:016x}", "better": "candidate"} for number in range(8)]
    audit = published(tmp_path / "labelled", files | {"human_labels.jsonl": lines(labels)})
    check_judge(audit, SPEC, ANSWERED)
    assert {(one.file, one.what) for one in audit.mismatches} >= {("judge.json", "kappa"), ("judge.json", "kappa_n")}
    assert audit.not_recomputed == []


def test_a_kappa_without_labels_is_named(tmp_path: Path) -> None:
    """A report that claims agreement with no one."""
    files = judgement()
    report = json.loads(files["judge.json"]) | {"kappa": 0.9, "kappa_n": 0, "kappa_skipped": 0}
    audit = published(tmp_path, files | {"judge.json": json.dumps(report)})
    check_judge(audit, SPEC, ANSWERED)
    assert {(one.file, one.what) for one in audit.mismatches} == {("judge.json", "kappa")}
