"""Which rows make up which batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Rows are sorted by length among this many batches only: enough for batches of nearly one length, few enough that an
# epoch's order stays random.
_POOL_BATCHES = 50


class Batches(Protocol):
    """Yields arrays (B,) int64 of row numbers: every row once an epoch, in an order that depends on the epoch alone."""

    def __iter__(self) -> Iterator[NDArray[np.int64]]: ...

    def __len__(self) -> int:
        """Batches in an epoch."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next iteration; without it, every iteration is epoch 0."""
        ...


class ShuffledBatches:
    """Batches of rows whatever their lengths; the last one may be smaller.

    Args:
        num_rows: n, the rows there are.
        batch_size: Rows of a batch.
        shuffle: If False, the rows in their order.
        seed: The order depends on it, the epoch and the arguments alone.

    Raises:
        ValueError: `num_rows`, `seed` or an epoch is negative, or `batch_size` < 1.
    """

    def __init__(self, num_rows: int, batch_size: int, shuffle: bool = True, seed: int = 0) -> None:
        _at_least("num_rows", num_rows, 0)
        _at_least("batch_size", batch_size, 1)
        _at_least("seed", seed, 0)
        self.num_rows = num_rows
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        _at_least("epoch", epoch, 0)
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.num_rows // self.batch_size)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        rows = np.arange(self.num_rows)
        if self.shuffle:
            np.random.default_rng([self.seed, self.epoch]).shuffle(rows)
        yield from _cut(rows, self.batch_size)


class LengthBucketSampler(ShuffledBatches):
    """Batches of rows of similar lengths, so that little is padded and the rows of a batch end together.

    The rows are shuffled and cut into pools of some 50 batches; a pool is sorted by length and cut into batches, and
    the batches are shuffled. Without `shuffle`, all rows are sorted by length, shortest first.

    Args:
        lengths: (n,) whole numbers, the tokens of each row.
        batch_size, shuffle, seed: As in `ShuffledBatches`.

    Raises:
        ValueError: As `ShuffledBatches`, or `lengths` is not one-dimensional.
    """

    def __init__(self, lengths: ArrayLike, batch_size: int, shuffle: bool = True, seed: int = 0) -> None:
        self.lengths = np.asarray(lengths)
        if self.lengths.ndim != 1:
            raise ValueError(f"lengths: expected one dimension, got shape {self.lengths.shape}")
        super().__init__(len(self.lengths), batch_size, shuffle, seed)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        if not self.shuffle:
            yield from _cut(np.argsort(self.lengths, kind="stable"), self.batch_size)
            return
        random = np.random.default_rng([self.seed, self.epoch])
        rows = random.permutation(self.num_rows)
        batches: list[NDArray[np.int64]] = []
        for pool in _cut(rows, self.batch_size * _POOL_BATCHES):
            batches += _cut(pool[np.argsort(self.lengths[pool], kind="stable")], self.batch_size)
        for place in random.permutation(len(batches)):
            yield batches[place]


def _cut(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [rows[begin : begin + size] for begin in range(0, len(rows), size)]


def _at_least(name: str, number: int, least: int) -> None:
    if number < least:
        raise ValueError(f"{name}: expected at least {least}, got {number}")
