from __future__ import annotations

import math

import pytest
import torch
from sklearn import metrics

from textclf_fast.training import accuracy, confusion_matrix, macro_f1


@pytest.mark.parametrize("num_classes", [2, 3, 7])
@pytest.mark.parametrize("size", [1, 10, 500])
def test_agrees_with_scikit_learn(num_classes: int, size: int) -> None:
    generator = torch.Generator().manual_seed(num_classes * size)
    truth = torch.randint(num_classes, (size,), generator=generator)
    predicted = torch.where(
        torch.rand(size, generator=generator) < 0.6, truth, torch.randint(num_classes, (size,), generator=generator)
    )
    counts = confusion_matrix(truth, predicted, num_classes)
    expected = metrics.confusion_matrix(truth, predicted, labels=range(num_classes))
    assert counts.tolist() == expected.tolist()
    assert accuracy(counts) == pytest.approx(metrics.accuracy_score(truth, predicted))
    # scikit-learn, too, leaves out a class that is nowhere.
    assert macro_f1(counts) == pytest.approx(metrics.f1_score(truth, predicted, average="macro", zero_division=0))


def test_classes_that_are_never_predicted_or_never_there() -> None:
    truth, predicted = torch.tensor([0, 0, 2]), torch.tensor([0, 1, 0])
    counts = confusion_matrix(truth, predicted, 4)
    assert macro_f1(counts) == pytest.approx((0.5 + 0 + 0) / 3)


def test_parts_add_up() -> None:
    truth, predicted = torch.tensor([0, 1, 1, 0, 1]), torch.tensor([1, 1, 0, 0, 1])
    parts = confusion_matrix(truth[:2], predicted[:2], 2) + confusion_matrix(truth[2:], predicted[2:], 2)
    assert parts.tolist() == confusion_matrix(truth, predicted, 2).tolist()


def test_nothing() -> None:
    none = torch.empty(0, dtype=torch.int64)
    assert math.isnan(accuracy(confusion_matrix(none, none, 2)))


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [([0, 1], [0], "of shape"), ([0, 2], [0, 1], "truth: .* 0 .. 2"), ([0, 1], [-1, 1], "predicted: .* -1 .. 1")],
)
def test_bad_input(truth: list[int], predicted: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        confusion_matrix(torch.tensor(truth), torch.tensor(predicted), 2)
