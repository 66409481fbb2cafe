"""Finds the texts nearest to a question: by the embeddings of a local model, or by TF-IDF where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from prooftune.errors import DataError, ModelUnavailable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

EMBEDDED_AT_ONCE = 64
LONGEST_EMBEDDED = 512
"""Tokens; what is longer is cut, whatever the model would take: embeddings of long texts are no better and cost the square."""


class Nearest:
    """The nearest of a set of texts, exactly, by cosine similarity.

    ``embedding_folder`` is the local folder of an encoder with mean pooling, such as all-minilm-l6-v2; None = TF-IDF over words, pairs of
    words and parts of words (Salton & Buckley, 1988), whose vocabulary comes from the fitted texts.
    """

    def __init__(self, embedding_folder: Path | None = None) -> None:
        self._folder = embedding_folder
        self._tfidf: Any = None
        self._index: Any = None
        self.vectors: NDArray[np.float32] | csr_matrix
        """Of the fitted texts, one row each, of length 1 (or 0: a text without a known word); dense, or sparse with TF-IDF."""

    def fit(self, texts: Sequence[str]) -> Self:
        """Index the texts.

        Raises:
            DataError: there is no text with a visible character.
            ModelUnavailable: the embedding model cannot be loaded safely.
        """
        from sklearn.neighbors import NearestNeighbors

        if not any(text.strip() for text in texts):
            raise DataError(f"none of {len(texts)} texts holds a word to find it by; at least one is required")
        if self._folder is None:
            self._tfidf = _tfidf().fit(texts)
        self.vectors = self.encode(texts)
        self._index = NearestNeighbors(metric="cosine", algorithm="brute").fit(self.vectors)
        return self

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32] | csr_matrix:
        """Return a vector a text, as ``vectors`` has them."""
        if self._folder is not None:
            return embed(texts, self._folder)
        vectors: csr_matrix = self._tfidf.transform(texts)
        return vectors

    def search(self, queries: Sequence[str], k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the positions of the nearest texts, nearest first, and their similarities, each ``(queries, min(k, texts))``."""
        return self.search_vectors(self.encode(queries), k) if queries else _nothing(k)

    def search_vectors(self, vectors: NDArray[np.float32] | csr_matrix, k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return what ``search`` does, for vectors that are there already, such as the middles of clusters."""
        distances, positions = self._index.kneighbors(vectors, n_neighbors=min(k, self._index.n_samples_fit_))
        return positions, 1.0 - distances


def embed(texts: Sequence[str], folder: Path) -> NDArray[np.float32]:
    """Return the mean of each text's last hidden states, scaled to length 1, ``(texts, hidden)``.

    Source: Reimers & Gurevych (2019), Sentence-BERT, https://arxiv.org/abs/1908.10084.

    Raises:
        ModelUnavailable: the folder has no usable tokenizer, or no model in safetensors.
    """
    import numpy as np
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    from prooftune.models.loading import pick_device

    disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"the embedding model in {folder} cannot be loaded: {' '.join(str(error).split())}") from error
    model = model.eval().to(pick_device())
    longest = min(LONGEST_EMBEDDED, tokenizer.model_max_length, model.config.max_position_embeddings)
    by_length = sorted(range(len(texts)), key=lambda at: (len(texts[at]), at))
    embedded = np.zeros((len(texts), model.config.hidden_size), np.float32)
    for start in range(0, len(texts), EMBEDDED_AT_ONCE):
        batch = by_length[start : start + EMBEDDED_AT_ONCE]
        tokens = tokenizer([texts[at] for at in batch], padding=True, truncation=True, max_length=longest, return_tensors="pt")
        tokens = tokens.to(model.device)
        with torch.inference_mode():
            hidden = model(**tokens).last_hidden_state
        mask = tokens["attention_mask"][:, :, None]
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        embedded[batch] = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
    return embedded


def _tfidf() -> Any:
    """Return words and pairs of words beside parts of words, which find inflections and misspellings; their union has length 1."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.preprocessing import Normalizer

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")  # noqa: S106  # no password
    parts = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    return make_pipeline(make_union(words, parts), Normalizer())


def _nothing(k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    import numpy as np

    return np.zeros((0, k), np.int64), np.zeros((0, k))
