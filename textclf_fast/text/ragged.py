"""Rows of token ids of different lengths in two flat arrays, and batches cut from them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

import textclf_fast._host as _host  # type: ignore[import-not-found]  # compiled: no source that mypy could read
from textclf_fast.text.tokenizer import ALL_CAPITALS, CAPITALIZED, CasedTokenizer, WordTokenizer
from textclf_fast.text.vocabulary import PAD_ID, Vocabulary

_NO_TOKEN = ("<unk>",)
_TEXTS_AT_ONCE = 1024  # many, for speed; not all, for memory: tokens take ten times as much as their ids


@dataclass(frozen=True, eq=False)
class RaggedTokens:
    """n rows of token ids, N in all.

    Attributes:
        values: (N,) int64, row after row.
        offsets: (n + 1,) int64; row r is values[offsets[r]:offsets[r + 1]].

    Raises:
        TypeError: An array is not int64.
        ValueError: An array is not one-dimensional and contiguous, or the offsets do not rise from 0 to N.
    """

    values: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name, array in (("values", self.values), ("offsets", self.offsets)):
            if not isinstance(array, np.ndarray) or array.dtype != np.int64:
                found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
                raise TypeError(f"{name}: expected an int64 array, got {found}")
            if array.ndim != 1 or not array.flags.c_contiguous:
                raise ValueError(f"{name}: expected one dimension, contiguous, got shape {array.shape}")
        offsets, total = self.offsets, len(self.values)
        if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != total:
            ends = f"{offsets[0]} and {offsets[-1]}" if len(offsets) else "none"
            raise ValueError(f"offsets: expected 0 first and {total} (the number of values) last, got {ends}")
        falls = np.flatnonzero(offsets[1:] < offsets[:-1])
        if len(falls):
            row = int(falls[0])
            raise ValueError(f"offsets: row {row} runs from {offsets[row]} back to {offsets[row + 1]}")

    @classmethod
    def from_lists(cls, rows: Iterable[ArrayLike]) -> RaggedTokens:
        """Copies `rows`, each a one-dimensional sequence of whole numbers.

        Raises:
            TypeError: A row holds something other than whole numbers.
            ValueError: A row is not one-dimensional.
        """
        arrays = [whole_numbers(row, f"row {number}") for number, row in enumerate(rows)]
        offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([len(array) for array in arrays], out=offsets[1:])
        values = np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int64)
        return cls(values, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) int64: the number of tokens of each row."""
        return np.diff(self.offsets)

    def __getitem__(self, row: int) -> NDArray[np.int64]:
        """The token ids of one row, a view; a negative number counts from the end.

        Raises:
            IndexError: There is no such row.
        """
        count = len(self)
        if not -count <= row < count:
            raise IndexError(f"row {row} is out of range, there are {count} rows")
        row %= count
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        return (self[row] for row in range(len(self)))

    def packed(self, rows: ArrayLike) -> PackedSequence:
        """The batch of these rows (B numbers), as torch's `pack_sequence(..., enforce_sorted=False)` makes it.

        Rows of one length keep the order of `rows`.

        Returns:
            A PackedSequence of token ids: data (N,), batch_sizes (T,), sorted and unsorted indices (B,), all int64.

        Raises:
            IndexError: A row number is out of range (negative ones are).
            ValueError: `rows` is empty or not one-dimensional, or a row has no token.
            TypeError: `rows` are not whole numbers.
        """
        parts = _host.pack(self.values, self.offsets, whole_numbers(rows, "rows"))
        return PackedSequence(*map(torch.from_numpy, parts))

    def padded(self, rows: ArrayLike, batch_first: bool = False, padding_id: int = PAD_ID) -> tuple[Tensor, Tensor]:
        """The batch of these rows (B numbers), filled up to the longest with `padding_id`.

        Returns:
            ids (T, B), or (B, T) if `batch_first`, and lengths (B,), both int64.

        Raises:
            As `packed`.
        """
        numbers = whole_numbers(rows, "rows")
        ids, lengths = _host.pad(self.values, self.offsets, numbers, batch_first, padding_id)
        return torch.from_numpy(ids), torch.from_numpy(lengths)


def whole_numbers(numbers: ArrayLike, name: str) -> NDArray[np.int64]:
    array = np.asarray(numbers)
    if array.dtype == np.int64 and array.flags.c_contiguous and array.ndim == 1:
        return array  # the usual case, and nothing to do
    if array.ndim != 1:
        raise ValueError(f"{name}: expected one dimension, got shape {array.shape}")
    if len(array) == 0:
        return np.empty(0, dtype=np.int64)  # numpy makes an empty list one of floats
    if array.dtype.kind not in "iu":  # a bool or a float would be turned into a number silently
        raise TypeError(f"{name}: expected whole numbers, got {array.dtype}")
    if array.dtype == np.uint64 and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name}: {array.max()} does not fit int64")
    return np.ascontiguousarray(array, dtype=np.int64)


def encode_texts(
    texts: Sequence[str], tokenizer: Callable[[str], Sequence[str]], vocabulary: Vocabulary
) -> RaggedTokens:
    """One row of token ids for each text; a text without a token becomes the one token `<unk>`, so no row is empty.

    Raises:
        TypeError: `texts` is one str.
    """
    if isinstance(texts, str):
        raise TypeError("texts: expected a list of texts, got a str")
    if type(tokenizer) in (WordTokenizer, CasedTokenizer):  # in C++, which makes no tokens of what is ASCII
        marks = vocabulary.encode([CAPITALIZED, ALL_CAPITALS]).tolist() if type(tokenizer) is CasedTokenizer else None
        encode = vocabulary.word_ids.encode
        return RaggedTokens(*encode(list(texts), lambda part: vocabulary.encode(tokenizer(part)), marks))
    counts = np.zeros(len(texts) + 1, dtype=np.int64)
    parts = []
    for begin in range(0, len(texts), _TEXTS_AT_ONCE):
        rows = [tokenizer(text) or _NO_TOKEN for text in texts[begin : begin + _TEXTS_AT_ONCE]]
        if any(isinstance(row, str) for row in rows):
            raise TypeError("tokenizer: expected one that returns a list of tokens, got a str")
        counts[begin + 1 : begin + 1 + len(rows)] = [len(row) for row in rows]
        parts.append(vocabulary.encode(list(itertools.chain.from_iterable(rows))))
    return RaggedTokens(np.concatenate(parts) if parts else np.empty(0, dtype=np.int64), counts.cumsum())
