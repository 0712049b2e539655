"""Inference with frozen weights in one op: the short way for the calls in which nothing is special."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from textclf_fast import int8, ops
from textclf_fast.nn.derived import Derived
from textclf_fast.nn.projection import own_weights, projection_weights, recurrent_weights
from textclf_fast.nn.token_ids import is_padded_batch

if TYPE_CHECKING:
    from textclf_fast.nn.lstm import FusedLSTM


class FrozenLayer(NamedTuple):
    """What one layer of an embedding and an LSTM comes to while the weights stay as they are.

    Attributes:
        table: (D, V, 4H), the projected table.
        w_hh: (D, 4H, P).
        panels: W_hh and W_hr as the CPU kernels read them.
        w_hr: (D, P, H) where h is projected.
        w_int8: W_hh in int8, where that is to be used instead.
    """

    table: Tensor
    w_hh: Tensor
    panels: Tensor
    w_hr: Tensor | None = None
    w_int8: int8.Int8Recurrent | None = None


class FrozenRun:
    """Remembers a :class:`FrozenLayer`, and runs it where that is all there is to a call.

    At batch size 1 and 64 tokens the kernel takes some 90 us on two cores, and the general way through Python as long
    again.
    """

    def __init__(self) -> None:
        self._layer: Derived[FrozenLayer] = Derived()

    def clear(self) -> None:
        """Forgets the layer."""
        self._layer.clear()

    def keep(
        self, embedding: nn.Embedding, lstm: FusedLSTM, table: Tensor, in_int8: bool = False
    ) -> FrozenLayer | None:
        """Remembers the only layer of these modules, from the projected table of their weights as they are now.

        What is remembered of these very weights stays, ``in_int8`` or not: :meth:`clear` first to change that.

        Returns:
            The layer; None where it cannot be remembered: some weights are computed, or made in inference mode.
        """
        weights = parameters(embedding, lstm)
        panels = lstm._panels.get(lstm, 0)
        if weights is None or panels is None:
            return None

        def make(changed: bool) -> FrozenLayer:
            w_hh = recurrent_weights(lstm, 0)
            w_int8 = int8.quantize_recurrent(w_hh) if in_int8 else None
            return FrozenLayer(table, w_hh, panels, projection_weights(lstm, 0), w_int8)

        return self._layer.get(weights, make)

    def run(
        self,
        embedding: nn.Embedding,
        lstm: FusedLSTM,
        ids: Tensor,
        lengths: Tensor | Sequence[int] | None,
        need_output: bool,
        weights: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """output, h_n and c_n of zero initial states; None where the call has to go the general way.

        ``weights``: what :func:`parameters` returns, where the caller has that already.
        """
        if self._layer.is_empty or torch.is_grad_enabled() or not ops.transforms_are_off():
            return None
        if not is_padded_batch(ids, lengths, lstm.batch_first):
            return None
        assert lengths is None or isinstance(lengths, Tensor)
        weights = parameters(embedding, lstm) if weights is None else weights
        layer = None if weights is None else self._layer.peek(weights)
        if layer is None:
            return None
        try:
            if layer.w_int8 is not None:
                return int8.embedding_lstm_int8_inference(
                    layer.table, ids, lengths, lstm.batch_first, layer.w_int8, need_output
                )
            return ops.embedding_lstm_inference(
                layer.table, ids, lengths, lstm.batch_first, layer.w_hh, layer.panels, need_output, layer.w_hr
            )
        except RuntimeError:  # an id or a length out of range: the general way says which
            return None

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles do not take the layer along."""
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        FrozenRun.__init__(self)


def parameters(embedding: nn.Embedding, lstm: nn.LSTM) -> list[Tensor] | None:
    """The weights straight from the modules' dictionaries; None where some are computed (parametrized, normed)."""
    table, rest = embedding._parameters.get("weight"), own_weights(lstm)
    return None if table is None or rest is None else [table, *rest]
