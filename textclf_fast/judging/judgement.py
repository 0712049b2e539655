"""All that is said about a classifier on some labelled texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from textclf_fast.judging.calibration import cross_entropy, reliability
from textclf_fast.judging.curves import Curves, curves
from textclf_fast.training import EncodedTexts, accuracy, confusion_matrix, macro_f1
from textclf_fast.training.evaluation import compute_logits

_BATCH_SIZE = 64


@dataclass(frozen=True)
class ClassScore:
    """How good a model is on one class; numbers that nothing tells are None.

    Attributes:
        label: its name.
        precision: the share of right ones among the texts that were predicted to be of it.
        recall: the share of right ones among those that are of it.
        f1: the harmonic mean of both.
        support: the number of those that are of it.
    """

    label: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True, eq=False)
class Judgement:
    """A model's answers about n texts of C classes, and what they are worth.

    Attributes:
        labels: the names of the classes, by number.
        logits: (n, C) float32.
        truth: (n,) int64.
        counts: (C, C) int64, the confusion matrix: [i, j] counts what is of class i and was predicted to be j.
    """

    labels: list[str]
    logits: Tensor
    truth: Tensor
    counts: Tensor

    @classmethod
    def of(cls, labels: Sequence[str], logits: Tensor, truth: Tensor) -> Judgement:
        """From the answers.

        Raises:
            ValueError: shapes that do not fit, or no texts.
        """
        if logits.dim() != 2 or logits.size(1) != len(labels) or len(logits) == 0:
            raise ValueError(f"logits: expected shape (n, {len(labels)}), n above 0, got {tuple(logits.shape)}")
        return cls(list(labels), logits, truth, confusion_matrix(truth, logits.argmax(1), len(labels)))

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return accuracy(self.counts)

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes that are there or were predicted."""
        return macro_f1(self.counts)

    @property
    def micro_f1(self) -> float:
        """F1 of all answers together: each text has one label and gets one, so it is the accuracy."""
        return self.accuracy

    @property
    def loss(self) -> float:
        """The mean cross-entropy."""
        return cross_entropy(self.logits, self.truth)

    @property
    def calibration_error(self) -> float:
        """The expected calibration error, see :class:`textclf_fast.judging.calibration.Reliability`."""
        return reliability(self.logits, self.truth).error

    @property
    def classes(self) -> list[ClassScore]:
        """A score for each class, by number."""
        right = self.counts.diagonal().tolist()
        there, predicted = self.counts.sum(1).tolist(), self.counts.sum(0).tolist()
        return [
            ClassScore(label, _ratio(r, p), _ratio(r, t), _ratio(2 * r, p + t), t)
            for label, r, p, t in zip(self.labels, right, predicted, there, strict=True)
        ]

    @property
    def curves(self) -> Curves | None:
        """Of the second of two classes; None where there are more, or texts of one alone."""
        if len(self.labels) != 2:
            return None
        return curves(self.logits.double().softmax(1)[:, 1].numpy(), self.truth.numpy() == 1)

    def record(self) -> dict[str, Any]:
        """As JSON has it; with the areas under the curves, where there are any."""
        found = self.curves
        of_two = {} if found is None else {"roc_area": found.roc_area, "average_precision": found.average_precision}
        return {
            "texts": len(self),
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "micro_f1": self.micro_f1,
            "loss": _finite(self.loss),
            "calibration_error": _finite(self.calibration_error),
            **of_two,
            "classes": [vars(score) for score in self.classes],
            "confusion": self.counts.tolist(),
        }


def judge(model: nn.Module, data: EncodedTexts, labels: Sequence[str], batch_size: int = _BATCH_SIZE) -> Judgement:
    """Has the model answer, in eval mode; leaves it in the mode it was in.

    Args:
        model: a classifier; its forward takes what `EncodedTexts.batch` gives.
        data: what it is tested on, of n texts.
        labels: the names of the classes, by number.
        batch_size: texts at once.

    Raises:
        ValueError: there is no data.
    """
    if len(data) == 0:
        raise ValueError("data: expected at least one text, got none")
    return Judgement.of(labels, compute_logits(model, data, batch_size), data.labels)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
