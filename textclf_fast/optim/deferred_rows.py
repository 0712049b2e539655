"""Adam on an embedding's weight, each row of which is brought up to date when it is next looked up."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from textclf_fast import ops
from textclf_fast.optim.adam_rows import adam_rows_, stale_rows

# So many steps are remembered (64 bytes each); then all rows are brought up to date. No more than some 170 of a row's
# missed steps cost anything (csrc/cpu/adam_rows.inl): 4 % of the arithmetic that Adam on all rows does in 4096 steps.
_MAX_STEPS = 4096


class StepNumbers(NamedTuple):
    """Adam's options at one step."""

    lr: float
    beta1: float
    beta2: float
    eps: float
    l2: float  # weight decay that is added to the gradient
    decay: float  # decoupled weight decay


class DeferredRows:
    """The state of one weight (V, E): its moments, and how far each row has come.

    Attributes:
        param: the weight.
        exp_avg, exp_avg_sq: its moments, shared with the optimizer's state.
        step: the steps that have been taken.
        attached: whether all its embeddings' hooks are in place.
    """

    def __init__(self, param: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, step: int = 0) -> None:
        self.param = param
        self.exp_avg = exp_avg
        self.exp_avg_sq = exp_avg_sq
        self.step = step
        self.attached = True
        # Since all rows were last up to date: the steps there were, the numbers of each, the steps each row has had.
        self._steps = 0
        self._history = torch.empty(_MAX_STEPS, 8, dtype=torch.float64)
        self._numbers = self._history.numpy()
        self._done = torch.zeros(param.size(0), dtype=torch.int64)
        self._all_rows = torch.arange(param.size(0))

    def take_step(self, grad: Tensor, numbers: StepNumbers) -> None:
        """One step of Adam: the rows with a gradient now, the others when they are next needed.

        Args:
            grad: (V, E), sparse, coalesced or not, or dense.
            numbers: the options at this step.
        """
        if self._steps == _MAX_STEPS:
            self.synchronize()
        rows, values = _split(grad) if grad.is_sparse else (self._all_rows, grad)
        lr, beta1, beta2, eps, l2, decay = numbers
        self._numbers[self._steps] = (
            lr / (1 - beta1 ** (self.step + 1)),
            1 / math.sqrt(1 - beta2 ** (self.step + 1)),
            beta1,
            beta2,
            math.sqrt(beta2),
            1 - lr * decay,
            l2,
            eps,
        )
        self._update(rows, values, self._steps + 1)
        self.step += 1
        self._steps += 1
        if len(rows) == len(self._all_rows):
            self._forget()

    def catch_up(self, ids: Tensor) -> None:
        """Brings the rows with these ids, int64 or int32 of any shape, up to date.

        Raises:
            RuntimeError: an id out of range.
        """
        if self._steps:
            rows = stale_rows(ids.to("cpu", torch.int64), self._done, self._steps)
            if rows.numel():
                self._update(rows, None, self._steps)

    def synchronize(self) -> None:
        """Brings all rows up to date."""
        if self._steps:
            self.catch_up(self._all_rows)
            self._forget()

    def backlog(self) -> tuple[Tensor, Tensor]:
        """For `resume`: the numbers of the steps that some rows lack (S, 8), and the steps that each has had (V,)."""
        return self._history[: self._steps].clone(), self._done.clone()

    def resume(self, history: Tensor, done: Tensor) -> None:
        """Takes over the `backlog` of a weight that was in the same state.

        Raises:
            ValueError: it is of another weight, or of none.
        """
        steps = len(history)
        for name, tensor, shape, dtype in (
            ("history", history, (steps, 8), torch.float64),
            ("done", done, tuple(self._done.shape), torch.int64),
        ):
            if tensor.shape != shape or tensor.dtype != dtype:
                raise ValueError(f"{name}: expected shape {shape}, {dtype}, got {tuple(tensor.shape)}, {tensor.dtype}")
        if steps > min(_MAX_STEPS, self.step) or (len(done) and not 0 <= int(done.min()) <= int(done.max()) <= steps):
            raise ValueError(f"done: expected steps of the {steps} in history, of {self.step} in all")
        self._history[:steps] = history
        self._done.copy_(done)
        self._steps = steps

    def _update(self, rows: Tensor, grad: Tensor | None, steps: int) -> None:
        # Counts as a change of the weight, if there are no rows, too: what was made of it is stale after any step.
        adam_rows_(self.param, self.exp_avg, self.exp_avg_sq, self._done, rows, grad, self._history, steps)

    def _forget(self) -> None:
        self._done.zero_()
        self._steps = 0


def _split(grad: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct rows (U,) of a sparse gradient, and their values (U, E)."""
    rows, values = grad._indices()[0], grad._values()
    if grad.is_coalesced():
        return rows.contiguous(), values
    distinct, place = ops.distinct_tokens(rows, grad.size(0))
    if len(distinct) == len(rows):
        return rows.contiguous(), values
    return distinct, values.new_zeros(len(distinct), values.size(1)).index_add_(0, place, values)


class RowKeeper:
    """Ties an nn.Embedding to its weight's DeferredRows by hooks: no lookup or state_dict sees a row that is behind.

    A copy, or what comes out of a pickle, is tied to nothing.
    """

    def __init__(self) -> None:
        self._rows: DeferredRows | None = None
        self._handles: list[RemovableHandle] = []

    @classmethod
    def attach(cls, embedding: nn.Embedding, rows: DeferredRows) -> RowKeeper:
        """Registers the hooks, in the place of those of an earlier optimizer."""
        for other in keepers_of(embedding):
            other.detach()
        keeper = cls()
        keeper._rows = rows
        keeper._handles = [
            embedding.register_forward_pre_hook(keeper._before_forward, with_kwargs=True),
            embedding.register_state_dict_pre_hook(keeper._synchronize),
            # Steps that were missed may not be made up for on top of the weights that are loaded.
            embedding.register_load_state_dict_pre_hook(keeper._synchronize),
        ]
        return keeper

    def detach(self) -> None:
        """Brings all rows up to date and removes the hooks."""
        if self._rows is not None:
            self._rows.synchronize()
            self._rows.attached = False
        self._rows = None
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _before_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = args[0] if args else kwargs.get("input")
        if self._rows is not None and isinstance(ids, Tensor):
            self._rows.catch_up(ids)

    def _synchronize(self, *unused: Any) -> None:
        if self._rows is not None:
            self._rows.synchronize()

    def __reduce__(self) -> tuple[Any, ...]:
        return RowKeeper, ()


def keepers_of(embedding: nn.Embedding) -> Iterable[RowKeeper]:
    """The keepers that are attached to an embedding."""
    owners = [getattr(hook, "__self__", None) for hook in embedding._forward_pre_hooks.values()]
    return [owner for owner in owners if isinstance(owner, RowKeeper)]


def synchronize_rows(embedding: nn.Embedding) -> None:
    """Brings all rows of an embedding's weight up to date, for whoever reads it without a lookup."""
    if embedding._forward_pre_hooks:
        for keeper in keepers_of(embedding):
            keeper._synchronize()
