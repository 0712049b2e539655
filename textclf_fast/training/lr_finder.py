"""The learning-rate finder: which rates a model learns at, before it is trained."""

from __future__ import annotations

import copy
import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from textclf_fast.optim import DeferredAdam
from textclf_fast.text import LengthBucketSampler
from textclf_fast.training.encoded import EncodedTexts

_SMOOTHING = 0.9  # of the loss: about the last 10 steps
_DIVERGED = 3.0  # times the lowest smoothed loss: nothing is learnt any more


@dataclass(frozen=True)
class LearningRateCurve:
    """The loss on the way from low learning rates to high ones.

    Attributes:
        rates: of each step.
        losses: after it, smoothed.
    """

    rates: list[float]
    losses: list[float]

    @property
    def suggestion(self) -> float:
        """A tenth of the rate at which the loss is lowest: at that one it is about to grow; a one-cycle's peak."""
        return self.rates[int(np.argmin(self.losses))] / 10


def find_learning_rate(
    model: nn.Module,
    train: EncodedTexts,
    *,
    first: float = 1e-5,
    last: float = 1.0,
    steps: int = 100,
    batch_size: int = 32,
    seed: int = 0,
    optimizer: torch.optim.Optimizer | None = None,
) -> LearningRateCurve:
    """Trains for some steps, each at a higher rate than the one before, until the loss grows; then undoes it.

    L. N. Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017, section 3.3, with rates that grow by
    a factor instead of a difference.

    Args:
        model: is left with the weights it had, and in the mode it was in.
        train: what to train on.
        first, last: the rates of the first and of the last step.
        steps: how many there are, unless the loss grows to thrice its lowest before.
        batch_size, seed: as in `TrainingOptions`.
        optimizer: that has not taken a step; each of its groups is trained at its own ``lr`` times the rate.
            DeferredAdam by default, on all parameters alike.

    Raises:
        ValueError: there is no data, or a number out of range.
    """
    if not 0 < first < last:
        raise ValueError(f"first, last: expected 0 < first < last, got {first} and {last}")
    if steps < 2:
        raise ValueError(f"steps: expected at least 2, got {steps}")
    if len(train) == 0:
        raise ValueError("train: expected at least one text, got none")
    was_training = model.training
    before = copy.deepcopy(model.state_dict())
    optimizer = optimizer or DeferredAdam(model.parameters(), model, lr=1.0)
    factors = [group["lr"] for group in optimizer.param_groups]
    device = next(model.parameters()).device
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    model.train()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            for step, rows in enumerate(itertools.islice(_batches(train, batch_size, seed), steps)):
                rate = first * (last / first) ** (step / (steps - 1))
                for group, factor in zip(optimizer.param_groups, factors, strict=True):
                    group["lr"] = rate * factor
                inputs, labels = train.batch(rows, "packed", device)
                loss = functional.cross_entropy(model(*inputs), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                average = _SMOOTHING * average + (1 - _SMOOTHING) * loss.item()
                smooth = average / (1 - _SMOOTHING ** (step + 1))
                if not math.isfinite(smooth) or (losses and smooth > _DIVERGED * min(losses)):
                    break
                rates.append(rate)
                losses.append(smooth)
    finally:
        if isinstance(optimizer, DeferredAdam):
            optimizer.detach()
        model.load_state_dict(before)
        model.zero_grad()
        model.train(was_training)
    return LearningRateCurve(rates, losses)


def draw_curve(curve: LearningRateCurve, path: str | Path) -> None:
    """Draws loss against learning rate, and the suggestion, into a PNG file.

    Raises:
        ImportError: there is no matplotlib.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.semilogx(curve.rates, curve.losses, color="#1f5fa8")
    axes.axvline(curve.suggestion, color="#c0392b", linestyle="--", label=f"suggested: {curve.suggestion:.1e}")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss, smoothed")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(beside, dpi=150, format="png")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _batches(train: EncodedTexts, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Epoch after epoch."""
    batches = LengthBucketSampler(train.tokens.lengths, batch_size, seed=seed)
    for epoch in itertools.count():
        batches.set_epoch(epoch)
        yield from batches
