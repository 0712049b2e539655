"""A model's first word vectors, from those that somebody has learnt from more text than a task has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from numpy.typing import NDArray
from torch import nn

from textclf_fast.text import DataError, Tokenizer, Vocabulary, load_vectors
from textclf_fast.text.word_vectors import looked_up


@dataclass(frozen=True, eq=False)
class InitialVectors:
    """The vectors to begin with.

    Attributes:
        source: the file or name that they are of.
        vocabulary: of V words; the first `num_seen` are of the texts to train on, the others of the vectors' file.
        values: (V, D) float32, zeros of words without a vector.
        known: (V,), which have one.
    """

    source: str
    vocabulary: Vocabulary
    num_seen: int
    values: NDArray
    known: NDArray

    @property
    def dim(self) -> int:
        """D."""
        return self.values.shape[1]

    @property
    def num_known(self) -> int:
        """How many words of the texts have one."""
        return int(self.known[: self.num_seen].sum())

    @torch.no_grad()
    def put_into(self, embedding: nn.Embedding, std: float | None = None) -> None:
        """Sets an embedding's weight (V, I): of words that are known, the first D numbers.

        The I - D behind them are to be learnt from the texts; a word that these lack will have learnt nothing there and
        has zeros. What is not known stays as it was drawn.

        Args:
            std: the vectors are scaled to this standard deviation; None: they stay as they are.

        Raises:
            ValueError: the embedding has another V, or I < D.
        """
        count, width = embedding.weight.shape
        if count != len(self.vocabulary):
            raise ValueError(f"embedding: expected {len(self.vocabulary)} vectors, got {count}")
        if width < self.dim:
            raise ValueError(f"embedding: expected at least {self.dim} numbers a word, got {width}")
        known = torch.from_numpy(self.known)
        vectors = torch.from_numpy(self.values)[known]
        if std is not None:
            vectors = vectors * (std / vectors.std())
        embedding.weight[known, : self.dim] = vectors.to(embedding.weight)
        embedding.weight[self.num_seen :, self.dim :] = 0


def find_initial_vectors(
    name: str | Path, vocabulary: Vocabulary, tokenizer: Tokenizer, max_size: int = 0
) -> InitialVectors:
    """Looks the words of a vocabulary up in a file of word vectors, and adds words of the file.

    A word that no text to train on has, but that has a vector, can be understood when it comes up later.

    Args:
        name: a file, or one of `textclf_fast.text.VECTORS`.
        vocabulary: of the texts to train on.
        tokenizer: only what it would find in a text as one token is added, words that come first in the file first.
        max_size: most entries of the larger vocabulary; what is already larger stays as it is.

    Raises:
        DataError: see :func:`textclf_fast.text.load_vectors`; or no word of the vocabulary has a vector.
    """
    needed = looked_up(vocabulary.tokens)
    added: list[str] = []

    def wanted(word: str) -> bool:
        if word in vocabulary:
            return True
        if len(vocabulary) + len(added) < max_size and tokenizer(word) == [word]:
            added.append(word)
            return True
        return word in needed

    vectors = load_vectors(name, wanted)
    larger = Vocabulary([*vocabulary.tokens, *added])
    values, known = vectors.look_up(larger.tokens)
    found = InitialVectors(str(name), larger, len(vocabulary), values, known)
    if not found.num_known:
        raise DataError(f"{name}: none of the {len(vocabulary):,} tokens of the texts has a vector in it")
    return found
