"""Distillation: a classifier learns to tell texts apart as a sentence encoder does, before it sees a label.

A sentence encoder is a transformer that gives each text a vector, near those of texts that mean the same. A classifier
takes over what it can of that: it is trained to give the same vectors, of texts that need no label, and then with
labels. As N. Reimers and I. Gurevych, Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation,
EMNLP 2020, teach another transformer, and R. Tang and others, Distilling Task-Specific Knowledge from BERT into Simple
Neural Networks, 2019, an LSTM, of one task.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from textclf_fast.models import Classifier
from textclf_fast.optim import DeferredAdam
from textclf_fast.text import LengthBucketSampler, RaggedTokens
from textclf_fast.training.evaluation import device_of
from textclf_fast.training.results import Step
from textclf_fast.training.schedules import Schedule

_SCHEDULE = Schedule("one-cycle", warmup=0.1)


@dataclass(frozen=True)
class DistillationOptions:
    """How to learn from a sentence encoder.

    Attributes:
        epochs: how often each text is seen.
        batch_size: B.
        learning_rate: Adam's, the highest of one cycle.
        seed: of the last layer's initial weights, of the order of the texts, and of dropout.

    Raises:
        ValueError: a number out of range.
    """

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 4e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate: expected a positive number, got {self.learning_rate}")


def distil(
    model: Classifier,
    tokens: RaggedTokens,
    vectors: Tensor,
    options: DistillationOptions | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> float:
    """Trains all of a classifier but its last layer, whose place another one of K numbers takes meanwhile.

    Args:
        model: keeps its last layer, as it is. (Weights that words have, of an MLP, stay as they are, too.)
        tokens: n texts, none of them empty.
        vectors: (n, K) theirs, of whatever length: only their directions count.
        options: DistillationOptions() by default.
        on_step: called after each step; a step's loss is 1 minus the mean cosine.

    Returns:
        the mean cosine of the angles between the model's vectors and those given, in the last epoch, with dropout.

    Raises:
        ValueError: there are no texts, or not as many vectors.
        FloatingPointError: the loss is no longer a finite number.
    """
    options = options or DistillationOptions()
    if len(tokens) == 0:
        raise ValueError("tokens: expected at least one text, got none")
    if vectors.dim() != 2 or len(vectors) != len(tokens):
        raise ValueError(f"vectors: expected ({len(tokens)}, K), one for each text, got {tuple(vectors.shape)}")
    last, was_training = model.fc, model.training
    with torch.random.fork_rng([last.weight.device] if last.weight.is_cuda else []):
        torch.manual_seed(options.seed)
        model.fc = nn.Linear(last.in_features, vectors.size(1)).to(last.weight)
        try:
            return _train(model.train(), tokens, vectors, options, on_step)
        finally:
            model.fc = last
            model.train(was_training)


def _train(
    model: Classifier,
    tokens: RaggedTokens,
    vectors: Tensor,
    options: DistillationOptions,
    on_step: Callable[[Step], None] | None,
) -> float:
    device = device_of(model)
    optimizer = DeferredAdam(model.parameters(), model, options.learning_rate)
    batches = LengthBucketSampler(tokens.lengths, options.batch_size, seed=options.seed)
    steps, cosines = len(batches), 0.0
    try:
        for epoch in range(options.epochs):
            batches.set_epoch(epoch)
            start, cosines = time.perf_counter(), 0.0
            for step, rows in enumerate(batches):
                factor = _SCHEDULE.factor(epoch * steps + step, options.epochs * steps)
                for group in optimizer.param_groups:
                    group["lr"] = options.learning_rate * factor
                for parameter in model.parameters():
                    parameter.grad = None
                wanted = vectors[torch.from_numpy(rows)].to(device)
                found = model(tokens.packed(rows).to(device))  # type: ignore[arg-type]  # the hint lacks devices
                loss = 1 - functional.cosine_similarity(found, wanted.to(found.dtype)).mean()
                loss.backward()
                optimizer.step()
                number = loss.item()
                if not math.isfinite(number):
                    raise FloatingPointError(f"the loss became {number} in epoch {epoch + 1}, step {step + 1}")
                cosines += (1 - number) * len(rows)
                if on_step is not None:
                    seconds = time.perf_counter() - start
                    on_step(Step(epoch, step, number, int(np.sum(tokens.lengths[rows])), seconds))
                start = time.perf_counter()
    finally:
        optimizer.detach()
    return cosines / len(tokens)
