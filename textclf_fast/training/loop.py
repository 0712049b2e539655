"""The training loop: Adam on the cross-entropy, an evaluation after each epoch."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from textclf_fast.optim import DeferredAdam
from textclf_fast.text import Batches, LengthBucketSampler, ShuffledBatches
from textclf_fast.training.encoded import EncodedTexts, Layout
from textclf_fast.training.metrics import accuracy, confusion_matrix, macro_f1


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Attributes:
        epochs: how often each text is seen.
        batch_size: B.
        learning_rate: Adam's.
        seed: of the order of the batches and of dropout. (The initial weights are the caller's: seed torch before the
            model is made.)
        layout: what the model is given: "packed", a PackedSequence of ids; "padded", ids (T, B) and lengths.
        bucket: batches of similar lengths, instead of any.
        fused_adam: :class:`textclf_fast.optim.DeferredAdam`: PyTorch's fused Adam, and only the rows in use of a sparse
            embedding. False: PyTorch's default Adam, which takes dense gradients only. The same update up to rounding.

    Raises:
        ValueError: a number out of range, an unknown layout.
    """

    epochs: int = 5
    batch_size: int = 32
    learning_rate: float = 1e-3
    seed: int = 0
    layout: Layout = "packed"
    bucket: bool = True
    fused_adam: bool = True

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate: expected a positive number, got {self.learning_rate}")
        if self.layout not in ("packed", "padded"):
            raise ValueError(f"layout: expected 'packed' or 'padded', got {self.layout!r}")


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
    """All epochs of a training."""

    epochs: list[EpochResult] = field(default_factory=list)

    @property
    def best(self) -> EpochResult:
        """The epoch with the highest held-out accuracy; the first of several."""
        return max(self.epochs, key=lambda result: result.held_out.accuracy)


def fit(
    model: nn.Module,
    train: EncodedTexts,
    held_out: EncodedTexts,
    options: TrainingOptions | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_epoch: Callable[[EpochResult], None] | None = None,
    *,
    optimizer: torch.optim.Optimizer | None = None,
) -> History:
    """Trains a classifier, and leaves it with the weights of its best epoch on the held-out data.

    Args:
        model: its forward takes what `EncodedTexts.batch` gives, and returns logits (B, C).
        train, held_out: the data; neither may be empty.
        options: TrainingOptions() by default.
        on_step, on_epoch: called after each step and each epoch, outside the time measured.
        optimizer: of the model's parameters, instead of the one that `options` describes.

    Raises:
        ValueError: there is no data.
        FloatingPointError: the loss is no longer a finite number.
    """
    history = History()
    best: dict[str, Tensor] = {}
    for result in train_epochs(model, train, held_out, options, on_step, optimizer):
        history.epochs.append(result)
        if history.best is result:
            best = copy.deepcopy(model.state_dict())
        if on_epoch is not None:
            on_epoch(result)
    model.load_state_dict(best)
    return history


def train_epochs(
    model: nn.Module,
    train: EncodedTexts,
    held_out: EncodedTexts,
    options: TrainingOptions | None = None,
    on_step: Callable[[Step], None] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> Iterator[EpochResult]:
    """As `fit`, but an iterator, so that several trainings can take turns; the weights are those of the last epoch."""
    options = options or TrainingOptions()
    if len(train) == 0:
        raise ValueError("train: expected at least one text, got none")
    batches = _batches(train, options.batch_size, options.bucket, shuffle=True, seed=options.seed)
    optimizer = optimizer or _optimizer(model, options)
    try:
        for epoch in range(options.epochs):
            batches.set_epoch(epoch)
            steps = _train_one_epoch(model, train, batches, optimizer, epoch, options, on_step)
            held_out_result = evaluate(model, held_out, options.batch_size, options.layout, options.bucket)
            yield EpochResult(epoch, steps, held_out_result)
    finally:
        if isinstance(optimizer, DeferredAdam):
            optimizer.detach()


def _optimizer(model: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    if options.fused_adam:
        return DeferredAdam(model.parameters(), model, lr=options.learning_rate)
    if any(isinstance(module, nn.Embedding) and module.sparse for module in model.modules()):
        raise ValueError("fused_adam: got False, expected True for a model with a sparse embedding")
    return torch.optim.Adam(model.parameters(), lr=options.learning_rate)


def _train_one_epoch(
    model: nn.Module,
    train: EncodedTexts,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    options: TrainingOptions,
    on_step: Callable[[Step], None] | None,
) -> list[Step]:
    device = _device(model)
    lengths = train.tokens.lengths
    parameters = list(model.parameters())
    model.train()
    steps: list[Step] = []
    # Dropout draws from torch's global generator: seeded for this epoch, and afterwards as if it had not been touched.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence([options.seed, epoch]).generate_state(1)[0]))
        start = time.perf_counter()
        for rows in batches:
            inputs, labels = train.batch(rows, options.layout, device)
            loss = functional.cross_entropy(model(*inputs), labels)
            for parameter in parameters:  # optimizer.zero_grad() does this in ten times the time, 50 us
                parameter.grad = None
            loss.backward()
            optimizer.step()
            number = loss.item()  # waits for the device: the step is over
            seconds = time.perf_counter() - start
            if not math.isfinite(number):
                raise FloatingPointError(
                    f"the loss became {number} in epoch {epoch + 1}, step {len(steps) + 1}: try a lower learning rate"
                )
            steps.append(Step(epoch, len(steps), number, int(lengths[rows].sum()), seconds))
            if on_step is not None:
                on_step(steps[-1])
            start = time.perf_counter()
    return steps


@torch.no_grad()
def evaluate(
    model: nn.Module, data: EncodedTexts, batch_size: int = 32, layout: Layout = "packed", bucket: bool = True
) -> Evaluation:
    """The model's loss and metrics, in eval mode; leaves it in the mode it was in.

    Args:
        model: as in `fit`.
        data: what it is tested on.
        batch_size, layout: as in `TrainingOptions`.
        bucket: texts in the order of their lengths, instead of that of `data`: faster, and the same to a model that is
            indifferent to padding.

    Raises:
        ValueError: there is no data.
    """
    if len(data) == 0:
        raise ValueError("data: expected at least one text, got none")
    device = _device(model)
    was_training = model.training
    model.eval()
    loss = 0.0
    counts: Tensor | None = None
    for rows in _batches(data, batch_size, bucket, shuffle=False):
        inputs, labels = data.batch(rows, layout, device)
        logits = model(*inputs)
        loss += functional.cross_entropy(logits, labels, reduction="sum").item()
        part = confusion_matrix(labels, logits.argmax(1), logits.size(1))
        counts = part if counts is None else counts + part
    model.train(was_training)
    assert counts is not None  # there is at least one batch
    return Evaluation(loss / len(data), accuracy(counts), macro_f1(counts))


def _batches(data: EncodedTexts, batch_size: int, bucket: bool, shuffle: bool, seed: int = 0) -> Batches:
    if bucket:
        return LengthBucketSampler(data.tokens.lengths, batch_size, shuffle=shuffle, seed=seed)
    return ShuffledBatches(len(data), batch_size, shuffle=shuffle, seed=seed)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
