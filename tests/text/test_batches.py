"""Batches of rows: each row once, repeatable, and of similar lengths where they should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from textclf_fast.text import Batches, LengthBucketSampler, ShuffledBatches

LENGTHS = np.random.default_rng(0).geometric(0.05, 5003)


def both(batch_size: int = 32, shuffle: bool = True, seed: int = 0) -> list[Batches]:
    return [
        ShuffledBatches(len(LENGTHS), batch_size, shuffle, seed),
        LengthBucketSampler(LENGTHS, batch_size, shuffle, seed),
    ]


def order(batches: Batches) -> list[list[int]]:
    return [batch.tolist() for batch in batches]


def padding(batches: Batches) -> float:
    """Padded entries for each real one."""
    return sum(len(batch) * LENGTHS[batch].max() for batch in batches) / LENGTHS.sum() - 1


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, 32, 5003, 9999])
def test_every_row_once(batch_size: int, shuffle: bool) -> None:
    for batches in both(batch_size, shuffle):
        for epoch in (0, 1):
            batches.set_epoch(epoch)
            got = list(batches)
            assert len(got) == len(batches) == -(-5003 // batch_size)
            assert sorted(np.concatenate(got).tolist()) == list(range(5003))
            assert sorted(map(len, got))[1:] == [batch_size] * (len(got) - 1)
            assert all(batch.dtype == np.int64 for batch in got)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    for number in (0, 1):
        first, again, other = both(seed=3)[number], both(seed=3)[number], both(seed=4)[number]
        epochs = []
        for epoch in (0, 1, 2):
            first.set_epoch(epoch)
            epochs.append(order(first))
            assert order(first) == epochs[-1]  # iterating changes nothing
        assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
        again.set_epoch(2)
        assert order(again) == epochs[2]
        assert order(other) != epochs[0]


def test_batches_are_of_similar_lengths_and_in_random_order() -> None:
    shuffled, bucketed = both()
    assert padding(shuffled) > 1
    assert padding(bucketed) < 0.1
    means = np.array([LENGTHS[batch].mean() for batch in bucketed])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3
    # Which rows meet changes from epoch to epoch.
    bucketed.set_epoch(1)
    assert not {frozenset(batch.tolist()) for batch in bucketed} & {frozenset(rows) for rows in order(both()[1])}


def test_without_shuffle() -> None:
    plain, bucketed = both(shuffle=False)
    assert np.concatenate(list(plain)).tolist() == list(range(5003))
    rows = np.concatenate(list(bucketed))
    assert rows.tolist() == np.argsort(LENGTHS, kind="stable").tolist()


def test_no_rows() -> None:
    for batches in (ShuffledBatches(0, 4), LengthBucketSampler([], 4), LengthBucketSampler([], 4, shuffle=False)):
        assert len(batches) == 0
        assert list(batches) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ShuffledBatches(-1, 4), "num_rows: expected at least 0, got -1"),
        (lambda: ShuffledBatches(4, 0), "batch_size: expected at least 1, got 0"),
        (lambda: LengthBucketSampler([1, 2], -3), "batch_size: expected at least 1, got -3"),
        (lambda: LengthBucketSampler([1, 2], 1, seed=-1), "seed: expected at least 0, got -1"),
        (lambda: ShuffledBatches(4, 2).set_epoch(-1), "epoch: expected at least 0, got -1"),
        (lambda: LengthBucketSampler([[1, 2]], 1), r"lengths: expected one dimension, got shape \(1, 2\)"),
    ],
)
def test_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
