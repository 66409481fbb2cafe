"""Near-duplicate clusters: exact verification, no chains, independence of order, speed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prooftune.data.duplicates import SIMILARITY, find_clusters, normalise

WORDS = (
    "my",
    "card",
    "has",
    "not",
    "arrived",
    "please",
    "tell",
    "me",
    "when",
    "the",
    "transfer",
    "refund",
    "top",
    "up",
    "fail",
    "pin",
    "bank",
)


def jaccard(left: str, right: str) -> float:
    """The definition, by sets: what the vectorised verification must equal."""

    def shingles(text: str) -> set[str]:
        padded = f" {normalise(text)} "
        return {padded[at : at + 3] for at in range(len(padded) - 2)}

    one, other = shingles(left), shingles(right)
    return len(one & other) / len(one | other)


def queries(count: int, seed: int = 0) -> list[str]:
    """Short texts, a third of them with one word changed."""
    chance = random.Random(seed)
    texts = [" ".join(chance.choices(WORDS, k=chance.randint(4, 14))) for _ in range(count)]
    for index in range(0, count - 1, 3):
        words = texts[index].split()
        words[chance.randrange(len(words))] = chance.choice(WORDS)
        texts[index + 1] = " ".join(words)
    return texts


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Where do I activate my card?", "where can I activate my card?"),
        ("I lost my card yesterday evening, can you block it?", "I lost my card yesterday evening, can you blok it?"),
        ("ＦＵＬＬ  width\ntext", "full width text"),
        ("a", "A "),
    ],
)
def test_texts_that_say_the_same_share_a_group(left: str, right: str) -> None:
    """A typo, a swapped word, case, width and white space do not make another question."""
    groups = find_clusters([left, "an entirely different matter", right]).groups
    assert groups[0] == groups[2] != ""
    assert groups[1] == ""


@pytest.mark.parametrize(
    ("left", "right"), [("where is my card", "where is my new card"), ("cancel my order", "cancel my account"), ("yes", "no"), ("", " ")]
)
def test_short_questions_that_differ_stay_apart(left: str, right: str) -> None:
    """Common words alone do not make two short texts near-duplicates, and empty ones have no group."""
    assert find_clusters([left, right]).groups == ("", "")


def test_every_pair_is_verified_and_none_is_missed() -> None:
    """On 300 short texts the pairs are exactly those of the brute-force definition."""
    texts = queries(300)
    clusters = find_clusters(texts)
    distinct = sorted(set(texts))
    expected = {
        (left, right)
        for left in range(len(distinct))
        for right in range(left + 1, len(distinct))
        if jaccard(distinct[left], distinct[right]) >= SIMILARITY
    }
    assert len(expected) > 20
    assert set(clusters.pairs) == expected


def test_templated_texts_stay_one_cluster_without_comparing_all() -> None:
    """Thousands of texts from one template fall into one cluster, without comparing each with each."""
    clusters = find_clusters(
        [f"Hello, my order number {number:05d} has not arrived although you promised it for Monday." for number in range(3000)]
    )
    assert clusters.sizes == [3000]
    assert len(clusters.pairs) < 3000 * 16 * 24


@given(st.lists(st.text(alphabet="ab cdé😀", max_size=12), max_size=30), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_groups_do_not_depend_on_order(texts: list[str], chance: random.Random) -> None:
    """A text has the same group wherever it stands, and equal texts have equal groups."""
    groups = dict(zip(map(normalise, texts), find_clusters(texts).groups, strict=True))
    shuffled = list(texts)
    chance.shuffle(shuffled)
    assert dict(zip(map(normalise, shuffled), find_clusters(shuffled).groups, strict=True)) == groups


def test_thirteen_thousand_short_texts_form_no_giant_cluster() -> None:
    """Texts of the kind and number of banking77: those that were written twice are found, and nothing else falls together."""
    chance = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["".join(chance.choices(letters, k=chance.randint(2, 9))) for _ in range(800)]
    texts = [" ".join(chance.choices(vocabulary, k=chance.randint(6, 18))) for _ in range(13_000)]
    clusters = find_clusters([*texts, *(f"{text} please" for text in texts[:500])])
    assert len(clusters.sizes) >= 490
    assert clusters.sizes[0] <= 4


def test_lone_surrogates_do_not_break_it() -> None:
    """A text that no encoder takes is still a text to compare."""
    assert len(set(find_clusters(["bad \ud800 text here", "bad \ud800 text here!"]).groups)) == 1
