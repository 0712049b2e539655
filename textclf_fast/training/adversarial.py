"""Words moved to where the loss grows: training on them as well makes a classifier less sure of single words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class AdversarialWords:
    """Moves a model's embeddings against it, by their gradient.

    T. Miyato, A. M. Dai and I. Goodfellow, Adversarial Training Methods for Semi-Supervised Text Classification, ICLR
    2017. There each position of a text is moved by itself; here a word is, wherever it is in the batch, which takes no
    more than its row of the table.

    Args:
        model: all of whose nn.Embedding are moved.
        size: how far: the norm of what is added, over all rows that have a gradient, as a share of those rows' norm.
    """

    def __init__(self, model: nn.Module, size: float) -> None:
        self._weights = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
        self._size = size

    @contextlib.contextmanager
    def moved(self) -> Iterator[None]:
        """Within it, after the way back of the loss of a batch, the words of that batch are where they hurt most."""
        kept: list[tuple[Tensor, Tensor, Tensor]] = []
        with torch.no_grad():
            for weight in self._weights:
                if weight.grad is None:
                    continue
                rows, gradient = _rows(weight.grad)
                before = weight.index_select(0, rows)
                step = gradient * (self._size * before.norm() / gradient.norm().clamp(min=1e-12))
                weight.index_add_(0, rows, step)
                kept.append((weight, rows, before))
        try:
            yield
        finally:
            with torch.no_grad():
                for weight, rows, before in kept:
                    weight.index_copy_(0, rows, before)


def _rows(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The rows (R,) of a gradient (V, I), and their values (R, I)."""
    if gradient.is_sparse:
        gradient = gradient.coalesce()
        return gradient.indices()[0], gradient.values()
    rows = gradient.any(1).nonzero().squeeze(1)
    return rows, gradient.index_select(0, rows)
