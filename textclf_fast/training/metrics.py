"""How good predictions are, read off one matrix of counts."""

from __future__ import annotations

import torch
from torch import Tensor


def confusion_matrix(truth: Tensor, predicted: Tensor, num_classes: int, weights: Tensor | None = None) -> Tensor:
    """Counts each pair of classes.

    Args:
        truth, predicted: (n,) int64 in 0 .. num_classes - 1.
        num_classes: C.
        weights: (n,) float64, what each one counts, instead of 1.

    Returns:
        (C, C) int64, with weights float64: entry [i, j] counts what is of class i and was predicted to be j. Those of
        two parts add up.

    Raises:
        ValueError: shapes that differ, or a class out of range.
    """
    if truth.dim() != 1 or truth.shape != predicted.shape:
        raise ValueError(
            f"truth, predicted: expected two of shape (n,), got {tuple(truth.shape)} and {tuple(predicted.shape)}"
        )
    for name, classes in (("truth", truth), ("predicted", predicted)):
        if classes.numel() and not 0 <= int(classes.min()) <= int(classes.max()) < num_classes:
            raise ValueError(
                f"{name}: expected classes 0 .. {num_classes - 1}, got {int(classes.min())} .. {int(classes.max())}"
            )
    pairs = truth * num_classes + predicted
    return torch.bincount(pairs, weights, num_classes**2).view(num_classes, num_classes)


def accuracy(counts: Tensor) -> float:
    """The share of right predictions in a (C, C) confusion matrix; nan without any."""
    return float(counts.diagonal().sum().double() / counts.sum())


def macro_f1(counts: Tensor) -> float:
    """The mean F1 of the classes that are there or were predicted, in a (C, C) confusion matrix; nan without any."""
    right = counts.diagonal().double()
    there_or_predicted = (counts.sum(0) + counts.sum(1)).double()
    return float((2 * right / there_or_predicted)[there_or_predicted > 0].mean())
