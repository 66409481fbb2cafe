"""Failures are clustered by what they share, named by it, and turned into a labelling list without a word of the holdout."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prooftune.data.lines import write_lines
from prooftune.errors import IntegrityError
from prooftune.evaluation.learning.failures import analyse_failures
from prooftune.evaluation.learning.mistakes import Mistakes, mistakes_of, shared_mistake
from prooftune.evidence import Failures
from prooftune.spec import Task
from prooftune.types import Example, Message, Prediction

FILLING = ("please", "today", "again", "my", "the", "hello", "since", "monday")
JSON_TASK, LABEL_TASK = Task(metric="exact_match"), Task(metric="label_accuracy")


def example(text: str, target: str, split: str) -> Example:
    """An example whose id is its content's digest; its source says the same."""
    messages = (Message(role="user", content=text), Message(role="assistant", content=target))
    digest = hashlib.sha256(f"{split} {text} {target}".encode()).hexdigest()[:16]
    return Example(id=digest, source=f"{split}.jsonl:{int(digest, 16)}", messages=messages)


def texts(words: Sequence[str], count: int, seed: int) -> list[str]:
    """Questions about ``words`` with some filling."""
    rng = random.Random(seed)
    return [" ".join([*words, *rng.sample(FILLING, 3)]) for _ in range(count)]


def prediction(of: Example, answer: str, metric: str = "exact_match", score: float | None = None, finished: bool = True) -> Prediction:
    """An answer to an example; scored by equality unless a score is given."""
    found = float(answer == of.target) if score is None else score
    return Prediction(
        example_id=of.id,
        prompt=of.messages[0].content,
        target=of.target,
        answer=answer,
        prompt_tokens=1,
        answer_tokens=1,
        finished=finished,
        latency_s=0.0,
        scores={metric: found},
    )


def analyse(folder: Path, train: list[Example], answered: list[tuple[Example, Prediction]], task: Task, **options: Any) -> Failures:
    """Write the three inputs, analyse them, and return what was written."""
    write_lines(folder / "train.jsonl", train)
    write_lines(folder / "holdout.jsonl", [one for one, _ in answered])
    write_lines(folder / "candidate.predictions.jsonl", [answer for _, answer in answered])
    out = folder / "out"
    out.mkdir(exist_ok=True)
    paths = (folder / "train.jsonl", folder / "holdout.jsonl", folder / "candidate.predictions.jsonl")
    figures = analyse_failures(*paths, task, out, **options)
    found = Failures.model_validate_json((out / "failures.json").read_bytes())
    assert figures["failures"] == found.failures == sum(cluster.failures for cluster in found.clusters)
    assert [row["name"] for row in figures["clusters"]] == [cluster.name for cluster in found.clusters]
    return found


def triage(topic: str, priority: str) -> str:
    """A JSON target of two fields."""
    return json.dumps({"topic": topic, "priority": priority})


@pytest.fixture
def tickets() -> tuple[list[Example], list[tuple[Example, Prediction]]]:
    """Tickets whose invoices are taken for normal and whose logins come back as prose; training has many logins and three invoices."""
    invoices, logins, parcels = ("invoice", "charged", "twice"), ("login", "password", "reset"), ("parcel", "lost", "courier")
    train = [example(text, triage("access", "low"), "train") for text in texts(logins, 60, 1)]
    train += [example(text, triage("billing", "high"), "train") for text in texts(invoices, 3, 2)]
    train += [example(text, triage("delivery", "low"), "train") for text in texts(parcels, 60, 3)]
    answered = []
    for text in texts(invoices, 14, 4):
        one = example(text, triage("billing", "high"), "holdout")
        answered.append((one, prediction(one, triage("billing", "normal"))))
    for text in texts(logins, 8, 5):
        one = example(text, triage("access", "low"), "holdout")
        answered.append((one, prediction(one, "You should reset it.", finished=False)))
    for text in texts(parcels, 30, 6):
        one = example(text, triage("delivery", "low"), "holdout")
        answered.append((one, prediction(one, one.target)))
    return train, answered


def test_clusters_are_named_by_the_wrong_field(tickets: tuple[list[Example], list[tuple[Example, Prediction]]], tmp_path: Path) -> None:
    """Two kinds of failure, each found whole, with the mistake that it shares."""
    found = analyse(tmp_path, *tickets, JSON_TASK)
    first, second = found.clusters
    assert (found.failures, found.scored) == (22, 52)
    assert (first.name, first.failures, first.confusion) == ("priority: high → normal", 14, "priority: high → normal")
    assert first.share == pytest.approx(14 / 22)
    assert set(first.example_ids) == {one.id for one, answer in tickets[1] if answer.answer == triage("billing", "normal")}
    assert second.failures == 8
    assert second.name in {"not JSON", "cut at the token limit"}


def test_the_advice_compares_training_with_the_questions(
    tickets: tuple[list[Example], list[tuple[Example, Prediction]]], tmp_path: Path
) -> None:
    """Three invoices of 123 are far fewer than the share of failed invoices; of logins there are enough."""
    train, answered = tickets
    invoices, logins = analyse(tmp_path, train, answered, JSON_TASK).clusters
    nearest = {one.source for one in train if "invoice" in one.messages[0].content}
    assert nearest <= set(invoices.nearest)
    assert invoices.nearest_similarity < logins.nearest_similarity
    assert "14 of 22 failures: `priority: high → normal`; only" in invoices.advice
    assert "of 123 training examples are as near as 0." in invoices.advice
    wanted = int(invoices.advice.rpartition("label about ")[2].split()[0])
    assert 7 / 52 * 123 - 3 <= wanted <= 14 / 52 * 123 + 1
    assert "check the targets of the nearest ones" in logins.advice


def test_the_labelling_list_shows_training_examples_alone(
    tickets: tuple[list[Example], list[tuple[Example, Prediction]]], tmp_path: Path
) -> None:
    """A line a cluster: name, count, share, what to label, and training examples that can be found, with what they teach."""
    train, answered = tickets
    found = analyse(tmp_path, train, answered, JSON_TASK)
    lines = [json.loads(line) for line in (tmp_path / "out/labelling.jsonl").read_text().splitlines()]
    assert [(line["cluster"], line["failures"]) for line in lines] == [(cluster.name, cluster.failures) for cluster in found.clusters]
    assert [line["share"] for line in lines] == pytest.approx([14 / 22, 8 / 22], abs=1e-6)
    examples = {one.source: one for one in train}
    for line, cluster in zip(lines, found.clusters, strict=True):
        assert set(line) == {"cluster", "failures", "share", "label", "nearest"}
        assert cluster.advice.endswith(f"{line['label']}.")
        assert tuple(near["source"] for near in line["nearest"]) == cluster.nearest
        similarities = [near["similarity"] for near in line["nearest"]]
        assert similarities == sorted(similarities, reverse=True)
        for near in line["nearest"]:
            assert (near["prompt"], near["target"]) == (examples[near["source"]].messages[0].content, examples[near["source"]].target)
    assert "invoice" in lines[0]["nearest"][0]["prompt"]


@pytest.mark.parametrize("count", [1, 2, 3, 12])
def test_the_labelling_list_quotes_no_held_out_text(tmp_path: Path, count: int) -> None:
    """Neither id, prompt nor target, not even a field's value, however few the failures are."""
    train = [example(text, json.dumps({"summary": f"known {at}"}), "train") for at, text in enumerate(texts(("tram", "late"), 20, 1))]
    answered = []
    for at, text in enumerate(texts(("tram", "broken"), count, 2)):
        one = example(f"{text} secret{at}", json.dumps({"summary": f"hidden {at}"}), "holdout")
        answered.append((one, prediction(one, json.dumps({"summary": "none"}))))
    found = analyse(tmp_path, train, answered, JSON_TASK)
    text = (tmp_path / "out/labelling.jsonl").read_text()
    assert found.failures == count
    for one, _ in answered:
        assert one.id not in text
        assert one.messages[0].content not in text
    assert "hidden" not in text
    assert "known" in text


def test_the_same_inputs_in_any_order_give_the_same_bytes(
    tickets: tuple[list[Example], list[tuple[Example, Prediction]]], tmp_path: Path
) -> None:
    """Rows are sorted before anything is drawn."""
    train, answered = tickets
    results = []
    for seed in (0, 1):
        random.Random(seed).shuffle(answered)
        random.Random(seed).shuffle(train)
        analyse(tmp_path, train, answered, JSON_TASK)
        results.append([path.read_bytes() for path in sorted((tmp_path / "out").iterdir())])
    assert results[0] == results[1]


def test_labels_are_named_by_their_confusion(tmp_path: Path) -> None:
    """Exactly where one dominates, else by the side that the confusions share."""
    cards, tops = texts(("card", "stolen"), 8, 1), texts(("top", "up", "pending"), 8, 2)
    train = [example(text, "lost_card", "train") for text in texts(("card", "gone"), 20, 3)]
    answered = []
    for text in cards:
        one = example(text, "lost_card", "holdout")
        answered.append((one, prediction(one, "new_card", "label_accuracy")))
    for at, text in enumerate(tops):
        one = example(text, "top_up", "holdout")
        answered.append((one, prediction(one, f"transfer_{at}", "label_accuracy")))
    found = analyse(tmp_path, train, answered, LABEL_TASK)
    assert {"lost_card → new_card", "top_up → another"} == {cluster.name for cluster in found.clusters}


def test_free_text_is_named_by_words_that_the_successes_lack(tmp_path: Path) -> None:
    """Words that all questions hold say nothing."""
    train = [example(text, f"Answer {at}.", "train") for at, text in enumerate(texts(("refund", "policy"), 20, 1))]
    answered = []
    for at, text in enumerate([*texts(("tax", "abroad", "policy"), 6, 2), *texts(("refund", "policy"), 20, 3)]):
        one = example(text, f"A long answer of its own, {at}.", "holdout")
        answered.append((one, prediction(one, "Sorry.", "rouge_l", score=0.1 if at < 6 else 0.8 + at / 1000)))
    found = analyse(tmp_path, train, answered, Task(metric="rouge_l"))
    assert found.failures == 7, "the lowest quartile of 26"
    assert "abroad, tax" in found.clusters[0].name
    assert "policy" not in found.clusters[0].name.split(", ")[:2]
    assert found.clusters[0].confusion is None


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_failures_are_one_cluster_at_most(tmp_path: Path, count: int) -> None:
    """None give empty files; one gives no advice that needs a pattern."""
    train = [example(text, "yes", "train") for text in texts(("open",), 10, 1)]
    answered = []
    for at, text in enumerate(texts(("shop", "hours"), 12, 2)):
        one = example(f"{text} {at}", "yes", "holdout")
        answered.append((one, prediction(one, "no" if at < count else "yes")))
    found = analyse(tmp_path, train, answered, JSON_TASK)
    assert (found.failures, len(found.clusters)) == (count, min(count, 1))
    assert len((tmp_path / "out/labelling.jsonl").read_text().splitlines()) == len(found.clusters)
    if count == 1:
        assert "too few or too unlike for a pattern" in found.clusters[0].advice
    if count:
        assert found.clusters[0].name == ("yes → no" if count > 1 else "yes → another")


def test_failures_that_are_all_alike_are_one_cluster(tmp_path: Path) -> None:
    """There is nothing to tell them apart by, and k-means is not asked to."""
    train = [example("open today", "yes", "train")]
    answered = []
    for at in range(9):
        one = example("shop hours", "yes", f"holdout {at}")
        answered.append((one, prediction(one, "no")))
    [cluster] = analyse(tmp_path, train, answered, JSON_TASK).clusters
    assert cluster.failures == 9
    assert cluster.nearest_similarity == 0.0
    assert json.loads((tmp_path / "out/labelling.jsonl").read_text())["nearest"] == [], "what has nothing in common is no pattern"


def test_an_unscored_answer_is_no_failure(tmp_path: Path) -> None:
    """None is unscored, never 0."""
    train = [example("open today", "yes", "train")]
    one, other = example("a b", "yes", "holdout"), example("c d", "yes", "holdout")
    unscored = prediction(other, "no").model_copy(update={"scores": {"exact_match": None}})
    found = analyse(tmp_path, train, [(one, prediction(one, "no")), (other, unscored)], JSON_TASK)
    assert (found.failures, found.scored) == (1, 1)


def test_predictions_of_another_holdout_are_refused(tmp_path: Path) -> None:
    """Their questions are not there to be read."""
    one, other = example("a b", "yes", "holdout"), example("c d", "yes", "holdout")
    with pytest.raises(IntegrityError, match=f"answers {other.id}, which is not in holdout.jsonl"):
        analyse(tmp_path, [one], [(one, prediction(other, "no"))], JSON_TASK)


@pytest.mark.parametrize(
    ("target", "answer", "exact", "broad"),
    [
        ('{"a": 1, "b": "x"}', '{"a": 1.0, "b": "y"}', ("b: x → y",), ("b: wrong",)),
        ('{"a": 1}', '{"c": 2}', ("a: 1 → (missing)", "c: not asked for"), ("a: wrong",)),
        ('{"a": 1}', "one", ("not JSON",), ()),
        ('{"a": 1}', "[1]", ("no JSON object",), ()),
        ("yes", "no\n  way", ("yes → no way",), ("yes → another", "another → no way")),
        ("yes", "", ("yes → (empty)",), ("yes → another", "another → (empty)")),
    ],
)
def test_mistakes(target: str, answer: str, exact: tuple[str, ...], broad: tuple[str, ...]) -> None:
    """Fields are compared as data; names hold no line breaks."""
    one = example("q", target, "holdout")
    assert mistakes_of(prediction(one, answer), labels=True) == Mistakes(exact, broad)
    if not target.startswith("{"):
        assert mistakes_of(prediction(one, answer), labels=False) == Mistakes()


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=3), min_size=1, max_size=9))
def test_a_shared_mistake_is_shared_by_half(mistakes: list[list[str]]) -> None:
    """And by no fewer failures than any other is; an exact one by two failures at least, a broad one also by one that is alone."""
    counts = {name: sum(name in names for names in mistakes) for name in "abc"}
    most = max(counts.values())
    exact = shared_mistake([Mistakes(tuple(names)) for names in mistakes])
    broad = shared_mistake([Mistakes((), tuple(names)) for names in mistakes])
    assert (exact is None) == (2 * most < len(mistakes) or most < 2)
    assert (broad is None) == (2 * most < len(mistakes))
    assert all(counts[name] == most for name in (exact, broad) if name is not None)
