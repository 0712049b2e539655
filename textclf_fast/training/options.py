"""How to train."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from textclf_fast.training.encoded import Layout
from textclf_fast.training.schedules import Schedule

Monitor = Literal["accuracy", "loss"]


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Attributes:
        epochs: how often each text is seen, at most.
        batch_size: B.
        learning_rate: Adam's; the highest of the schedule.
        seed: of the order of the batches and of dropout. (The initial weights are the caller's: seed torch before the
            model is made.)
        layout: what the model is given: "packed", a PackedSequence of ids; "padded", ids (T, B) and lengths.
        bucket: batches of similar lengths, instead of any.
        fused_adam: :class:`textclf_fast.optim.DeferredAdam`: PyTorch's fused Adam, and only the rows in use of a sparse
            embedding. False: PyTorch's default Adam, which takes dense gradients only. The same update up to rounding.
        schedule: of the learning rate.
        weight_decay: decoupled, AdamW's, of all parameters.
        clip_norm: gradients whose norm, over all parameters, is above this are scaled down to it.
        label_smoothing: the share of a text's label that is spread over all classes.
        class_weights: a factor for the loss of each class; "balanced": n / (C n_c), for n_c of n texts, so that every
            class weighs the same.
        adversarial: each batch is trained on once more with its words' vectors moved against the model, so far as a
            share of their norm (:class:`textclf_fast.training.adversarial.AdversarialWords`), and both losses are added
            up; a step takes twice the time. 0: not.
        patience: training ends early when so many epochs in a row were no better than the best before them.
        monitor: what tells how good an epoch is, on the held-out data; also which one is the best.
        keep: the weights that the model is left with: those of the best epoch, or of the last one.
        bfloat16: the forward under torch.autocast. Weights, gradients and the optimizer stay float32; evaluations too,
            as predictions are.
        deterministic: torch.use_deterministic_algorithms while it trains, which refuses operations whose results differ
            from run to run; on CUDA, cuBLAS needs CUBLAS_WORKSPACE_CONFIG=:4096:8 in the environment as well. On the
            CPU the trainer has the same bits at every run without it, at one number of threads and one instruction set.
            The seed covers torch's generators; nothing here draws from those of Python or NumPy.

    Raises:
        ValueError: a number out of range, an unknown name.
    """

    epochs: int = 5
    batch_size: int = 32
    learning_rate: float = 1e-3
    seed: int = 0
    layout: Layout = "packed"
    bucket: bool = True
    fused_adam: bool = True
    schedule: Schedule = Schedule()  # noqa: RUF009 (it is frozen)
    weight_decay: float = 0.0
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    class_weights: Literal["balanced"] | tuple[float, ...] | None = None
    adversarial: float = 0.0
    patience: int | None = None
    monitor: Monitor = "accuracy"
    keep: Literal["best", "last"] = "best"
    bfloat16: bool = False
    deterministic: bool = False

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0), ("patience", 1)):
            number = getattr(self, name)
            if number is not None and number < least:
                raise ValueError(f"{name}: expected at least {least}, got {number}")
        for name in ("learning_rate", "clip_norm"):
            number = getattr(self, name)
            if not (number is None and name == "clip_norm") and not (math.isfinite(number) and number > 0):
                raise ValueError(f"{name}: expected a positive number, got {number}")
        for name in ("weight_decay", "adversarial"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing: expected a number from 0 to below 1, got {self.label_smoothing}")
        for name, known in (
            ("layout", ("packed", "padded")),
            ("monitor", ("accuracy", "loss")),
            ("keep", ("best", "last")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected {known[0]!r} or {known[1]!r}, got {getattr(self, name)!r}")
        if isinstance(self.class_weights, str):
            if self.class_weights != "balanced":
                raise ValueError(f"class_weights: expected 'balanced' or numbers, got {self.class_weights!r}")
        elif self.class_weights is not None and not all(math.isfinite(w) and w >= 0 for w in self.class_weights):
            raise ValueError(f"class_weights: expected numbers of 0 or more, got {self.class_weights}")
