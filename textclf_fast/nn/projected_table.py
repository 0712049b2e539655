"""The input half of every token's gates, kept between calls while the weights stay as they are."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from textclf_fast.nn.stack import project

DEFAULT_MAX_BYTES = 256 * 2**20

# PyTorch's fused optimizers change weights without counting it in their version counters: their steps are counted here.
_fused_steps = itertools.count(1)
_last_fused_step = 0


def _count_fused_steps(optimizer: torch.optim.Optimizer, *unused: Any) -> None:
    global _last_fused_step
    if any(group.get("fused") for group in optimizer.param_groups):
        _last_fused_step = next(_fused_steps)


register_optimizer_step_post_hook(_count_fused_steps)


class ProjectedTable:
    """``embedding.weight @ W_ih.T + biases`` of the first layer, (D, V, 4H), for inference with frozen weights.

    The table costs V rows of projection and D * V * 4H numbers of memory; without it a call projects the distinct
    tokens of its batch. It is made once the tokens projected without it, since the weights last changed, have cost as
    much as it would: whatever the calls, the work is at most twice the least possible.

    A change of the weights is noticed through their version counters and addresses, and through the steps of fused
    optimizers, which do not count theirs. A call that may lead to a backward clears the table too. What is left
    unnoticed is an in-place change through ``tensor.data`` outside of training: after such a one, call :meth:`clear`.

    Attributes:
        max_bytes: a table that would be larger is never made; 0 switches it off.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_table_bytes: expected 0 or more, got {max_bytes}")
        self.max_bytes = max_bytes
        self.clear()

    def clear(self) -> None:
        """Forgets the table."""
        self._table: Tensor | None = None
        self._made_of: tuple[Any, ...] = ()
        self._tokens_without = 0
        self._fused_step = _last_fused_step

    def get(self, embedding: nn.Embedding, lstm: nn.LSTM, tokens: int) -> Tensor | None:
        """The table for these weights, or None where this call does better without.

        Args:
            embedding: its weight is (V, I).
            lstm: its first layer projects; ``_flat_weights`` up to date.
            tokens: how many positions this call has.
        """
        directions = 2 if lstm.bidirectional else 1
        first_layer = lstm._flat_weights[: directions * (4 if lstm.bias else 2)]
        weights = [embedding.weight, *(w for w in first_layer if w is not None)]
        size = embedding.num_embeddings * directions * 4 * lstm.hidden_size * embedding.weight.element_size()
        # A tensor made in inference mode has no version counter: its changes could not be noticed.
        if size > self.max_bytes or embedding.max_norm is not None or any(w.is_inference() for w in weights):
            self.clear()
            return None
        made_of = tuple((w.untyped_storage(), w.data_ptr(), w._version, w.shape, w.stride()) for w in weights)
        if self._fused_step != _last_fused_step or not self._same(made_of):
            self.clear()
            # Holding the storages keeps their addresses from being used again, as no reference to the parameters would
            # allow: those must stay swappable.
            self._made_of = made_of
        if self._table is None:
            self._tokens_without += tokens
            if self._tokens_without >= embedding.num_embeddings:
                with torch.no_grad():
                    self._table = project(embedding.weight, lstm, 0)
        return self._table

    def _same(self, made_of: tuple[Any, ...]) -> bool:
        return len(made_of) == len(self._made_of) and all(
            new[1:] == old[1:] for new, old in zip(made_of, self._made_of, strict=True)
        )

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles take the setting along, not the table."""
        return {"max_bytes": self.max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.max_bytes = state["max_bytes"]
        self.clear()
