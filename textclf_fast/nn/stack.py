"""The layers of an LSTM, one after the other, on packed data: what FusedLSTM and FusedEmbeddingLSTM share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from textclf_fast import ops
from textclf_fast._libraries import cpu_isa
from textclf_fast.nn.derived import Derived, weights_stay

Module = TypeVar("Module", bound=nn.Module)
LSTM = TypeVar("LSTM", bound=nn.LSTM)

_KERNEL_DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def kernels_apply(lstm: nn.LSTM, *tensors: Tensor) -> bool:
    """Whether our kernels compute this: else PyTorch's own path does, with the same result.

    Left to PyTorch for now: other devices than the CPU, other dtypes than float32, float64 and bfloat16, export to
    ONNX. Autocast: see :func:`autocast_lowers`; transforms of torch.func and forward mode: see
    :func:`reference_applies`.
    """
    weights = lstm._flat_weights
    return (
        weights[0] is not None
        and weights[0].dtype in _KERNEL_DTYPES
        and all(t.is_cpu and t.dtype == weights[0].dtype for t in tensors)
        and all(w is not None and w.is_cpu and w.dtype == weights[0].dtype for w in weights)
        and transforms_are_off()
    )


def reference_applies(lstm: nn.LSTM, dense: bool) -> bool:
    """Whether run_layers computes this under a transform of torch.func or in forward mode: in plain PyTorch.

    nn.LSTM has no rule for packed batches there, nor for forward mode in float32, and hardly one for vmap. What it does
    have, reverse mode on dense batches, is left to it: it is faster.
    """
    return (
        ops.transformed()
        and not torch.compiler.is_compiling()  # a graph would hold every step
        and all(w is not None for w in lstm._flat_weights)
        and not (torch._C._is_any_autocast_enabled() or torch.onnx.is_in_onnx_export() or torch.jit.is_tracing())
        and not (dense and _only_reverse_mode())
    )


def _only_reverse_mode() -> bool:
    levels = torch._C._functorch.get_interpreter_stack() or []
    grad = torch._C._functorch.TransformType.Grad
    return torch.autograd.forward_ad._current_level < 0 and all(level.key() == grad for level in levels)


_LOWERED_DTYPES = (torch.float32, torch.bfloat16)


def autocast_lowers(lstm: nn.LSTM, *tensors: Tensor) -> bool:
    """Whether CPU autocast has nn.LSTM compute this module and input in bfloat16, and our kernels can."""
    return (
        torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and lstm._flat_weights[0] is not None
        and lstm._flat_weights[0].dtype in _LOWERED_DTYPES
        and all(t.is_cpu and t.dtype in _LOWERED_DTYPES for t in tensors)
        and _without_autocast(kernels_apply, lstm)
    )


def lowered(lstm: LSTM) -> LSTM:
    """A stand-in for the module, with its weights, up to date, cast to bfloat16.

    The module itself stays as it is: other threads may be using it.
    """
    return stand_in(
        lstm,
        _flat_weights=[None if w is None else w.to(torch.bfloat16) for w in lstm._flat_weights],
        _kept_panels=RecurrentPanels(),
    )


def stand_in(module: Module, **attributes: Any) -> Module:
    """A module that shares all but these attributes with ``module``; for one call."""
    other = module.__new__(type(module))
    other.__dict__ = {**module.__dict__, **attributes}
    return other


def lower_states(hx: Any) -> Any:
    """Initial states in bfloat16; what are none is left for the checks to refuse."""
    return tuple(state.to(torch.bfloat16) for state in hx) if isinstance(hx, tuple | list) else hx


def _without_autocast(function: Callable[..., Any], *args: Any) -> Any:
    with torch.autocast("cpu", enabled=False):
        return function(*args)


def transforms_are_off() -> bool:
    """Whether ops run as they are: no autocast, no export to ONNX, no tracing, no transform of torch.func."""
    return not (
        torch.is_autocast_enabled("cpu")
        or torch.onnx.is_in_onnx_export()
        or torch.jit.is_tracing()
        or ops.transformed()
    )


def _weights(lstm: nn.LSTM, layer: int, kind: int) -> list[Tensor]:
    """One kind of weight of a layer, for each direction: 0 w_ih, 1 w_hh, 2 b_ih, 3 b_hh; the last is w_hr, if any."""
    each = weights_each(lstm)
    span = each * (2 if lstm.bidirectional else 1)
    return lstm._flat_weights[layer * span + kind : (layer + 1) * span : each]  # type: ignore[return-value]


def weights_each(lstm: nn.LSTM) -> int:
    """How many weights a layer has in each direction."""
    return (4 if lstm.bias else 2) + (lstm.proj_size > 0)


def _joined(tensors: list[Tensor]) -> Tensor:
    """(D, ...): one direction's tensor is not copied."""
    return tensors[0].unsqueeze(0) if len(tensors) == 1 else torch.stack(tensors)


def recurrent_weights(lstm: nn.LSTM, layer: int) -> Tensor:
    """W_hh of a layer, (D, 4H, P)."""
    return _joined(_weights(lstm, layer, 1))


def projection_weights(lstm: nn.LSTM, layer: int) -> Tensor | None:
    """W_hr of a layer, (D, P, H); None where h is not projected."""
    return _joined(_weights(lstm, layer, weights_each(lstm) - 1)) if lstm.proj_size else None


def project(rows: Tensor, lstm: nn.LSTM, layer: int) -> Tensor:
    """The input half of a layer's gates: (R, I) -> (D, R, 4H), both biases included; in float32 for bfloat16."""
    w_ih, biases = _weights(lstm, layer, 0), []
    dtype = ops.gates_dtype(w_ih[0].dtype)
    rows = rows.to(w_ih[0].dtype)
    if lstm.bias:
        pairs = zip(_weights(lstm, layer, 2), _weights(lstm, layer, 3), strict=True)
        biases = [b_ih.to(dtype) + b_hh.to(dtype) for b_ih, b_hh in pairs]
    row_bytes = len(w_ih) * 4 * lstm.hidden_size * dtype.itemsize
    in_graph = torch.compiler.is_compiling() or ops.transformed()
    if rows.is_cpu and not in_graph and rows.size(0) * row_bytes >= _LARGE_BYTES:
        return _ProjectLarge.apply(rows, _joined(w_ih), _joined(biases) if biases else None)
    if dtype != rows.dtype:
        rows, w_ih = rows.to(dtype), [w.to(dtype) for w in w_ih]
    if len(w_ih) == 1:
        return functional.linear(rows, w_ih[0], biases[0] if biases else None).unsqueeze(0)
    inputs, weights = rows.expand(len(w_ih), *rows.shape), torch.stack(w_ih).transpose(1, 2)
    return torch.baddbmm(torch.stack(biases).unsqueeze(1), inputs, weights) if biases else torch.bmm(inputs, weights)


_LARGE_BYTES = 2**20  # from which on memory is kept, see ops.new_passing


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
        if cpu_isa() == "avx512_bf16":
            grad = grad.to(rows.dtype)
        else:  # without such products PyTorch's take 100 times as long as those in float32
            rows, weights = rows.to(grad.dtype), weights.to(grad.dtype)
        if ctx.needs_input_grad[0]:
            grad_rows = grad[0] @ weights[0]
            for d in directions[1:]:
                grad_rows = torch.addmm(grad_rows, grad[d], weights[d])
        if ctx.needs_input_grad[1]:
            grad_weights = _joined([grad[d].T @ rows for d in directions])
        return grad_rows, grad_weights, grad_bias  # autograd casts them to the dtypes of what they are of


class RecurrentPanels:
    """Each layer's W_hh and W_hr as the kernels read them, kept for inference while the weights stay as they are."""

    def __init__(self) -> None:
        self._layers: dict[int, Derived[Tensor]] = {}

    def clear(self) -> None:
        """Forgets all of them."""
        self._layers.clear()

    def get(self, lstm: nn.LSTM, layer: int) -> Tensor | None:
        """One layer's panels, or None where they cannot be kept; ``_flat_weights`` up to date."""
        if not weights_stay(lstm):
            return None
        weights = _weights(lstm, layer, 1)
        if lstm.proj_size:
            weights = weights + _weights(lstm, layer, weights_each(lstm) - 1)
        return self._layers.setdefault(layer, Derived()).get(
            weights, lambda _: ops.pack_recurrent(recurrent_weights(lstm, layer), projection_weights(lstm, layer))
        )


def _check_for_autograd(lstm: nn.LSTM) -> None:
    """Derived tensors of weights made in inference mode would say that they need no gradient."""
    if not torch.compiler.is_compiling() and any(w.is_inference() and w.requires_grad for w in lstm._flat_weights):  # type: ignore[union-attr]
        raise RuntimeError("Inference tensors cannot be saved for backward: the weights were made in inference mode")


def run_layers(
    lstm: nn.LSTM,
    gates: Tensor,
    index: Tensor | None,
    batch_sizes: Tensor,
    h0: Tensor,
    c0: Tensor,
    panels: RecurrentPanels | None,
    need_output: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """All layers, from the projected input of the first.

    Args:
        lstm: the weights and options; its ``_flat_weights`` up to date.
        gates: (D, R, 4H), see :func:`project`.
        index: (N,) the row of ``gates`` at each position, or None.
        batch_sizes: (T,) int64 on the CPU.
        h0: (L * D, B, P) in packed order; likewise c0, (L * D, B, H).
        panels: kept panels of this lstm's recurrent weights; None where the reference computes.
        need_output: whether the last layer's output is wanted.

    Returns:
        output (N, D * P), or (0, D * P) where inference does not need it; h_n and c_n, like h0 and c0.

    Raises:
        RuntimeError: weights made in inference mode, in a call that autograd records.
    """
    directions = 2 if lstm.bidirectional else 1
    if torch.is_grad_enabled() and panels is not None:
        panels.clear()
        _check_for_autograd(lstm)
    states_h, states_c = [], []
    output = gates
    for layer in range(lstm.num_layers):
        if layer > 0:
            if lstm.dropout > 0:
                output = functional.dropout(output, lstm.dropout, lstm.training)
            gates, index = project(output, lstm, layer), None
        span = slice(layer * directions, (layer + 1) * directions)
        kept = (
            None
            if panels is None or torch.is_grad_enabled() or torch.compiler.is_compiling()
            else panels.get(lstm, layer)
        )
        w_hh = recurrent_weights(lstm, layer)
        wanted = need_output or layer + 1 < lstm.num_layers
        w_hr = projection_weights(lstm, layer)
        output, h_n, c_n = ops.lstm(gates, index, batch_sizes, w_hh, h0[span], c0[span], kept, wanted, w_hr)
        states_h.append(h_n)
        states_c.append(c_n)
    if lstm.num_layers == 1:
        return output, states_h[0], states_c[0]
    return output, torch.cat(states_h), torch.cat(states_c)
