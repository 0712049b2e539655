"""The layers of an LSTM, one after the other, on packed data: what FusedLSTM and FusedEmbeddingLSTM share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from textclf_fast import ops

_KERNEL_DTYPES = (torch.float32, torch.float64)


def kernels_apply(lstm: nn.LSTM, *tensors: Tensor) -> bool:
    """Whether our kernels compute this: else PyTorch's own path does, with the same result.

    Left to PyTorch for now: other devices than the CPU, other dtypes than float32 and float64, autocast, proj_size, export to
    ONNX, and the transforms of torch.func and forward-mode differentiation, which ops with a Python autograd formula do not
    support (a tangent would be dropped without a word).
    """
    weights = lstm._flat_weights
    return (
        lstm.proj_size == 0
        and weights[0] is not None
        and weights[0].dtype in _KERNEL_DTYPES
        and all(t.is_cpu and t.dtype == weights[0].dtype for t in tensors)
        and all(w is not None and w.is_cpu and w.dtype == weights[0].dtype for w in weights)
        and not torch.is_autocast_enabled("cpu")
        and not torch.onnx.is_in_onnx_export()
        and not torch.jit.is_tracing()
        and not _inside_functorch()
    )


def _inside_functorch() -> bool:
    # Private names, pinned by a test: vmap, grad, jvp and the like; forward-mode levels.
    return torch._C._functorch.peek_interpreter_stack() is not None or torch.autograd.forward_ad._current_level >= 0


def layer_weights(lstm: nn.LSTM, layer: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """One layer's weights, its D directions joined.

    Returns:
        w_ih (D * 4H, I), w_hh (D, 4H, H), and the sum of both biases (D * 4H,) or None.
    """
    directions = 2 if lstm.bidirectional else 1
    each = 4 if lstm.bias else 2
    flat = lstm._flat_weights[layer * directions * each : (layer + 1) * directions * each]
    groups = [flat[d * each : (d + 1) * each] for d in range(directions)]
    biases = [group[2] + group[3] for group in groups] if lstm.bias else None
    if directions == 1:
        return groups[0][0], groups[0][1].unsqueeze(0), biases[0] if biases else None
    return (
        torch.cat([group[0] for group in groups]),
        torch.stack([group[1] for group in groups]),
        torch.cat(biases) if biases else None,
    )


def project(rows: Tensor, lstm: nn.LSTM, layer: int) -> Tensor:
    """The input half of a layer's gates: (R, I) -> (R, D, 4H), both biases included."""
    w_ih, _, bias = layer_weights(lstm, layer)
    return functional.linear(rows, w_ih, bias).view(rows.size(0), -1, 4 * lstm.hidden_size)


def run_layers(
    lstm: nn.LSTM, gates: Tensor, index: Tensor | None, batch_sizes: Tensor, h0: Tensor, c0: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """All layers, from the projected input of the first.

    Args:
        lstm: the weights and options; its ``_flat_weights`` up to date.
        gates: (R, D, 4H), see :func:`project`.
        index: (N,) the row of ``gates`` at each position, or None.
        batch_sizes: (T,) int64 on the CPU.
        h0: (L * D, B, H) in packed order; likewise c0.

    Returns:
        output (N, D * H), h_n and c_n (L * D, B, H) in packed order.
    """
    directions = 2 if lstm.bidirectional else 1
    states_h, states_c = [], []
    output = gates
    for layer in range(lstm.num_layers):
        if layer > 0:
            if lstm.dropout > 0:
                output = functional.dropout(output, lstm.dropout, lstm.training)
            gates, index = project(output, lstm, layer), None
        _, w_hh, _ = layer_weights(lstm, layer)
        span = slice(layer * directions, (layer + 1) * directions)
        output, h_n, c_n = ops.lstm(gates, index, batch_sizes, w_hh, h0[span], c0[span])
        states_h.append(h_n)
        states_c.append(c_n)
    if lstm.num_layers == 1:
        return output, states_h[0], states_c[0]
    return output, torch.cat(states_h), torch.cat(states_c)
