"""Python face of the ops of Adam on single rows; the others: textclf_fast/ops.py."""

from __future__ import annotations

import torch
from torch import Tensor

from textclf_fast import fake_kernels  # noqa: F401 (registers them)

_ops = torch.ops.textclf_fast


def stale_rows(ids: Tensor, done: Tensor, steps: int) -> Tensor:
    """The rows among ``ids`` that have not had all of the first ``steps`` steps, each once, in order of appearance.

    Args:
        ids: int64 on the CPU, of any shape, each in ``0 .. V - 1``.
        done: (V,) int64, the steps that each row has had.
        steps: at least 0.

    Returns:
        (U,) int64.

    Raises:
        RuntimeError: an id out of range, another dtype; the message names the argument.
    """
    return _ops.stale_rows(ids, done, steps)


def adam_rows_(
    param: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    done: Tensor,
    rows: Tensor,
    grad: Tensor | None,
    history: Tensor,
    steps: int,
) -> None:
    """Gives some rows all of the first ``steps`` steps of Adam that they have not had.

    Those steps are without a gradient, but for the last where ``grad`` is given. The version counters of what is
    changed go up, so that autograd and kept tensors notice.

    Args:
        param: (V, E) float32 or float64 on the CPU, contiguous; changed, as are the next three.
        exp_avg, exp_avg_sq: Adam's moments, alike.
        done: (V,) int64, the steps that each row has had.
        rows: (U,) int64, distinct, each in ``0 .. V - 1``.
        grad: (U, E) of param's dtype, or None.
        history: (S, 8) float64, the numbers of each step: lr / (1 - beta1^n), 1 / sqrt(1 - beta2^n), beta1, beta2,
            sqrt(beta2), what decoupled weight decay leaves of a weight, weight decay added to the gradient, eps (> 0).
        steps: at most S.

    Raises:
        RuntimeError: a shape, dtype, row or count of steps that does not fit; the message names the argument.
    """
    with torch.no_grad():
        _ops.adam_rows_(param, exp_avg, exp_avg_sq, done, rows, grad, history, steps)
    torch.autograd.graph.increment_version((param, exp_avg, exp_avg_sq, done))
