"""Nearest texts: by TF-IDF and by a local encoder, checked against NumPy, scikit-learn and one text at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prooftune.errors import DataError, ModelUnavailable
from prooftune.evaluation.ladder.retrieval import Nearest, embed

TEXTS = [
    "my card has not arrived",
    "where is my new card",
    "what is the exchange rate",
    "top up by bank transfer failed",
    "close my account",
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT of random weights with one token a word, for 16 tokens at most."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", *sorted({word for text in TEXTS for word in text.split()})]
    core = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tmp_path_factory.mktemp("encoder")
    PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 16}
    BertModel(BertConfig(vocab_size=len(words), pad_token_id=0, initializer_range=0.5, **sizes)).save_pretrained(folder)
    return folder


def test_tfidf_finds_shared_words_inflections_and_misspellings() -> None:
    """The nearest text is the one that a reader would name."""
    index = Nearest().fit(TEXTS)
    queries = ["is my card coming", "exchange rates", "tranfer top-up fail", "closing an accuont"]
    positions, similarities = index.search(queries, 2)
    assert positions[:, 0].tolist() == [1, 2, 3, 4]
    assert positions.shape == similarities.shape == (4, 2)
    assert (similarities[:, 0] >= similarities[:, 1]).all()


@given(
    st.lists(st.text(alphabet="abc de", max_size=12), min_size=1, max_size=8).filter(lambda texts: any(text.strip() for text in texts)),
    st.lists(st.text(alphabet="abc dez", max_size=12), max_size=4),
    st.integers(1, 10),
)
@settings(deadline=None, max_examples=40)
def test_similarities_are_cosines_and_the_nearest_come_first(texts: list[str], queries: list[str], k: int) -> None:
    """For every query the ``k`` largest cosines, in order, as NumPy computes them from all pairs."""
    index = Nearest().fit(texts)
    positions, similarities = index.search(queries, k)
    assert positions.shape == similarities.shape == ((len(queries), k) if not queries else (len(queries), min(k, len(texts))))
    for query, found, cosines in zip(queries, positions, similarities, strict=True):
        expected = (index.encode(texts) @ index.encode([query]).T).toarray()[:, 0]
        np.testing.assert_allclose(cosines, np.sort(expected)[::-1][:k], atol=1e-12)
        np.testing.assert_allclose(cosines, expected[found], atol=1e-12)


def test_a_text_is_nearest_to_itself() -> None:
    """With similarity one, at any number of neighbours; there are no more neighbours than texts."""
    positions, similarities = Nearest().fit(TEXTS).search(TEXTS, 99)
    assert positions[:, 0].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(similarities[:, 0], 1.0)
    assert positions.shape == (5, 5)


@pytest.mark.parametrize("texts", [[], [""], [" ", "\n"]])
def test_nothing_to_find_is_refused(texts: list[str]) -> None:
    """At least one text needs a visible character."""
    with pytest.raises(DataError, match=f"none of {len(texts)} texts holds a word"):
        Nearest().fit(texts)


def test_embeddings_are_masked_means_of_length_one(encoder: Path) -> None:
    """Padding in a batch changes nothing: each is what the model says to the text alone."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    found = embed(TEXTS, encoder)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-5)
    for text, vector in zip(TEXTS, found, strict=True):
        with torch.inference_mode():
            mean = model(**tokenizer([text], return_tensors="pt")).last_hidden_state[0].mean(dim=0).numpy()
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)


def test_long_texts_are_cut_at_what_the_encoder_takes(encoder: Path) -> None:
    """What stands beyond its sixteen positions is not seen."""
    long = " ".join(["card"] * 16)
    np.testing.assert_allclose(embed([f"{long} rate rate"], encoder), embed([long], encoder), atol=1e-6)


def test_the_index_takes_an_encoder(encoder: Path) -> None:
    """Dense vectors of the fitted texts, and the same search."""
    index = Nearest(encoder).fit(TEXTS)
    positions, similarities = index.search(TEXTS[::-1], 1)
    assert positions[:, 0].tolist() == [4, 3, 2, 1, 0]
    np.testing.assert_allclose(similarities, 1.0, atol=1e-5)
    np.testing.assert_array_equal(index.search_vectors(index.vectors, 1)[0][:, 0], range(5))


def test_a_folder_without_an_encoder_is_refused(tmp_path: Path) -> None:
    """With the folder's name, and nothing is downloaded."""
    with pytest.raises(ModelUnavailable, match=str(tmp_path)):
        embed(["text"], tmp_path)
