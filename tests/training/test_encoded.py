from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_packed_sequence

from textclf_fast.text import LabelledTexts, RaggedTokens, Vocabulary
from textclf_fast.training import EncodedTexts

VOCABULARY = Vocabulary(["<pad>", "<unk>", "a", "b"])


def test_texts_and_labels_become_numbers() -> None:
    data = LabelledTexts(["a b", "c", ""], ["yes", "no", "yes"])
    encoded = EncodedTexts.from_texts(data, ["no", "yes"], VOCABULARY, str.split)
    assert len(encoded) == 3
    assert [encoded.tokens[row].tolist() for row in range(3)] == [[2, 3], [1], [1]]
    assert encoded.labels.tolist() == [1, 0, 1]


def test_batches_of_both_layouts_are_the_same_texts() -> None:
    tokens = RaggedTokens.from_lists([[2], [2, 3, 2], [3, 3]])
    encoded = EncodedTexts(tokens, torch.tensor([0, 1, 2]))
    rows = np.array([2, 0, 1])
    (packed,), labels = encoded.batch(rows, "packed", torch.device("cpu"))
    (ids, lengths), same_labels = encoded.batch(rows, "padded", torch.device("cpu"))
    assert labels.tolist() == same_labels.tolist() == [2, 0, 1]
    assert lengths.tolist() == [2, 1, 3]
    assert pad_packed_sequence(packed)[0].tolist() == ids.tolist() == [[3, 2, 2], [3, 0, 3], [0, 0, 2]]


def test_unknown_label() -> None:
    with pytest.raises(ValueError, match="label 'maybe' is none of"):
        EncodedTexts.from_texts(LabelledTexts(["a"], ["maybe"]), ["no", "yes"], VOCABULARY, str.split)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([1.0], ValueError, r"weights: expected shape \(2,\), one for each text, got \(1,\)"),
        ([1, 1], TypeError, "weights: expected dtype float64, got torch.int64"),
        ([1.0, 0.0], ValueError, "weights: expected finite numbers above 0, got 0.0 in row 1"),
        ([math.nan, 1.0], ValueError, "weights: expected finite numbers above 0, got nan in row 0"),
        ([1.0, math.inf], ValueError, "weights: expected finite numbers above 0, got inf in row 1"),
    ],
)
def test_bad_weights(weights: list[float], error: type[Exception], message: str) -> None:
    numbers = torch.tensor(weights, dtype=torch.float64 if isinstance(weights[0], float) else None)
    with pytest.raises(error, match=message):
        EncodedTexts(RaggedTokens.from_lists([[2], [3]]), torch.tensor([0, 1]), numbers)


@pytest.mark.parametrize(
    ("rows", "labels", "error", "message"),
    [
        ([[2]], torch.tensor([0.0]), TypeError, "labels: expected dtype int64"),
        ([[2]], torch.tensor([0, 1]), ValueError, r"labels: expected shape \(1,\)"),
        ([[2], []], torch.tensor([0, 1]), ValueError, "row 1 is empty"),
    ],
)
def test_bad_input(rows: list[list[int]], labels: torch.Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        EncodedTexts(RaggedTokens.from_lists(rows), labels)
