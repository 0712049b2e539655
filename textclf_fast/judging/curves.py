"""What a score for one class is worth at each threshold: the ROC and the precision-recall curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curves:
    """K thresholds, from the strictest to the one that all n texts pass; texts of one score pass together.

    Attributes:
        false_positives: (K + 1,) the share of the other texts that pass, from 0 to 1.
        recall: (K + 1,) the share of the class's texts that pass, from 0 to 1.
        precision: (K + 1,) the share of the class's among those that pass; 1 where none do.
    """

    false_positives: Numbers
    recall: Numbers
    precision: Numbers

    @property
    def roc_area(self) -> float:
        """How often a text of the class has a higher score than one that is not; equal scores count half."""
        return float(np.diff(self.false_positives) @ (self.recall[1:] + self.recall[:-1]) / 2)

    @property
    def average_precision(self) -> float:
        """The mean of the precision over the texts of the class."""
        return float(np.diff(self.recall) @ self.precision[1:])


def curves(scores: ArrayLike, of_class: ArrayLike) -> Curves | None:
    """The curves of n texts.

    Args:
        scores: (n,) higher for texts that are more likely to be of the class.
        of_class: (n,) whether they are.

    Returns:
        None where all texts are of the class, or none is: there is nothing to tell apart.

    Raises:
        ValueError: shapes that do not fit.
    """
    score, truth = np.asarray(scores, dtype=np.float64), np.asarray(of_class, dtype=bool)
    if score.ndim != 1 or score.shape != truth.shape:
        raise ValueError(f"scores, of_class: expected two of shape (n,), got {score.shape} and {truth.shape}")
    positives = int(truth.sum())
    if positives in (0, len(truth)):
        return None
    order = np.argsort(-score, kind="stable")
    last_of_score = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    passed = last_of_score + 1
    right = np.cumsum(truth[order])[last_of_score]
    return Curves(
        np.append(0.0, (passed - right) / (len(truth) - positives)),
        np.append(0.0, right / positives),
        np.append(1.0, right / passed),
    )
