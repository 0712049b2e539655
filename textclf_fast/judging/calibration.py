"""Whether probabilities mean what they say: of the texts called positive with 90 %, are 90 % positive?

C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, On Calibration of Modern Neural Networks, 2017, has the expected
calibration error as it is counted here, the reliability diagram, and temperature scaling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

BINS = 15  # as in Guo et al.
_LEAST, _MOST = 0.05, 20.0  # temperatures beyond make probabilities of 0 and 1, or all alike
_HALVINGS = 40  # of the logarithm's interval of 6: to 1e-11


@dataclass(frozen=True, eq=False)
class Reliability:
    """n predictions sorted by how sure they are, into bins (0, 1/K], ..., ((K - 1)/K, 1].

    Attributes:
        counts: (K,) int64, the predictions of each bin; they add up to n.
        confidence: (K,) their mean probability of the class that was chosen; nan where there are none.
        accuracy: (K,) the share of them that are right; nan where there are none.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The expected calibration error: how far the two are apart in the mean over the predictions."""
        there = self.counts > 0
        gaps = np.abs(self.confidence - self.accuracy)[there]
        return float((gaps * self.counts[there]).sum() / self.counts.sum())


def reliability(logits: Tensor, labels: Tensor, bins: int = BINS) -> Reliability:
    """Counts how often predictions are right, by how sure they are.

    Args:
        logits: (n, C), n above 0.
        labels: (n,) int64, the classes.
        bins: K.

    Raises:
        ValueError: shapes that do not fit, no predictions, or no bins.
    """
    _check(logits, labels)
    if bins < 1:
        raise ValueError(f"bins: expected at least 1, got {bins}")
    confidence, predicted = logits.double().softmax(1).max(1)
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    counts = torch.bincount(place, minlength=bins)
    confidences = torch.bincount(place, confidence, minlength=bins) / counts
    right = torch.bincount(place, (predicted == labels).double(), minlength=bins) / counts
    return Reliability(counts.numpy(), confidences.numpy(), right.numpy())


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The number to divide logits by, so that the labels are the most probable; what is predicted stays the same.

    In 1 / temperature the cross-entropy is convex, so that the sign of its derivative tells where the least is; it is
    looked for from 0.05 to 20.

    Args:
        logits, labels: as of :func:`reliability`, of texts that the model was not trained on.

    Raises:
        ValueError: as :func:`reliability`.
    """
    _check(logits, labels)
    logits = logits.double()
    low, high = np.log(1 / _MOST), np.log(1 / _LEAST)
    of_labels = logits.gather(1, labels.unsqueeze(1)).mean()
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        expected = (logits * (logits * np.exp(middle)).softmax(1)).sum(1).mean()
        # The derivative by 1 / temperature: what the logits of the classes should be, less those of the labels.
        low, high = (low, middle) if expected > of_labels else (middle, high)
    return float(np.exp(-(low + high) / 2))


def cross_fitted(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits (n, C), each divided by a temperature that is fitted to the other half of the texts.

    What is measured on them tells what a temperature is worth on texts that it was not fitted to.

    Raises:
        ValueError: as :func:`reliability`, or there are fewer than two.
    """
    _check(logits, labels)
    if len(logits) < 2:
        raise ValueError("logits: expected at least two texts, of which each half can be fitted, got one")
    scaled = torch.empty_like(logits)
    for half, other in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        scaled[half] = logits[half] / fit_temperature(logits[other], labels[other])
    return scaled


def cross_entropy(logits: Tensor, labels: Tensor) -> float:
    """The mean over the texts, in nats."""
    _check(logits, labels)
    return float(functional.cross_entropy(logits.double(), labels))


def _check(logits: Tensor, labels: Tensor) -> None:
    if logits.dim() != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"logits, labels: expected shapes (n, C) and (n,), got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    if len(logits) == 0:
        raise ValueError("logits: expected at least one text, got none")
