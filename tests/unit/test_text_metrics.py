"""Metrics of texts that people read, against the slow and obvious way and against sacrebleu."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prooftune.evaluation.gate.comparison import compare
from prooftune.evaluation.metrics import measure, score, value_of
from prooftune.evaluation.metrics.text import TEXT_METRICS
from prooftune.spec import Task
from prooftune.types import Prediction

TASK = Task()
TICKET = '{"category": "billing", "priority": 1, "open": true}'
WORDS = ["the", "a", "cat", "dog,", "sat", "ran", "on", "under", "mat.", "house", "3.5", "don't", "it's", "über"]

sentences = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


def made(count: int, seed: int, noise: float) -> tuple[list[str], list[str]]:
    """Return answers that are targets with a share of the words exchanged."""
    rng = random.Random(seed)
    targets = [rng.choices(WORDS, k=rng.randint(4, 14)) for _ in range(count)]
    answers = [[rng.choice(WORDS) if rng.random() < noise else word for word in target] for target in targets]
    return [" ".join(words) for words in answers], [" ".join(words) for words in targets]


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [
        (" yes\n", "yes", 1.0),
        ("Yes", "yes", 0.0),
        ('{"open": true, "priority": 1.0,"category":"billing"}', TICKET, 1.0),
        ('{"category": "billing", "priority": true, "open": true}', TICKET, 0.0),
        (f"```json\n{TICKET}\n```", TICKET, 0.0),
        (TICKET.replace("}", ', "open": true}'), TICKET, 0.0),
        ("[1, 2]", "[1,2]", 1.0),
        ("1.0", "1", 0.0),
        ("NaN", "[1]", 0.0),
        ("[" * 5000, "[1]", 0.0),
        ("[" * 600 + "]" * 600, "[1]", 0.0),
    ],
)
def test_exact_match(answer: str, target: str, expected: float) -> None:
    """JSON is compared as data, other text without the space around it; a key twice, a fence or NaN is not JSON."""
    assert score("exact_match", answer, target, TASK) == expected


@pytest.mark.parametrize(("metric", "target"), [("rouge_l", "…"), ("chrf", " \n"), ("bleu", "")])
def test_a_target_without_text_is_unscored(metric: str, target: str) -> None:
    """None, never 0, where there is nothing to compare with."""
    assert score(metric, "anything", target, TASK) is None


@given(st.lists(st.sampled_from("abcd"), max_size=20), st.lists(st.sampled_from("abcd"), min_size=1, max_size=20))
def test_rouge_l_is_the_textbook_recursion(answer: list[str], target: list[str]) -> None:
    """The bit-parallel length equals that of the quadratic table."""
    table = [[0] * (len(target) + 1) for _ in range(len(answer) + 1)]
    for i, a in enumerate(answer):
        for j, b in enumerate(target):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    expected = 2 * table[-1][-1] / (len(answer) + len(target))
    assert score("rouge_l", " ".join(answer), "_".join(target), TASK) == pytest.approx(expected)


@given(st.lists(st.tuples(sentences, sentences.filter(bool)), min_size=1, max_size=8))
@settings(deadline=None, max_examples=50)
def test_bleu_is_sacrebleus_corpus_bleu(found: list[tuple[str, str]]) -> None:
    """Not the mean of sentences: long ones weigh more, and the brevity penalty is the corpus's."""
    from sacrebleu.metrics.bleu import BLEU

    answers, targets = (list(side) for side in zip(*found, strict=True))
    expected = BLEU().corpus_score(answers, [targets]).score / 100
    assert value_of("bleu", answers, targets, TASK) == pytest.approx(expected, abs=1e-12)


@given(sentences, sentences.filter(bool))
@settings(deadline=None, max_examples=50)
def test_sentences_score_as_in_sacrebleu(answer: str, target: str) -> None:
    """ChrF2 and BLEU of the effective order."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    assert score("chrf", answer, target, TASK) == pytest.approx(CHRF().sentence_score(answer, [target]).score / 100)
    assert score("bleu", answer, target, TASK) == pytest.approx(BLEU(effective_order=True).sentence_score(answer, [target]).score / 100)


def test_chrf_is_the_mean_over_sentences() -> None:
    """With its bootstrap interval."""
    from sacrebleu.metrics.chrf import CHRF

    answers, targets = made(20, seed=1, noise=0.3)
    found = measure(["chrf"], answers, targets, TASK, seed=0)["chrf"]
    expected = np.mean([CHRF().sentence_score(answer, [target]).score / 100 for answer, target in zip(answers, targets, strict=True)])
    assert found.value == pytest.approx(expected)
    assert found.ci_low < found.value < found.ci_high


def test_the_bootstrap_of_bleu_resamples_sentences() -> None:
    """A resample's value is sacrebleu's of a corpus in which each sentence stands as often as it was drawn."""
    from sacrebleu.metrics.bleu import BLEU

    corpus = TEXT_METRICS["bleu"].corpus
    assert corpus is not None
    answers, targets = made(6, seed=2, noise=0.4)
    counts = np.array([[2, 0, 1, 3, 0, 0], [1, 1, 1, 1, 1, 1]])
    found = corpus.value(counts @ corpus.rows(answers, targets, TASK))
    for row, value in zip(counts, found, strict=True):
        drawn = [at for at, count in enumerate(row) for _ in range(count)]
        expected = BLEU().corpus_score([answers[at] for at in drawn], [[targets[at] for at in drawn]]).score / 100
        assert value == pytest.approx(expected, abs=1e-12)


def test_a_better_translation_wins_by_bleu() -> None:
    """The comparison bootstraps the difference of corpus values, pair by pair, and its ends hold the difference."""
    good, targets = made(60, seed=3, noise=0.1)
    poor, again = made(60, seed=3, noise=0.5)
    assert targets == again

    def said(answers: list[str]) -> list[Prediction]:
        return [
            Prediction(
                example_id=str(n),
                prompt="",
                target=target,
                answer=answer,
                prompt_tokens=1,
                answer_tokens=1,
                finished=True,
                latency_s=0.1,
                scores={"bleu": score("bleu", answer, target, TASK)},
            )
            for n, (answer, target) in enumerate(zip(answers, targets, strict=True))
        ]

    pairs = list(zip(said(poor), said(good), strict=True))
    found = compare("bleu", pairs, TASK, alpha=0.05, seed=0)
    assert found.test == "paired permutation"
    assert found.baseline_value == pytest.approx(value_of("bleu", poor, targets, TASK))
    assert found.candidate_value == pytest.approx(value_of("bleu", good, targets, TASK))
    assert 0 < found.ci_low < found.difference < found.ci_high
    assert found.p_value < 0.001
    mirrored = compare("bleu", [(c, b) for b, c in pairs], TASK, alpha=0.05, seed=0)
    assert (mirrored.difference, mirrored.ci_low) == (pytest.approx(-found.difference), pytest.approx(-found.ci_high))
    same = compare("bleu", [(b, b) for b, _ in pairs], TASK, alpha=0.05, seed=0)
    assert (same.difference, same.ci_low, same.ci_high, same.p_value) == (0, 0, 0, 1)
