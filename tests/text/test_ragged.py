"""RaggedTokens: batches against torch's own packing and padding, arguments, encoding."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence, pad_sequence

from textclf_fast.text import RaggedTokens, Vocabulary, WordTokenizer, encode_texts


def ragged(lengths: list[int]) -> RaggedTokens:
    random = np.random.default_rng(len(lengths))
    return RaggedTokens.from_lists([random.integers(2, 1000, length) for length in lengths])


def tensors(tokens: RaggedTokens, rows: list[int]) -> list[torch.Tensor]:
    return [torch.from_numpy(tokens[row]) for row in rows]


@pytest.mark.parametrize("count", [1, 2, 5, 17, 32])
def test_packed_equals_torch_where_lengths_differ(count: int) -> None:
    lengths = (np.random.default_rng(count).permutation(2 * count)[:count] + 1).tolist()
    tokens = ragged(lengths)
    rows = np.random.default_rng(0).permutation(count).tolist()
    ours = tokens.packed(rows)
    batch = tensors(tokens, rows)
    padded = pad_sequence(batch)
    for theirs in (
        pack_sequence(batch, enforce_sorted=False),
        pack_padded_sequence(padded, torch.tensor([len(row) for row in batch]), enforce_sorted=False),
    ):
        for name in ("data", "batch_sizes", "sorted_indices", "unsorted_indices"):
            got, expected = getattr(ours, name), getattr(theirs, name)
            assert got.dtype == expected.dtype == torch.int64
            assert torch.equal(got, expected), name


@pytest.mark.parametrize("lengths", [[3, 3, 3], [1, 1], [2, 5, 2, 5, 1, 5], [4, 4, 1, 1]])
def test_packed_comes_back_as_it_was_where_lengths_are_equal(lengths: list[int]) -> None:
    tokens = ragged(lengths)
    rows = list(range(len(lengths)))
    ours = tokens.packed(rows)
    padded, got_lengths = pad_packed_sequence(ours)
    assert torch.equal(padded, pad_sequence(tensors(tokens, rows)))
    assert got_lengths.tolist() == lengths
    assert torch.equal(ours.batch_sizes, pack_sequence(tensors(tokens, rows), enforce_sorted=False).batch_sizes)
    assert ours.sorted_indices is not None
    assert ours.sorted_indices.tolist() == sorted(rows, key=lambda row: -lengths[row])  # Python's sort is stable


def test_packed_goes_through_torchs_own_lstm() -> None:
    tokens = ragged([3, 6, 1])
    lstm, embedding = torch.nn.LSTM(4, 5), torch.nn.Embedding(1000, 4)
    packed = tokens.packed([0, 1, 2])
    _, (h_n, _) = lstm(packed._replace(data=embedding(packed.data)))
    for row in range(3):
        _, (alone, _) = lstm(embedding(torch.from_numpy(tokens[row])))
        torch.testing.assert_close(h_n[:, row], alone)


@pytest.mark.parametrize("batch_first", [False, True])
def test_padded_equals_torch(batch_first: bool) -> None:
    tokens = ragged([3, 1, 7, 2])
    rows = [2, 0, 0, 3]
    ids, lengths = tokens.padded(rows, batch_first=batch_first, padding_id=9)
    assert torch.equal(ids, pad_sequence(tensors(tokens, rows), batch_first=batch_first, padding_value=9))
    assert lengths.tolist() == [7, 3, 3, 2]
    assert ids.dtype == lengths.dtype == torch.int64
    assert tokens.padded([1, 0])[0].tolist() == [[tokens[1][0], tokens[0][0]], [0, tokens[0][1]], [0, tokens[0][2]]]


@pytest.mark.parametrize(
    "rows", [[1, 0], (1, 0), np.array([1, 0], dtype=np.uint8), torch.tensor([1, 0]), range(1, -1, -1)]
)
def test_rows_may_be_anything_like_a_list(rows: Any) -> None:
    tokens = ragged([2, 3])
    assert tokens.packed(rows).batch_sizes.tolist() == [2, 2, 1]
    assert torch.equal(tokens.packed(rows).data, tokens.packed([1, 0]).data)


def test_strided_rows_are_taken() -> None:
    tokens = ragged([2, 3, 4])
    assert tokens.padded(np.array([2, 1, 0])[::2])[1].tolist() == [4, 2]


@pytest.mark.parametrize(
    ("rows", "kind", "message"),
    [
        ([], ValueError, "rows: a batch needs at least one row, got none"),
        ([0, 3], IndexError, "rows: row 3 is out of range, there are 3 rows"),
        ([-1], IndexError, "rows: row -1 is out of range"),
        ([0, 1], ValueError, "rows: row 1 is empty"),
        ([0.0], TypeError, "rows: expected whole numbers, got float64"),
        ([True], TypeError, "rows: expected whole numbers, got bool"),
        (["0"], TypeError, "rows: expected whole numbers, got <U1"),
        ([[0]], ValueError, r"rows: expected one dimension, got shape \(1, 1\)"),
        (0, ValueError, r"rows: expected one dimension, got shape \(\)"),
        (np.array([2**63], dtype=np.uint64), ValueError, "rows: 9223372036854775808 does not fit int64"),
    ],
)
def test_refused_rows(rows: Any, kind: type[Exception], message: str) -> None:
    tokens = ragged([2, 0, 3])
    for make in (tokens.packed, tokens.padded):
        with pytest.raises(kind, match=message):
            make(rows)


INT = np.int64


@pytest.mark.parametrize(
    ("values", "offsets", "kind", "message"),
    [
        ([1, 2], np.array([0, 2]), TypeError, "values: expected an int64 array, got list"),
        (np.ones(2), np.array([0, 2]), TypeError, "values: expected an int64 array, got float64"),
        (np.ones(2, INT), np.array([0, 2], np.int32), TypeError, "offsets: expected an int64 array, got int32"),
        (np.ones((2, 1), INT), np.array([0, 2]), ValueError, r"values: .* got shape \(2, 1\)"),
        (np.ones(4, INT)[::2], np.array([0, 2]), ValueError, "values: expected one dimension, contiguous"),
        (np.ones(2, INT), np.array([], INT), ValueError, r"offsets: expected 0 first and 2 .* last, got none"),
        (np.ones(2, INT), np.array([1, 2]), ValueError, "got 1 and 2"),
        (np.ones(2, INT), np.array([0, 3]), ValueError, "got 0 and 3"),
        (np.ones(2, INT), np.array([0, 2, 1, 2]), ValueError, "offsets: row 1 runs from 2 back to 1"),
    ],
)
def test_refused_arrays(values: Any, offsets: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        RaggedTokens(values, offsets)


def test_a_change_behind_its_back_is_noticed() -> None:
    tokens = ragged([2, 3])
    tokens.offsets[2] = 1000
    with pytest.raises(ValueError, match="offsets: row 1 runs from 2 to 1000"):
        tokens.packed([1])


def test_rows() -> None:
    tokens = RaggedTokens.from_lists([[5, 6], [], np.array([7], dtype=np.int32)])
    assert len(tokens) == 3
    assert tokens.lengths.tolist() == [2, 0, 1]
    assert [row.tolist() for row in tokens] == [[5, 6], [], [7]]
    assert tokens[-1].tolist() == [7]
    for row in (3, -4):
        with pytest.raises(IndexError, match=f"row {row} is out of range, there are 3 rows"):
            tokens[row]
    assert pickle.loads(pickle.dumps(tokens)).values.tolist() == [5, 6, 7]


def test_no_rows() -> None:
    tokens = RaggedTokens.from_lists([])
    assert len(tokens) == 0
    assert tokens.lengths.tolist() == []


@pytest.mark.parametrize(
    ("rows", "kind", "message"),
    [
        ([[1], [0.5]], TypeError, "row 1: expected whole numbers, got float64"),
        ([[1], [[2]]], ValueError, r"row 1: expected one dimension, got shape \(1, 1\)"),
    ],
)
def test_refused_lists(rows: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        RaggedTokens.from_lists(rows)


def test_encode_texts() -> None:
    vocabulary = Vocabulary(["<pad>", "<unk>", "good", "film"])
    tokens = encode_texts(["Good film", " ", "A good FILM"], WordTokenizer(), vocabulary)
    assert [row.tolist() for row in tokens] == [[2, 3], [1], [1, 2, 3]]
    with pytest.raises(TypeError, match="texts: expected a list of texts, got a str"):
        encode_texts("good film", WordTokenizer(), vocabulary)
