"""lstm_stepwise in a compiled graph: one op of any B and T, where the loop itself would be unrolled.

The op is that loop, and draws the same masks from PyTorch's generator. Its backward runs it again, from the state that
the generator had, and has autograd differentiate it: the graph keeps the arguments alone, and pays a second forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from textclf_fast.nn.stepwise import DirectionWeights, LayerNorms, StepOptions, lstm_stepwise

_STATE_BYTES = torch.default_generator.get_state().numel()
_LAYER = "Tensor rows, Tensor? index, Tensor batch_sizes, Tensor[] weights, Tensor h0, Tensor c0"
# `has`: bias, w_hr, norms; `rates`: recurrent_dropout, zoneout_h, zoneout_c
_HOW = "bool[] has, float[] rates, bool training"


def stepwise_in_graph(
    rows: Tensor,
    index: Tensor | None,
    batch_sizes: Tensor,
    weights: list[DirectionWeights],
    h0: Tensor,
    c0: Tensor,
    options: StepOptions,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """:func:`textclf_fast.nn.stepwise.lstm_stepwise`, on the CPU."""
    first = weights[0]
    has = [part is not None for part in (first.bias, first.w_hr, first.norms)]
    given: list[Tensor] = []
    for own in weights:
        given += [part for part in (*own[:4], *(own.norms or ())) if part is not None]
    *rates, training = options
    call = 0
    if _draws(rates, training):
        from textclf_fast._tracing import number_call

        call = number_call()
    op = torch.ops.textclf_fast.lstm_stepwise
    return op(rows, index, batch_sizes, given, h0, c0, has, rates, training, call)[:4]


def _options(rates: Sequence[float], training: bool) -> StepOptions:
    recurrent_dropout, zoneout_h, zoneout_c = rates
    return StepOptions(recurrent_dropout, zoneout_h, zoneout_c, training)


def _named(weights: Sequence[Tensor], has: Sequence[bool]) -> list[DirectionWeights]:
    """The list that the op takes, by direction and name."""
    bias, w_hr, norms = has
    each = 2 + bias + w_hr + 4 * norms
    named = []
    for start in range(0, len(weights), each):
        w_ih, w_hh, *rest = weights[start : start + each]
        own_bias = rest.pop(0) if bias else None
        own_w_hr = rest.pop(0) if w_hr else None
        named.append(DirectionWeights(w_ih, w_hh, own_bias, own_w_hr, LayerNorms(*rest) if norms else None))
    return named


def _draws(rates: Sequence[float], training: bool) -> bool:
    return training and any(rates)


# ---- The op --------------------------------------------------------------------------------------

torch.library.define(
    "textclf_fast::lstm_stepwise",
    f"({_LAYER}, {_HOW}, int call) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    tags=(torch.Tag.nondeterministic_seeded,),
)


@torch.library.impl("textclf_fast::lstm_stepwise", "CPU")
def _(
    rows: Tensor,
    index: Tensor | None,
    batch_sizes: Tensor,
    weights: list[Tensor],
    h0: Tensor,
    c0: Tensor,
    has: list[bool],
    rates: list[float],
    training: bool,
    call: int,
) -> tuple[Tensor, ...]:
    state = torch.get_rng_state() if _draws(rates, training) else torch.empty(0, dtype=torch.uint8)
    options = _options(rates, training)
    return *lstm_stepwise(rows, index, batch_sizes, _named(weights, has), h0, c0, options), state


@torch.library.register_fake("textclf_fast::lstm_stepwise")
def _(
    rows: Tensor,
    index: Tensor | None,
    batch_sizes: Tensor,
    weights: list[Tensor],
    h0: Tensor,
    c0: Tensor,
    has: list[bool],
    rates: list[float],
    training: bool,
    call: int,
) -> tuple[Tensor, ...]:
    positions, w_hh = (rows if index is None else index).size(0), weights[1]
    (directions, batch, width), hidden = h0.shape, c0.size(2)
    return (
        w_hh.new_empty(positions, directions * width),
        w_hh.new_empty(directions, batch, width),
        w_hh.new_empty(directions, batch, hidden),
        w_hh.new_empty(directions, positions, hidden),
        rows.new_empty(_STATE_BYTES if _draws(rates, training) else 0, dtype=torch.uint8),
    )


# ---- Its backward --------------------------------------------------------------------------------

torch.library.define(
    "textclf_fast::lstm_stepwise_backward",
    f"(Tensor?[] grads, Tensor state, {_LAYER}, {_HOW}) -> (Tensor, Tensor[], Tensor, Tensor)",
)


@torch.library.impl("textclf_fast::lstm_stepwise_backward", "CPU")
def _(
    grads: list[Tensor | None],
    state: Tensor,
    rows: Tensor,
    index: Tensor | None,
    batch_sizes: Tensor,
    weights: list[Tensor],
    h0: Tensor,
    c0: Tensor,
    has: list[bool],
    rates: list[float],
    training: bool,
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    leaves = [t.detach().requires_grad_() for t in (rows, h0, c0, *weights)]
    rows, h0, c0, *weights = leaves
    with torch.enable_grad(), torch.random.fork_rng(devices=()):
        if state.numel():
            torch.set_rng_state(state)
        options = _options(rates, training)
        results = lstm_stepwise(rows, index, batch_sizes, _named(weights, has), h0, c0, options)
    used = [(result, grad) for result, grad in zip(results, grads, strict=True) if grad is not None]
    outputs, given = zip(*used, strict=True)
    found = torch.autograd.grad(outputs, leaves, given, materialize_grads=True)
    rows, h0, c0, *weights = (grad.contiguous() for grad in found)
    return rows, weights, h0, c0


@torch.library.register_fake("textclf_fast::lstm_stepwise_backward")
def _(
    grads: list[Tensor | None],
    state: Tensor,
    rows: Tensor,
    index: Tensor | None,
    batch_sizes: Tensor,
    weights: list[Tensor],
    h0: Tensor,
    c0: Tensor,
    has: list[bool],
    rates: list[float],
    training: bool,
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    grad_weights = [w.new_empty(w.shape) for w in weights]
    return rows.new_empty(rows.shape), grad_weights, h0.new_empty(h0.shape), c0.new_empty(c0.shape)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    rows, index, batch_sizes, weights, h0, c0, *how, _ = inputs
    # AOTAutograd saves no None.
    ctx.save_for_backward(output[4], rows, batch_sizes, h0, c0, *weights, *([] if index is None else [index]))
    ctx.weights, ctx.how = len(weights), how
    ctx.mark_non_differentiable(output[4])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
    state, rows, batch_sizes, h0, c0, *rest = ctx.saved_tensors
    weights, index = rest[: ctx.weights], rest[-1] if len(rest) > ctx.weights else None
    grads = grads[:4]
    if all(grad is None for grad in grads):
        return (None,) * 10
    grad_rows, grad_weights, grad_h0, grad_c0 = torch.ops.textclf_fast.lstm_stepwise_backward(
        grads, state, rows, index, batch_sizes, weights, h0, c0, *ctx.how
    )
    return grad_rows, None, None, grad_weights, grad_h0, grad_c0, None, None, None, None


torch.library.register_autograd("textclf_fast::lstm_stepwise", _backward, setup_context=_save_for_backward)
