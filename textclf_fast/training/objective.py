"""The loss that training minimises, and the gradients' norm."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from textclf_fast.training.options import TrainingOptions


class Objective:
    """Cross-entropy with class weights, weights of texts, and label smoothing.

    The mean is one of weights: the losses times their weights, divided by the sum of these, where the weight of a text
    is its class's times its own. Of a text of which the probabilities of its classes are known, and no label, the
    weight of its class is their mean.

    Args:
        options: what of it there is.
        labels: (n,) int64 of all texts to train on, which balanced weights count.
        weights: (n,) float64 of these texts; None: all count alike.

    Raises:
        ValueError: when first called, class weights that are not one for each of the C classes.
    """

    def __init__(self, options: TrainingOptions, labels: Tensor, weights: Tensor | None = None) -> None:
        self._smoothing = options.label_smoothing
        self._class_weights = options.class_weights
        self._labels = labels
        self._weights = weights
        self._weight: Tensor | None = None

    def __call__(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """The mean loss of a batch.

        Args:
            logits: (B, C).
            targets: the classes (B,) int64, or their probabilities (B, C), float64.
            weights: (B,) float64, the texts' own; None: all alike.
        """
        if weights is None and targets.dim() == 1:
            return functional.cross_entropy(logits, targets, self._weight_for(logits), label_smoothing=self._smoothing)
        return self.of_part(logits, targets, targets, weights, weights)

    def of_part(
        self,
        logits: Tensor,
        targets: Tensor,
        batch_targets: Tensor,
        weights: Tensor | None = None,
        batch_weights: Tensor | None = None,
    ) -> Tensor:
        """A part's share of the mean loss of a batch, whose other parts are elsewhere; all shares add up to it.

        Args:
            logits, targets, weights: (P, C), (P,) or (P, C), and (P,), of the part.
            batch_targets, batch_weights: (B,) or (B, C), and (B,), of the whole batch.
        """
        weight = self._weight_for(logits)
        if targets.dim() == 2:  # of the logits' type, but never of less than float32, as under autocast
            targets = targets.to(torch.promote_types(logits.dtype, torch.float32))
        if weights is not None and batch_weights is not None:
            losses = functional.cross_entropy(
                logits, targets, weight, reduction="none", label_smoothing=self._smoothing
            )
            whole = batch_weights if weight is None else batch_weights * _of_classes(weight, batch_targets)
            # Divided in float64, in which no weight is too small or too large beside another.
            return (losses * (weights / whole.sum()).to(losses.dtype)).sum()
        total = functional.cross_entropy(logits, targets, weight, reduction="sum", label_smoothing=self._smoothing)
        return total / (len(batch_targets) if weight is None else _of_classes(weight, batch_targets).sum())

    def _weight_for(self, logits: Tensor) -> Tensor | None:
        if self._class_weights is None or self._weight is not None:
            return self._weight
        classes = logits.size(1)
        if self._class_weights == "balanced":
            weight = balanced_weights(self._labels, classes, self._weights)
        elif len(self._class_weights) == classes:
            weight = torch.tensor(self._class_weights)
        else:
            raise ValueError(f"class_weights: expected {classes}, one for each class, got {len(self._class_weights)}")
        # (Autocast computes the cross-entropy in float32 whatever the logits are.)
        self._weight = weight.to(logits.device, torch.promote_types(logits.dtype, torch.float32))
        return self._weight


def _of_classes(weight: Tensor, targets: Tensor) -> Tensor:
    """The weights (B,) of texts by their classes, or by the mean of these."""
    return weight[targets] if targets.dim() == 1 else targets.to(weight.dtype) @ weight


def balanced_weights(labels: Tensor, num_classes: int, weights: Tensor | None = None) -> Tensor:
    """n / (C n_c) for each class c of which there are n_c among n labels, (num_classes,); 0 where there is none.

    C counts the classes that are there. With weights (n,), n and n_c are sums of them.
    """
    counts = torch.bincount(labels, weights, num_classes).double()
    there = counts > 0
    return torch.where(there, counts.sum() / (there.sum() * torch.where(there, counts, 1.0)), 0.0)


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> None:
    """Scales the gradients so that their norm, over all parameters, is `max_norm` at most; sparse ones as they are.

    As torch.nn.utils.clip_grad_norm_, which takes dense gradients only.
    """
    values = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()  # or else a row that is there twice counts wrongly
            values.append(parameter.grad._values())
        else:
            values.append(parameter.grad)
    norm = torch.nn.utils.get_total_norm(values)
    torch._foreach_mul_(values, (max_norm / (norm + 1e-6)).clamp(max=1.0))
