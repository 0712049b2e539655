"""Vectors of words, by sentence encoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textclf_fast.text.sentence_vectors import encode, load_encoder

# The most numbers of a word. A validation part of trec, one seed or two, from GloVe's vectors and so many of these:
# 85.3 % with none, 88.9 with 128, 90.1 with 256, 89.8 with all 384 of "minilm".
_NUMBERS = 256
_STD = 0.67  # GloVe's, of 20,000 frequent words


class WordEncoder:
    """What a sentence encoder says of single words: each is given to it as a text.

    It knows what is alike in their meaning from a billion pairs of sentences. Whoever begins with these vectors has no
    transformer to run later on. Their principal components are taken, as in S. Tulkens and T. van Dongen, Model2Vec:
    Fast State-of-the-Art Static Embeddings, 2024.

    Args:
        encoder: as in `textclf_fast.text.sentence_vectors.sentence_vectors`.

    Raises:
        DataError: as `sentence_vectors`.
    """

    def __init__(self, encoder: str | Path) -> None:
        self._name = encoder
        self._model = load_encoder(encoder)

    @property
    def words(self) -> list[str]:
        """The entries of the encoder's own vocabulary in their order, which is often that of their frequency."""
        places: dict[str, int] = getattr(getattr(self._model, "tokenizer", None), "get_vocab", dict)()
        return sorted(places, key=places.__getitem__)

    def vectors(self, words: Sequence[str], on_progress: Callable[[int], None] | None = None) -> NDArray[np.float32]:
        """The vectors of at least one word, (n, K) with K at most 256, of a mean of 0 and a variance as GloVe's.

        The first numbers say most of what tells these words from each other.

        Args:
            words: n of them.
            on_progress: called with the number of words that are done.

        Raises:
            DataError: the encoder cannot be used.
        """
        found = encode(self._model, self._name, words, on_progress).astype(np.float64)
        found -= found.mean(0)
        _, axes = np.linalg.eigh(found.T @ found)
        axes = axes[:, ::-1][:, :_NUMBERS]
        # An axis points to where its largest number is positive: libraries differ in that.
        axes *= np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
        components = found @ axes
        return (components * (_STD / max(components.std(), np.finfo(np.float64).tiny))).astype(np.float32)
