"""Tensors computed from weights and kept for as long as the weights stay as they are."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

# PyTorch's fused optimizers change weights without counting it in their version counters: their steps are counted here.
_fused_steps = itertools.count(1)
_last_fused_step = 0


def _count_fused_steps(optimizer: torch.optim.Optimizer, *unused: Any) -> None:
    global _last_fused_step
    if any(group.get("fused") for group in optimizer.param_groups):
        _last_fused_step = next(_fused_steps)


register_optimizer_step_post_hook(_count_fused_steps)


class DerivedTensor:
    """One tensor computed from some weights, for inference.

    A change of the weights is noticed through their version counters and addresses, and through the steps of fused
    optimizers, which do not count theirs. Owners clear it in a call that may lead to a backward, too. What is left
    unnoticed is an in-place change through ``tensor.data`` outside of training: after such a one, call :meth:`clear`.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forgets the tensor."""
        # What it was made of, and the tensor: one attribute, so that threads never see half of a change.
        self._kept: tuple[tuple[Any, ...], Tensor | None] = ((), None)

    def get(self, weights: Sequence[Tensor], compute: Callable[[bool], Tensor | None]) -> Tensor | None:
        """The kept tensor, or what ``compute(changed)`` makes now.

        ``changed`` tells whether this is the first call with these weights; ``compute`` may return None, to be asked
        again.
        """
        if any(w.is_inference() for w in weights):
            return None  # made in inference mode: no version counter, changes could not be noticed
        # Holding the storages keeps their addresses from being used again. A reference to the parameters would too,
        # but those must stay swappable.
        made_of = (
            _last_fused_step,
            *((w.data_ptr(), w._version, w.shape, w.stride(), w.untyped_storage()) for w in weights),
        )
        kept_of, value = self._kept
        changed = not _same(made_of, kept_of)
        if changed or value is None:
            with torch.no_grad():
                value = compute(changed)
            self._kept = (made_of, value)
        return value

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles do not take the tensor along."""
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.clear()


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return (
        len(one) == len(other)  # nothing kept: ()
        and one[0] == other[0]
        and all(a[:-1] == b[:-1] for a, b in zip(one[1:], other[1:], strict=True))
    )
