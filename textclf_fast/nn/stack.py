"""The layers of an LSTM, one after the other, on packed data: what FusedLSTM and FusedEmbeddingLSTM share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from textclf_fast import ops
from textclf_fast.nn.derived import Derived, weights_stay
from textclf_fast.nn.frozen_layers import FrozenLayers
from textclf_fast.nn.on_cuda import cuda_kernels_can
from textclf_fast.nn.projection import (
    joined,
    kernels_project,
    layer_input_weights,
    layer_weights,
    project,
    projection_weights,
    recurrent_weights,
    weights_each,
)

Module = TypeVar("Module", bound=nn.Module)
LSTM = TypeVar("LSTM", bound=nn.LSTM)

_KERNEL_DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def kernels_apply(lstm: nn.LSTM, *tensors: Tensor) -> bool:
    """Whether our kernels compute this: else PyTorch's own path does, with the same result.

    Left to PyTorch: other devices than the CPU and CUDA's, on the CPU other dtypes than float32, float64 and bfloat16,
    export to ONNX. On a GPU they may, see :func:`textclf_fast.nn.on_cuda.cuda_kernels_can`; whether they are the better
    way there is another question. Autocast: see :func:`autocast_lowers`; transforms of torch.func and forward mode: see
    :func:`reference_applies`.
    """
    weights = lstm._flat_weights
    if weights[0] is not None and weights[0].is_cuda:
        return cuda_kernels_can(lstm, *tensors)
    return (
        weights[0] is not None
        and weights[0].dtype in _KERNEL_DTYPES
        and all(t.is_cpu and t.dtype == weights[0].dtype for t in tensors)
        and all(w is not None and w.is_cpu and w.dtype == weights[0].dtype for w in weights)
        and ops.transforms_are_off()
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


class RecurrentPanels:
    """Each layer's W_hh and W_hr as the kernels read them, kept for inference while the weights stay as they are.

    Attributes:
        frozen: the short way through the layers that goes with them.
    """

    def __init__(self) -> None:
        self._layers: dict[tuple[int, bool], Derived[Tensor]] = {}
        self.frozen = FrozenLayers()

    def clear(self) -> None:
        """Forgets all of them."""
        self._layers.clear()
        self.frozen.clear()

    def get(self, lstm: nn.LSTM, layer: int, with_input: bool = False) -> Tensor | None:
        """One layer's panels, or None where they cannot be kept or there are none; ``_flat_weights`` up to date.

        ``with_input``: for :func:`textclf_fast.ops.lstm_layer`.
        """
        weights = layer_weights(lstm, layer, 1)
        if weights[0].is_cuda or not weights_stay(lstm):
            return None
        if lstm.proj_size:
            weights = weights + layer_weights(lstm, layer, weights_each(lstm) - 1)
        if with_input:
            weights = weights + layer_weights(lstm, layer, 0)

        def pack(changed: bool) -> Tensor:
            w_ih = joined(layer_weights(lstm, layer, 0)) if with_input else None
            return ops.pack_recurrent(recurrent_weights(lstm, layer), projection_weights(lstm, layer), w_ih)

        return self._layers.setdefault((layer, with_input), Derived()).get(weights, pack)


def _check_for_autograd(weights: Sequence[Any]) -> None:
    """Derived tensors of weights made in inference mode would say that they need no gradient."""
    if not torch.compiler.is_compiling() and any(w.is_inference() and w.requires_grad for w in weights):
        raise RuntimeError("Inference tensors cannot be saved for backward: the weights were made in inference mode")


def start_training(weights: Sequence[Any], panels: RecurrentPanels) -> None:
    """What a call that autograd records begins with: the LSTM's weights are about to change.

    Raises:
        RuntimeError: they were made in inference mode.
    """
    panels.clear()
    _check_for_autograd(weights)


def run_layers(
    lstm: nn.LSTM,
    gates: Tensor | None,
    index: Tensor | None,
    batch_sizes: Tensor,
    h0: Tensor,
    c0: Tensor,
    panels: RecurrentPanels | None,
    need_output: bool = True,
    rows: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """All layers, from the input of the first, projected or not.

    Args:
        lstm: the weights and options; its ``_flat_weights`` up to date.
        gates: (D, R, 4H), see :func:`project`; None beside ``rows``.
        index: (N,) the row of ``gates``, or of ``rows``, at each position, or None.
        batch_sizes: (T,) int64 on the CPU, or beside CUDA tensors on their device: N is what they add up to at most.
        h0: (L * D, B, P) in packed order; likewise c0, (L * D, B, H).
        panels: kept panels of this lstm's recurrent weights; None where the reference computes.
        need_output: whether the last layer's output is wanted.
        rows: (R, I), the first layer's input, instead of ``gates``.

    Returns:
        output (N, D * P), or (0, D * P) where inference does not need it; h_n and c_n, like h0 and c0.

    Raises:
        RuntimeError: weights made in inference mode, in a call that autograd records.
    """
    directions = 2 if lstm.bidirectional else 1
    if torch.is_grad_enabled() and panels is not None:
        start_training(lstm._flat_weights, panels)
    keeps = panels is not None and not (torch.is_grad_enabled() or torch.compiler.is_compiling())
    states_h, states_c = [], []
    for layer in range(lstm.num_layers):
        own_h0, own_c0 = h0, c0
        if lstm.num_layers > 1:
            own_h0, own_c0 = (state.narrow(0, layer * directions, directions) for state in (h0, c0))
        w_hh = recurrent_weights(lstm, layer)
        wanted = need_output or layer + 1 < lstm.num_layers
        from_input = rows is not None and panels is not None and kernels_project(lstm, rows)
        kept = panels.get(lstm, layer, from_input) if panels is not None and keeps else None
        if rows is not None and from_input:
            w_ih, bias = layer_input_weights(lstm, layer)
            output, h_n, c_n = ops.lstm_layer(rows, index, batch_sizes, w_ih, w_hh, bias, own_h0, own_c0, kept, wanted)
        else:
            gates = gates if rows is None else project(rows, lstm, layer)
            assert gates is not None
            w_hr = projection_weights(lstm, layer)
            output, h_n, c_n = ops.lstm(gates, index, batch_sizes, w_hh, own_h0, own_c0, kept, wanted, w_hr)
        dropped = lstm.dropout > 0 and layer + 1 < lstm.num_layers
        rows, index = functional.dropout(output, lstm.dropout, lstm.training) if dropped else output, None
        states_h.append(h_n)
        states_c.append(c_n)
    if lstm.num_layers == 1:
        return output, states_h[0], states_c[0]
    return output, torch.cat(states_h), torch.cat(states_c)
