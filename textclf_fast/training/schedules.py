"""Learning rates that change from step to step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """The learning rate of each step, as a factor of the peak: of every parameter group's own rate.

    It depends on the number of the step alone, so that a training may go on anywhere.

    Source: L. N. Smith and N. Topin, Super-Convergence, 2018. The curve is that of
    torch.optim.lr_scheduler.OneCycleLR(cycle_momentum=False) with its default numbers.

    Attributes:
        kind: "constant"; or "one-cycle": up from `start` to 1 during the first `warmup` of the steps, then down to
            `end`, each along half a cosine.
        warmup: a share of the steps.
        start, end: factors.

    Raises:
        ValueError: an unknown kind, a number out of range.
    """

    kind: Literal["constant", "one-cycle"] = "constant"
    warmup: float = 0.3
    start: float = 1 / 25
    end: float = 1 / 250_000

    def __post_init__(self) -> None:
        if self.kind not in ("constant", "one-cycle"):
            raise ValueError(f"kind: expected 'constant' or 'one-cycle', got {self.kind!r}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup: expected a number from 0 to below 1, got {self.warmup}")
        for name in ("start", "end"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a number from 0 to 1, got {getattr(self, name)}")

    def factor(self, step: int, steps: int) -> float:
        """For step number `step`, from 0, of `steps` in all."""
        if self.kind == "constant":
            return 1.0
        top = self.warmup * steps - 1
        if step < top:
            return _half_cosine(self.start, 1.0, step / top)
        return _half_cosine(1.0, self.end, (step - top) / (steps - 1 - top))


def _half_cosine(first: float, last: float, way: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * way)) / 2
