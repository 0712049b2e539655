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
    ("probabilities", "error", "message"),
    [
        (torch.ones(2, 2), TypeError, "probabilities: expected dtype float64, got torch.float32"),
        (
            torch.ones(2).double(),
            ValueError,
            r"expected shape \(2, C\), a row for each text, got \(2,\)",
        ),
        (torch.ones(1, 1).double(), ValueError, r"expected shape \(2, C\), a row for each text, got \(1, 1\)"),
        (torch.tensor([[0.5, 0.5], [0.5, 0.4]]).double(), ValueError, r"from 0 that add up to 1, got .* in row 1"),
        (torch.tensor([[1.5, -0.5], [0.5, 0.5]]).double(), ValueError, r"got \[1.5, -0.5\] in row 0"),
        (torch.tensor([[1, 0], [math.nan, 1]]).double(), ValueError, r"got \[nan, 1.0\] in row 1"),
    ],
)
def test_bad_probabilities(probabilities: torch.Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        EncodedTexts(RaggedTokens.from_lists([[2], [3]]), torch.tensor([0, 1]), None, probabilities)


def test_what_training_takes_texts_to_be_of() -> None:
    tokens, labels = RaggedTokens.from_lists([[2], [3]]), torch.tensor([0, 1])
    probabilities = torch.tensor([[0.75, 0.25], [0.0, 1.0]], dtype=torch.float64)
    rows, cpu = np.array([1, 0, 1]), torch.device("cpu")
    assert EncodedTexts(tokens, labels).targets_of(rows, cpu).tolist() == [1, 0, 1]
    found = EncodedTexts(tokens, labels, None, probabilities)
    assert torch.equal(found.targets_of(rows, cpu), probabilities[[1, 0, 1]])
    assert found.batch(rows, "packed", cpu)[1].tolist() == [1, 0, 1]  # what evaluation goes by


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
