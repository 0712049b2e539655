"""What came of a training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from textclf_fast.training.options import Monitor


@dataclass(frozen=True)
class Step:
    """One update of the weights: its place (from 0), the loss before it, and what it took."""

    epoch: int
    step: int
    loss: float
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """Mean loss and metrics of a model on some data."""

    loss: float
    accuracy: float
    macro_f1: float


@dataclass(frozen=True)
class EpochResult:
    """One epoch (from 0): its steps, and the model after it on the held-out data."""

    epoch: int
    steps: list[Step]
    held_out: Evaluation

    @property
    def loss(self) -> float:
        """The mean loss of the steps."""
        return sum(step.loss for step in self.steps) / len(self.steps)

    @property
    def seconds(self) -> float:
        """Time spent in training steps, the making of the batches included; the evaluation is not."""
        return sum(step.seconds for step in self.steps)

    @property
    def tokens_per_second(self) -> float:
        """Tokens of the texts, without padding, a second of training."""
        return sum(step.tokens for step in self.steps) / self.seconds


@dataclass(frozen=True)
class History:
    """All epochs of a training, and what tells how good one is."""

    epochs: list[EpochResult] = field(default_factory=list)
    monitor: Monitor = "accuracy"

    @property
    def best(self) -> EpochResult:
        """The epoch with the highest held-out accuracy, or the lowest held-out loss; the first of several."""
        return max(self.epochs, key=self._worth)

    def kept(self, keep: Literal["best", "last"]) -> EpochResult:
        """The epoch whose weights the model has in the end, as `TrainingOptions.keep` says."""
        return self.best if keep == "best" else self.epochs[-1]

    def is_over(self, epochs: int, patience: int | None) -> bool:
        """Whether there were `epochs`, or `patience` in a row that were no better than the best before them."""
        count = len(self.epochs)
        return count >= epochs or (count > 0 and patience is not None and count - 1 - self.best.epoch >= patience)

    def _worth(self, result: EpochResult) -> float:
        worth = result.held_out.accuracy if self.monitor == "accuracy" else -result.held_out.loss
        return -math.inf if math.isnan(worth) else worth
