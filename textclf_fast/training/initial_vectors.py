"""A model's first word vectors, from those that somebody has learnt from more text than a task has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from textclf_fast.text import (
    ENCODERS,
    PAD_ID,
    UNK_ID,
    VECTORS,
    DataError,
    Tokenizer,
    Vocabulary,
    WordVectors,
    is_named,
    load_vectors,
)
from textclf_fast.text.encoder_words import WordEncoder
from textclf_fast.text.word_vectors import looked_up

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class InitialVectors:
    """The vectors to begin with.

    Attributes:
        sources: the files or names that they are of.
        vocabulary: of V words; the first `num_seen` are of the texts to train on, the others of the sources.
        values: (V, D) float32, those of each source beside each other; zeros where a word has none.
        known: (V,), which have one of any source.
    """

    sources: tuple[str, ...]
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

    def __str__(self) -> str:
        """What there is, in words."""
        have = "has" if len(self.sources) == 1 else "have"
        known = f"vectors of {self.num_known:,} of the {self.num_seen:,} tokens of the texts"
        others = f"{len(self.vocabulary) - self.num_seen:,} other words join the vocabulary"
        return f"{' and '.join(self.sources)}: {have} {known}; {others}"

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
    sources: str | Path | Sequence[str | Path],
    vocabulary: Vocabulary,
    tokenizer: Tokenizer,
    max_size: int = 0,
    on_progress: OnProgress | None = None,
) -> InitialVectors:
    """Looks the words of a vocabulary up where there are vectors of words, and adds words to it that are there.

    A word that no text to train on has, but that has a vector, can be understood when it comes up later.

    Args:
        sources: one or several: files of word vectors, or names of `textclf_fast.text.VECTORS`; directories of sentence
            encoders, or names of `textclf_fast.text.ENCODERS`, which :class:`WordEncoder` makes word vectors of.
        vocabulary: of the texts to train on.
        tokenizer: only what it would find in a text as one token is added, words that come first in a source first.
        max_size: most entries of the larger vocabulary; what is already larger stays as it is.
        on_progress: while an encoder reads words, told how many are done, of how many.

    Raises:
        ValueError: no source, or one twice.
        DataError: see :func:`textclf_fast.text.load_vectors` and :class:`WordEncoder`; or no word of the vocabulary has
            a vector in a source.
    """
    names = [str(name) for name in ([sources] if isinstance(sources, str | Path) else sources)]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"sources: expected at least one, and each once, got {names}")
    added: dict[str, None] = {}  # a set that knows the order

    def add(word: str) -> bool:
        """Whether the word is, or becomes, one of the larger vocabulary."""
        if word in vocabulary or word in added:
            return True
        if len(vocabulary) + len(added) < max_size and tokenizer(word) == [word]:
            added[word] = None
            return True
        return False

    found: list[_Encoder | _File] = [
        _Encoder(name, tokenizer, add, on_progress) if _is_encoder(name) else _File(name, vocabulary.tokens, add)
        for name in names
    ]
    larger = Vocabulary([*vocabulary.tokens, *added])
    parts = [source.look_up(larger.tokens) for source in found]
    for name, (_, known) in zip(names, parts, strict=True):
        if not known[: len(vocabulary)].any():
            raise DataError(f"{name}: none of the {len(vocabulary):,} tokens of the texts has a vector in it")
    values = np.concatenate([vectors for vectors, _ in parts], axis=1)
    return InitialVectors(
        tuple(names), larger, len(vocabulary), values, np.logical_or.reduce([known for _, known in parts])
    )


class _File:
    """A file of word vectors, which is read when this is made: `add` is asked about each of its words."""

    def __init__(self, name: str | Path, tokens: Iterable[str], add: Callable[[str], bool]) -> None:
        needed = looked_up(tokens)
        if not is_named(name, VECTORS) and not Path(name).exists():
            raise DataError(
                f"there is no file {name}, no word vectors of that name, as {', '.join(VECTORS)} is, and no sentence "
                f"encoder, as {', '.join(ENCODERS)} is"
            )
        self._vectors: WordVectors = load_vectors(name, lambda word: add(word) or word in needed)

    def look_up(self, tokens: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        return self._vectors.look_up(tokens)


class _Encoder:
    """A sentence encoder, each of whose own words `add` is asked about when this is made."""

    def __init__(
        self, name: str | Path, tokenizer: Tokenizer, add: Callable[[str], bool], on_progress: OnProgress | None
    ) -> None:
        self._encoder = WordEncoder(name)
        self._tokenizer = tokenizer
        self._on_progress = on_progress
        for word in self._encoder.words:
            add(word)

    def look_up(self, tokens: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Of what the tokens are in a text: marks and special tokens are nothing there, and have no vector."""
        texts = ["" if place in (PAD_ID, UNK_ID) else self._text(token) for place, token in enumerate(tokens)]
        known = np.array([bool(text) for text in texts])
        words = [text for text in texts if text]
        on_progress = self._on_progress
        told = None if on_progress is None else lambda done: on_progress(done, len(words))
        vectors = self._encoder.vectors(words or ["a word"], told)
        values = np.zeros((len(tokens), vectors.shape[1]), dtype=np.float32)
        values[known] = vectors[: len(words)]
        return values, known

    def _text(self, token: str) -> str:
        text = self._tokenizer.detokenize([token]).strip()
        return "" if "\ufffd" in text else text  # some of a character's bytes are no text


def _is_encoder(name: str | Path) -> bool:
    return is_named(name, ENCODERS) or Path(name).is_dir()
