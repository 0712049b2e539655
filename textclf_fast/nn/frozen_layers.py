"""Inference on small batches with frozen weights: the short way for the calls in which nothing is special."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from textclf_fast import ops
from textclf_fast.nn.derived import Derived
from textclf_fast.nn.layout import (
    PackedLayout,
    packed_sequence_layout,
    padded_layout,
    permute_rows,
    to_packed,
    to_padded,
)
from textclf_fast.nn.options import DEFAULTS
from textclf_fast.nn.projection import (
    LARGE_BYTES,
    input_weights,
    kernels_project,
    layer_input_weights,
    layer_weights,
    own_weights,
    project_by,
    projection_weights,
    recurrent_weights,
)

if TYPE_CHECKING:
    from textclf_fast.nn.lstm import FusedLSTM


class InferenceLayer(NamedTuple):
    """What a layer comes to while the weights stay as they are.

    Attributes:
        w_ih, bias: of :func:`textclf_fast.nn.projection.layer_input_weights` where ``from_input``, else of
            :func:`textclf_fast.nn.projection.input_weights`.
        w_hh: (D, 4H, P).
        panels: the weights as the CPU kernels read them.
        w_hr: (D, P, H) where h is projected.
        from_input: whether :func:`textclf_fast.ops.lstm_layer` computes it.
    """

    w_ih: Tensor
    bias: Tensor | None
    w_hh: Tensor
    panels: Tensor
    w_hr: Tensor | None
    from_input: bool

    def run(self, rows: Tensor, batch_sizes: Tensor, h0: Tensor, c0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Output, h_n and c_n of the layer from its input (N, I)."""
        if self.from_input:
            return ops.lstm_layer(rows, None, batch_sizes, self.w_ih, self.w_hh, self.bias, h0, c0, self.panels)
        gates = project_by(rows, self.w_ih, self.bias)
        return ops.lstm(gates, None, batch_sizes, self.w_hh, h0, c0, self.panels, True, self.w_hr)


class FrozenLayers:
    """Remembers every layer's :class:`InferenceLayer`, and runs them where that is all there is to a call.

    One row of eight steps, I = H = 32, two cores of an AMD EPYC (Zen 3): the general way through Python took 240 us,
    nn.LSTM 220 us.
    """

    def __init__(self) -> None:
        self._layers: Derived[list[InferenceLayer]] = Derived()
        self._zeros: tuple[Tensor, Tensor] | None = None

    def clear(self) -> None:
        """Forgets the layers."""
        self._layers.clear()
        self._zeros = None

    def keep(self, lstm: FusedLSTM) -> None:
        """Remembers the layers as they are, if they may be; ``_flat_weights`` up to date and right for the kernels."""
        weights = own_weights(lstm)
        if not self._layers.is_empty or weights is None or lstm.options is not DEFAULTS:
            return
        self._layers.get(weights, lambda changed: _frozen_layers(lstm))

    def run(
        self, lstm: FusedLSTM, input: Tensor | PackedSequence, lengths: Tensor | Sequence[int] | None
    ) -> tuple[Any, tuple[Tensor, Tensor]] | None:
        """What lstm(input, lengths=lengths) returns; None where the call has to go the general way."""
        if self._layers.is_empty or torch.compiler.is_compiling():
            return None
        if torch.is_grad_enabled() or not ops.transforms_are_off():
            return None
        weights = own_weights(lstm)
        layers = None if weights is None else self._layers.peek(weights)
        if layers is None:
            self.clear()
            return None
        packed = isinstance(input, PackedSequence)
        data = input.data if isinstance(input, PackedSequence) else input
        *batch, width = data.shape
        if len(batch) != (1 if packed else 2) or (packed and lengths is not None) or (lstm.training and lstm.dropout):
            return None
        w_hh = layers[0].w_hh
        if width != lstm.input_size or data.dtype != w_hh.dtype or not data.is_cpu:
            return None
        gates_bytes = math.prod(batch) * w_hh.size(0) * w_hh.size(1) * layers[0].w_ih.element_size()
        small = layers[0].from_input or gates_bytes < LARGE_BYTES
        if gates_bytes == 0 or not small:
            return None
        if isinstance(input, PackedSequence):
            layout = packed_sequence_layout(input)
            output, states = self._walk(layers, data, layout)
            return PackedSequence(output, layout.batch_sizes, layout.sorted_indices, layout.unsorted_indices), states
        rows, steps = batch if lstm.batch_first else reversed(batch)
        layout = padded_layout(lengths, steps, rows, lstm.batch_first)
        output, states = self._walk(layers, to_packed(input, layout, lstm.batch_first), layout)
        return to_padded(output, layout, steps, rows, lstm.batch_first), states

    def _walk(
        self, layers: list[InferenceLayer], output: Tensor, layout: PackedLayout
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(N, I) -> the last layer's output (N, D * P), and h_n and c_n in the caller's order."""
        h0, c0 = self._zero_states(layers[0], layout.rows)
        finals = []
        for layer in layers:
            output, *states = layer.run(output, layout.batch_sizes, h0, c0)
            finals.append(states)
        h_n, c_n = finals[0] if len(finals) == 1 else map(torch.cat, zip(*finals, strict=True))
        return output, (permute_rows(h_n, layout.unsorted_indices), permute_rows(c_n, layout.unsorted_indices))

    def _zero_states(self, layer: InferenceLayer, rows: int) -> tuple[Tensor, Tensor]:
        """A layer's; those of the last number of rows asked for are kept, nobody writes to them."""
        kept = self._zeros
        if kept is None or kept[0].size(1) != rows:
            directions, gates, width = layer.w_hh.shape
            self._zeros = kept = (
                layer.w_hh.new_zeros(directions, rows, width),
                layer.w_hh.new_zeros(directions, rows, gates // 4),
            )
        return kept

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles do not take the layers along."""
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        FrozenLayers.__init__(self)


def _frozen_layers(lstm: FusedLSTM) -> list[InferenceLayer] | None:
    layers = []
    from_input = kernels_project(lstm, layer_weights(lstm, 0, 0)[0])
    for layer in range(lstm.num_layers):
        panels = lstm._panels.get(lstm, layer, from_input)
        if panels is None:
            return None
        w_hh, w_hr = recurrent_weights(lstm, layer), projection_weights(lstm, layer)
        weights = (layer_input_weights if from_input else input_weights)(lstm, layer)
        layers.append(InferenceLayer(*weights, w_hh, panels, w_hr, from_input))
    return layers
