"""What is computed from weights and kept for as long as the weights stay as they are."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

# PyTorch's fused optimizers change weights without counting it in their version counters: their steps are counted here.
_fused_steps = itertools.count(1)
_last_fused_step = 0


def _count_fused_steps(optimizer: torch.optim.Optimizer, *unused: Any) -> None:
    global _last_fused_step
    if any(group.get("fused") for group in optimizer.param_groups):
        _last_fused_step = next(_fused_steps)


register_optimizer_step_post_hook(_count_fused_steps)


Value = TypeVar("Value")


class Derived(Generic[Value]):
    """Something computed from some weights, for inference.

    A change of the weights is noticed through their version counters and addresses, and through the steps of fused
    optimizers, which do not count theirs. Owners clear it in a call that may lead to a backward, too. What is left
    unnoticed is an in-place change through ``tensor.data`` outside of training: after such a one, call :meth:`clear`.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forgets it."""
        # What it was made of, and the value: one attribute, so that threads never see half of a change.
        self._kept: tuple[_MadeOf | None, Value | None] = (None, None)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to be found by :meth:`peek`."""
        return self._kept[1] is None

    def get(self, weights: Sequence[Tensor], compute: Callable[[bool], Value | None]) -> Value | None:
        """What is kept, or what ``compute(changed)`` makes now.

        ``changed`` tells whether this is the first call with these weights; ``compute`` may return None, to be asked
        again.
        """
        if any(w.is_inference() for w in weights):
            return None  # made in inference mode: no version counter, changes could not be noticed
        made_of, value = self._kept
        changed = made_of is None or not made_of.is_still(weights)
        if changed or value is None:
            with torch.no_grad():
                value = compute(changed)
            self._kept = (_MadeOf(weights) if changed else made_of, value)
        return value

    def peek(self, weights: Sequence[Tensor]) -> Value | None:
        """What is kept, if it was made of these weights as they are now."""
        made_of, value = self._kept
        return value if made_of is not None and made_of.is_still(weights) else None

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles do not take it along."""
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.clear()


def weights_stay(*modules: nn.Module) -> bool:
    """Whether what is made of these modules' own weights may be kept: not where FSDP manages them.

    It gathers the weights anew for each call, often at the same address, and holds their version counters still.
    """
    return not any("_is_fsdp_managed_module" in module.__dict__ for module in modules)


class _MadeOf:
    """The weights that something was made of, as they were."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self._fused_step = _last_fused_step
        self._weights = [_identity(w) for w in weights]
        # Holding the storages keeps their addresses from being used again. A reference to the parameters would too,
        # but those must stay swappable.
        self._storages = [w.untyped_storage() for w in weights]

    def is_still(self, weights: Sequence[Tensor]) -> bool:
        if self._fused_step != _last_fused_step:
            return False
        try:
            return self._weights == [_identity(w) for w in weights]
        except RuntimeError:  # some were made in inference mode: they have no version
            return False


def _identity(w: Tensor) -> tuple[int, int, torch.Size, tuple[int, ...]]:
    return w.data_ptr(), w._version, w.shape, w.stride()
