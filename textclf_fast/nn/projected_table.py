"""The input half of every token's gates, kept between calls while the weights stay as they are."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from textclf_fast.nn.derived import Derived, weights_stay
from textclf_fast.nn.frozen import FrozenRun
from textclf_fast.nn.projection import project, weights_each
from textclf_fast.ops import gates_dtype
from textclf_fast.optim.deferred_rows import synchronize_rows

DEFAULT_MAX_BYTES = 256 * 2**20


class ProjectedTable:
    """``embedding.weight @ W_ih.T + biases`` of the first layer, (D, V, 4H), for inference with frozen weights.

    The table costs V rows of projection and D * V * 4H numbers of memory; without it a call projects the distinct
    tokens of its batch. It is made once the tokens projected without it, since the weights last changed, have cost as
    much as it would: whatever the calls, the work is at most twice the least possible.

    How a change of the weights is noticed: see :class:`textclf_fast.nn.derived.Derived`.

    Attributes:
        frozen: the short way for calls that need no more than the table and W_hh.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_table_bytes: expected 0 or more, got {max_bytes}")
        self._max_bytes = max_bytes
        self._table: Derived[Tensor] = Derived()
        self.frozen = FrozenRun()
        self._tokens_without = 0

    @property
    def max_bytes(self) -> int:
        """A table that would be larger is never made; 0 switches it off."""
        return self._max_bytes

    @max_bytes.setter
    def max_bytes(self, value: int) -> None:
        self.clear()
        self._max_bytes = value

    def clear(self) -> None:
        """Forgets the table."""
        self._table.clear()
        self.frozen.clear()
        self._tokens_without = 0

    def get(self, embedding: nn.Embedding, lstm: nn.LSTM, tokens: int) -> Tensor | None:
        """The table for these weights, or None where this call does better without.

        Args:
            embedding: its weight is (V, I).
            lstm: its first layer projects; ``_flat_weights`` up to date.
            tokens: how many positions this call has.
        """
        directions = 2 if lstm.bidirectional else 1
        row_bytes = directions * 4 * lstm.hidden_size * gates_dtype(embedding.weight.dtype).itemsize
        size = embedding.num_embeddings * row_bytes
        if size > self.max_bytes or embedding.max_norm is not None or not weights_stay(embedding, lstm):
            self.clear()
            return None
        if self._tokens_without + tokens >= embedding.num_embeddings:
            synchronize_rows(embedding)  # the table may be made now: of all rows
        first_layer = lstm._flat_weights[: directions * weights_each(lstm)]

        def make(changed: bool) -> Tensor | None:
            self._tokens_without = tokens + (0 if changed else self._tokens_without)
            if self._tokens_without < embedding.num_embeddings:
                return None
            return project(embedding.weight, lstm, 0)

        return self._table.get([embedding.weight, *(w for w in first_layer if w is not None)], make)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles take the setting along, not the table."""
        return {"max_bytes": self.max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        ProjectedTable.__init__(self, state["max_bytes"])
