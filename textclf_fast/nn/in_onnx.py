"""FusedLSTM in torch.onnx.export(dynamo=True): a standard LSTM node a layer, told the lengths, of any B and T.

What that exporter makes of nn.LSTM is bound to the example's T and knows no lengths. PyTorch lets a forward say which
ONNX node it stands for, so this says it. Source: the ONNX operators' specification, LSTM,
https://onnx.ai/onnx/operators/onnx__LSTM.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from textclf_fast import ops

if TYPE_CHECKING:
    from textclf_fast.nn.lstm import FusedLSTM, States


def writes_onnx(lstm: FusedLSTM) -> bool:
    """Whether torch.onnx.export(dynamo=True) is at work.

    Raises:
        ValueError: it is, and there is a projection, which ONNX's LSTM has not. PyTorch's own way leaves it out.
    """
    if not ops.exports_to_onnx():
        return False
    if lstm.proj_size:
        raise ValueError(f"ONNX's LSTM has no projection, expected proj_size = 0, got {lstm.proj_size}")
    return True


def refuse_in_onnx(lstm: FusedLSTM) -> None:
    """For layers that are not those of nn.LSTM.

    Raises:
        ValueError: torch.onnx.export(dynamo=True) is at work.
    """
    if ops.exports_to_onnx():
        raise ValueError(f"ONNX's LSTM has neither cell states of every step nor these options: {lstm.options}")


def lstm_in_onnx(
    lstm: FusedLSTM, input: Tensor, hx: States | None, lengths: Tensor | Sequence[int] | None
) -> tuple[Tensor, States]:
    """FusedLSTM.forward of a batch, (T, B, I) or batch-first, as nodes, in float32 for bfloat16."""
    if hx is None:
        lstm.check_input(input, None)
    else:
        lstm.check_forward_args(input, hx, None)
    dtype = ops.gates_dtype(input.dtype)
    x = (input.transpose(0, 1) if lstm.batch_first else input).to(dtype)
    sequence_lens = None if lengths is None else torch.as_tensor(lengths).to(torch.int32)
    directions, each = 2 if lstm.bidirectional else 1, 4 if lstm.bias else 2
    states_h, states_c = [], []
    for layer in range(lstm.num_layers):
        if layer > 0:
            x = functional.dropout(x, lstm.dropout, lstm.training)
        first = layer * directions
        flat: Any = lstm._flat_weights[first * each : (first + directions) * each]
        w_ih, w_hh, *biases = (torch.stack([_reorder(w.to(dtype)) for w in flat[kind::each]]) for kind in range(each))
        given = (None, None) if hx is None else [s[first : first + directions].to(dtype) for s in hx]
        state = (directions, x.size(1), lstm.hidden_size)
        y, h_n, c_n = torch.onnx.ops.symbolic_multi_out(
            "LSTM",
            [x, w_ih, w_hh, torch.cat(biases, 1) if biases else None, sequence_lens, *given],
            {"hidden_size": lstm.hidden_size, "direction": "bidirectional" if lstm.bidirectional else "forward"},
            dtypes=[dtype] * 3,
            shapes=[(x.size(0), *state), state, state],
        )
        x = y.transpose(1, 2).flatten(2)
        states_h.append(h_n)
        states_c.append(c_n)
    output = x.transpose(0, 1) if lstm.batch_first else x
    return output.to(input.dtype), (torch.cat(states_h).to(input.dtype), torch.cat(states_c).to(input.dtype))


def _reorder(weight: Tensor) -> Tensor:
    """(4H, ...) in PyTorch's order of gates, i, f, g, o -> in ONNX's, i, o, f, c (its c is PyTorch's g)."""
    i, f, g, o = weight.chunk(4)
    return torch.cat((i, o, f, g))
