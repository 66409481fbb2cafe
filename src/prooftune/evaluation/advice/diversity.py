"""How different the training examples are from one another."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from prooftune.data.lines import read_lines
from prooftune.types import Example

SAMPLE = 2_000
"""Examples looked at: every pair is compared, in a fraction of a second."""


def diversity_of(train: Path) -> float | None:
    """Return 1 minus the mean cosine similarity of a training prompt to its nearest neighbour; None with fewer than two prompts.

    Prompts are the user's messages as counts of character 3-grams within words. 0 = each prompt has a copy, 1 = no two have a 3-gram in
    common. Counts are not weighted by rarity: with TF-IDF one template with other numbers in it looks as diverse as real questions. A
    training split stands in the order of its ids, which are digests, so its first ``SAMPLE`` examples are a random sample.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    examples = islice(read_lines(train, Example), SAMPLE)
    prompts = ["\n".join(message.content for message in one.prompt if message.role == "user") for one in examples]
    if sum(bool(prompt.strip()) for prompt in prompts) < 2:
        return None
    rows = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), use_idf=False).fit_transform(prompts)
    similarity = (rows @ rows.T).toarray()
    similarity[range(len(prompts)), range(len(prompts))] = 0.0
    return float(1.0 - min(similarity.max(axis=1).mean(), 1.0))
