"""The weights of a layer, and the input half of its gates: one product over all of its input."""

from __future__ import annotations

from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from textclf_fast import ops
from textclf_fast._libraries import BFLOAT16_ISAS, cpu_isa


def layer_weights(lstm: nn.LSTM, layer: int, kind: int) -> list[Tensor]:
    """One kind of weight of a layer, for each direction: 0 w_ih, 1 w_hh, 2 b_ih, 3 b_hh; the last is w_hr, if any."""
    each = weights_each(lstm)
    span = each * (2 if lstm.bidirectional else 1)
    return lstm._flat_weights[layer * span + kind : (layer + 1) * span : each]  # type: ignore[return-value]


def weights_each(lstm: nn.LSTM) -> int:
    """How many weights a layer has in each direction."""
    return (4 if lstm.bias else 2) + (lstm.proj_size > 0)


def own_weights(lstm: nn.LSTM) -> list[Tensor] | None:
    """All weights straight from the module's dictionary; None where some are computed (parametrized, normed)."""
    weights = list(map(lstm._parameters.get, lstm._flat_weights_names))
    return None if NoneType in map(type, weights) else weights  # type: ignore[return-value]


def multiplies_bfloat16(lstm: nn.LSTM) -> bool:
    """Whether kernels would multiply this one's weights as bfloat16: on the CPU those pair numbers, of even widths."""
    weights = lstm._flat_weights
    if any(w is not None and w.is_cuda for w in weights):
        return True
    even = all(w is None or w.dim() == 1 or w.size(1) % 2 == 0 for w in weights)
    return even and cpu_isa() in BFLOAT16_ISAS


def joined(tensors: list[Tensor]) -> Tensor:
    """(D, ...): one direction's tensor is not copied."""
    return tensors[0].unsqueeze(0) if len(tensors) == 1 else torch.stack(tensors)


def recurrent_weights(lstm: nn.LSTM, layer: int) -> Tensor:
    """W_hh of a layer, (D, 4H, P)."""
    return joined(layer_weights(lstm, layer, 1))


def projection_weights(lstm: nn.LSTM, layer: int) -> Tensor | None:
    """W_hr of a layer, (D, P, H); None where h is not projected."""
    return joined(layer_weights(lstm, layer, weights_each(lstm) - 1)) if lstm.proj_size else None


def project(rows: Tensor, lstm: nn.LSTM, layer: int) -> Tensor:
    """The input half of a layer's gates: (R, I) -> (D, R, 4H), both biases included; in float32 for 16 bits."""
    w_ih = layer_weights(lstm, layer, 0)
    dtype = ops.gates_dtype(w_ih[0].dtype)
    rows = rows.to(w_ih[0].dtype)
    row_bytes = len(w_ih) * 4 * lstm.hidden_size * dtype.itemsize
    in_graph = torch.compiler.is_compiling() or ops.transformed()
    if rows.is_cpu and not in_graph and rows.size(0) * row_bytes >= LARGE_BYTES:
        biases = _summed_biases(lstm, layer, dtype)
        return _ProjectLarge.apply(rows, joined(w_ih), joined(biases) if biases else None)
    if rows.is_cuda and dtype != w_ih[0].dtype and not (in_graph or torch.is_grad_enabled()):
        return _project_narrow(rows, w_ih, _summed_biases(lstm, layer, dtype))
    return project_by(rows, *input_weights(lstm, layer))


def _project_narrow(rows: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
    """On a GPU, in inference: 16-bit factors as they are, their products summed and kept in float32."""
    gates = rows.new_empty(len(weights), rows.size(0), weights[0].size(0), dtype=torch.float32)
    for d, w in enumerate(weights):
        torch.mm(rows, w.T, out_dtype=torch.float32, out=gates.select(0, d))
    return gates.add_(torch.stack(biases).unsqueeze(1)) if biases else gates


def input_weights(lstm: nn.LSTM, layer: int) -> tuple[Tensor, Tensor | None]:
    """What :func:`project_by` takes, in the dtype of the gates.

    Returns:
        W_ih (4H, I), or (D, I, 4H) of two directions, and the sum of both biases, (4H,) or (D, 1, 4H), or None.
    """
    w_ih = layer_weights(lstm, layer, 0)
    dtype = ops.gates_dtype(w_ih[0].dtype)
    if dtype != w_ih[0].dtype:
        w_ih = [w.to(dtype) for w in w_ih]
    biases = _summed_biases(lstm, layer, dtype)
    if len(w_ih) == 1:
        return w_ih[0], biases[0] if biases else None
    return torch.stack(w_ih).transpose(1, 2), torch.stack(biases).unsqueeze(1) if biases else None


def kernels_project(lstm: nn.LSTM, rows: Tensor) -> bool:
    """Whether :func:`textclf_fast.ops.lstm_layer` takes a layer from its input, among those that our kernels compute.

    It spares the gates' way through memory, on which PyTorch's products wait, and autograd a dozen nodes. Two cores
    with AVX-512, T = 128, B = 32, I = 100, H = 128: 1.16 times as fast as a projection before in inference, 1.11 times
    in training; T = 64, B = 1, I = H = 32: 1.4 and 4 times. Of the rows of distinct tokens, read by index, it makes a
    table as PyTorch's product does, and as fast: what is spared are a dozen nodes and as many calls, 5 % of a training
    step at B = 1, T = 64.

    bfloat16 where that is multiplied as vectors, in pairs of numbers: PyTorch's product with float32 sums would be one
    of float32. T = 256, B = 32, I = 100, H = 128: 1.12 times as fast in training. (AMX's tiles were not tried.)
    """
    return (
        rows.is_cpu
        and (rows.dtype in (torch.float32, torch.float64) or _multiplies_narrow(lstm, rows))
        and rows.dtype == lstm._flat_weights[0].dtype  # type: ignore[union-attr]  # not that which autocast lowers it to
        and lstm.proj_size == 0
        and not (torch.compiler.is_compiling() or ops.transformed())
    )


def _multiplies_narrow(lstm: nn.LSTM, rows: Tensor) -> bool:
    even = rows.size(1) % 2 == 0 and lstm.hidden_size % 2 == 0
    return rows.dtype == torch.bfloat16 and even and cpu_isa() == "avx512_bf16"


def layer_input_weights(lstm: nn.LSTM, layer: int) -> tuple[Tensor, Tensor | None]:
    """What :func:`textclf_fast.ops.lstm_layer` takes: W_ih (D, 4H, I), and the sum of both biases (D, 4H) or None."""
    w_ih = layer_weights(lstm, layer, 0)
    biases = _summed_biases(lstm, layer, ops.gates_dtype(w_ih[0].dtype))
    return joined(w_ih), joined(biases) if biases else None


def project_by(rows: Tensor, w_ih: Tensor, bias: Tensor | None) -> Tensor:
    """(R, I) -> (D, R, 4H), by :func:`input_weights`."""
    rows = rows.to(w_ih.dtype)
    if w_ih.dim() == 2:
        return functional.linear(rows, w_ih, bias).unsqueeze(0)
    rows = rows.expand(len(w_ih), *rows.shape)
    return torch.bmm(rows, w_ih) if bias is None else torch.baddbmm(bias, rows, w_ih)


def _summed_biases(lstm: nn.LSTM, layer: int, dtype: torch.dtype) -> list[Tensor]:
    if not lstm.bias:
        return []
    pairs = zip(layer_weights(lstm, layer, 2), layer_weights(lstm, layer, 3), strict=True)
    return [b_ih.to(dtype) + b_hh.to(dtype) for b_ih, b_hh in pairs]


LARGE_BYTES = 2**20  # from which on memory is kept, see ops.new_passing


class _ProjectLarge(torch.autograd.Function):
    """rows (R, I), weights (D, 4H, I), bias (D, 4H) or None -> gates (D, R, 4H), in memory that is kept.

    In fresh memory a projection of 33 MB, B = 32, T = 128, H = 512, meets 8,000 page faults. bfloat16 is multiplied in
    float32, so that the gates are not rounded; its gradients, which are rounded anyway, in bfloat16 where the machine
    multiplies that.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weights)
        ctx.has_bias = bias is not None
        dtype = ops.gates_dtype(rows.dtype)
        rows, weights = rows.to(dtype), weights.to(dtype)
        directions, columns, _ = weights.shape
        gates = ops.new_passing(rows, [directions, rows.size(0), columns])
        for d in range(directions):
            if bias is None:
                torch.mm(rows, weights[d].T, out=gates[d])
            else:
                torch.addmm(bias[d], rows, weights[d].T, out=gates[d])
        return gates

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weights = ctx.saved_tensors
        directions = range(weights.size(0))
        grad_rows = grad_weights = grad_bias = None
        if ctx.has_bias and ctx.needs_input_grad[2]:
            grad_bias = grad.sum(1)
        if cpu_isa() in BFLOAT16_ISAS:
            grad = grad.to(rows.dtype)
        else:  # without such products PyTorch's take 100 times as long as those in float32
            rows, weights = rows.to(grad.dtype), weights.to(grad.dtype)
        if ctx.needs_input_grad[0]:
            grad_rows = grad[0] @ weights[0]
            for d in directions[1:]:
                grad_rows = torch.addmm(grad_rows, grad[d], weights[d])
        if ctx.needs_input_grad[1]:
            grad_weights = joined([grad[d].T @ rows for d in directions])
        return grad_rows, grad_weights, grad_bias  # autograd casts them to the dtypes of what they are of
