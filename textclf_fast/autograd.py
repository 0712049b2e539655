"""The gradients of the ops.

The formulas are registered with the ops, for torch.compile; eager calls take them by way of autograd.Function, which
costs some 40 us less for a training step.
"""

from __future__ import annotations

from types import NoneType
from typing import Any

import torch
from torch import Tensor

from textclf_fast import _libraries
from textclf_fast.reference import (
    embedding_lstm_reference,
    gather_rows_reference,
    lstm_cells_reference,
    lstm_layer_reference,
    scatter_rows_reference,
)

_libraries.load()
_ops = torch.ops.textclf_fast


def transformed() -> bool:
    """Whether a transform of torch.func or forward-mode differentiation is at work.

    Ops with an autograd formula in Python have no rule for these, and drop a tangent without a word.
    """
    # Private names, pinned by a test: the levels of vmap, grad, jvp and the like; those of forward mode.
    # (No comparison with None: torch.compile has a wrapper in its place.)
    layers = torch._C._functorch.peek_interpreter_stack()
    return not isinstance(layers, NoneType) or torch.autograd.forward_ad._current_level >= 0


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    hidden_sequence, _, _, activations, cells = output
    saved = (*inputs, hidden_sequence, activations, cells)
    ctx.given = [t is not None for t in saved]
    ctx.save_for_backward(*[t for t in saved if t is not None])  # AOTAutograd saves no None
    ctx.mark_non_differentiable(activations)
    ctx.set_materialize_grads(False)


def _backward_of_training(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    output, h_n, c_n, _, cells = grads
    saved = iter(ctx.saved_tensors)
    return _backward(ctx, [next(saved) if given else None for given in ctx.given], output, h_n, c_n, cells)


def _backward(ctx: Any, saved: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    """From the gradients of output, h_n, c_n and, where they were given out, of cells.

    saved: the inputs, output, activations and cells.
    """
    if all(grad is None for grad in grads):
        return (None,) * 7
    *inputs, output, activations, cells = saved
    if _differentiated_in_turn():
        return _differentiable_backward(ctx.needs_input_grad, grads, *inputs)
    gates, index, batch_sizes, w_hh, h0, c0, w_hr = inputs
    need_gates, need_w_hh = ctx.needs_input_grad[0], ctx.needs_input_grad[3]
    need_w_hr = w_hr is not None and ctx.needs_input_grad[6]
    grad_cells = grads[3] if len(grads) > 3 else None
    rest = need_w_hh, grad_cells, w_hr, need_w_hr, need_gates
    grad_gates, grad_w_hh, grad_h0, grad_c0, grad_w_hr = _ops.lstm_backward(
        *grads[:3], activations, cells, output, index, gates.size(1), batch_sizes, w_hh, h0, c0, *rest
    )
    grad_w_hh, grad_w_hr = grad_w_hh if need_w_hh else None, grad_w_hr if need_w_hr else None
    return grad_gates if need_gates else None, None, None, grad_w_hh, grad_h0, grad_c0, grad_w_hr


def _differentiated_in_turn() -> bool:
    """Whether the gradients that a backward computes are: by ``create_graph=True``, or by tangents in forward mode."""
    return torch.is_grad_enabled() or torch.autograd.forward_ad._current_level >= 0


def _differentiable_backward(
    needs_grad: tuple[bool, ...],
    grads: tuple[Tensor | None, ...],
    gates: Tensor,
    index: Tensor | None,
    batch_sizes: Tensor,
    w_hh: Tensor,
    h0: Tensor,
    c0: Tensor,
    w_hr: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """The same gradients by way of the plain-PyTorch reference, slower, with a graph and tangents of their own."""
    used = [i for i, grad in enumerate(grads) if grad is not None]

    def layer(gates: Tensor, w_hh: Tensor, h0: Tensor, c0: Tensor, w_hr: Tensor | None = None) -> list[Tensor]:
        outputs = lstm_cells_reference(gates, index, batch_sizes, w_hh, h0, c0, w_hr)
        return [outputs[i] for i in used]

    # Not torch.autograd.grad: the transforms that may be at work outside of this backward are nested around it.
    inputs = (gates, w_hh, h0, c0) if w_hr is None else (gates, w_hh, h0, c0, w_hr)
    found = torch.func.vjp(layer, *inputs)[1]([grads[i] for i in used])
    places = (found[0], None, None, *found[1:4], None if w_hr is None else found[4])  # among the arguments
    needs_grad = (*needs_grad, False)[:7]  # in graphs a w_hr of None is no argument
    return tuple(grad if needed else None for grad, needed in zip(places, needs_grad, strict=True))


class Lstm(torch.autograd.Function):
    """lstm_training."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        output, h_n, c_n, activations, cells = _ops.lstm_training_forward(*inputs)
        ctx.save_for_backward(*inputs, output, activations, cells)
        ctx.set_materialize_grads(False)
        return output, h_n, c_n

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return _backward(ctx, ctx.saved_tensors, *grads)


class LstmLayer(torch.autograd.Function):
    """lstm_layer_training."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        output, h_n, c_n, activations, cells = _ops.lstm_layer_training(*inputs)
        ctx.save_for_backward(*inputs, output, activations, cells)
        ctx.set_materialize_grads(False)
        return output, h_n, c_n

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if all(grad is None for grad in grads):
            return (None,) * 8
        *inputs, output, activations, cells = ctx.saved_tensors
        if _differentiated_in_turn():
            return _differentiable_layer_backward(ctx.needs_input_grad, grads, *inputs)
        x, index, batch_sizes, w_ih, w_hh, _, h0, c0 = inputs
        need_x, _, _, need_w_ih, need_w_hh, need_bias, _, _ = ctx.needs_input_grad
        grad_x, grad_w_ih, grad_w_hh, grad_bias, grad_h0, grad_c0 = _ops.lstm_layer_backward(
            *grads,
            activations,
            cells,
            output,
            x,
            index,
            batch_sizes,
            w_ih,
            w_hh,
            h0,
            c0,
            need_x,
            need_w_ih,
            need_w_hh,
            need_bias,
        )
        return (
            _sum_of_directions(grad_x) if need_x else None,
            None,
            None,
            grad_w_ih if need_w_ih else None,
            grad_w_hh if need_w_hh else None,
            grad_bias if need_bias else None,
            grad_h0,
            grad_c0,
        )


def _sum_of_directions(shares: Tensor) -> Tensor:
    return shares.squeeze(0) if shares.size(0) == 1 else shares.sum(0)


def _differentiable_layer_backward(
    needs_grad: tuple[bool, ...],
    grads: tuple[Tensor | None, ...],
    x: Tensor,
    index: Tensor | None,
    batch_sizes: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    bias: Tensor | None,
    h0: Tensor,
    c0: Tensor,
) -> tuple[Tensor | None, ...]:
    """As :func:`_differentiable_backward`."""
    used = [i for i, grad in enumerate(grads) if grad is not None]

    def layer(x: Tensor, w_ih: Tensor, w_hh: Tensor, h0: Tensor, c0: Tensor, bias: Tensor | None = None) -> Any:
        outputs = lstm_layer_reference(x, index, batch_sizes, w_ih, w_hh, bias, h0, c0)
        return [outputs[i] for i in used]

    inputs = (x, w_ih, w_hh, h0, c0) if bias is None else (x, w_ih, w_hh, h0, c0, bias)
    found = torch.func.vjp(layer, *inputs)[1]([grads[i] for i in used])
    places = (found[0], None, None, found[1], found[2], None if bias is None else found[5], found[3], found[4])
    return tuple(grad if needed else None for grad, needed in zip(places, needs_grad, strict=True))


class EmbeddingLstm(torch.autograd.Function):
    """embedding_lstm_training of ids in packed order, embedding_lstm_padded_training of a padded batch."""

    @staticmethod
    def forward(
        ctx: Any,
        table: Tensor,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None,
        b_hh: Tensor | None,
        padding_idx: int,
        ids: Tensor,
        batch_sizes: Tensor | None,
        lengths: Tensor | None = None,
        batch_first: bool = False,
        need_output: bool = True,
    ) -> tuple[Tensor, Tensor, Tensor]:
        if batch_sizes is None:
            output, h_n, c_n, *rest, packed = _ops.embedding_lstm_padded_training(
                table, ids, lengths, batch_first, need_output, w_ih, w_hh, b_ih, b_hh
            )
        else:
            output, h_n, c_n, *rest = _ops.embedding_lstm_training(table, ids, batch_sizes, w_ih, w_hh, b_ih, b_hh)
            rest += batch_sizes, None, None
            packed = None
        ctx.save_for_backward(w_ih, w_hh, packed if packed is not None and len(packed) else output, *rest)
        ctx.output_shape = output.shape
        # Not saved, which would forbid to change them before the backward: that has no need of their numbers, unless it
        # is differentiated.
        ctx.others = table, b_ih, b_hh
        ctx.versions = _versions(ctx.others)
        ctx.padding_idx = padding_idx
        ctx.set_materialize_grads(False)
        return output, h_n, c_n

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if all(grad is None for grad in grads):
            return (None,) * _EMBEDDING_LSTM_INPUTS
        if _differentiated_in_turn():
            return _differentiable_embedding_backward(ctx, grads)
        w_ih, w_hh, output, activations, cells, x, tokens, index, batch_sizes, positions, order = ctx.saved_tensors
        need_table, need_w_ih, need_w_hh, need_b_ih, need_b_hh = ctx.needs_input_grad[:5]
        grad_table, grad_w_ih, grad_w_hh, grad_bias = _ops.embedding_lstm_backward(
            *grads,
            activations,
            cells,
            output,
            x,
            tokens,
            index,
            batch_sizes,
            positions,
            order,
            w_ih,
            w_hh,
            ctx.others[0].size(0),
            ctx.padding_idx,
            need_table,
            need_w_ih,
            need_w_hh,
            need_b_ih or need_b_hh,
        )
        return (
            grad_table if need_table else None,
            grad_w_ih if need_w_ih else None,
            grad_w_hh if need_w_hh else None,
            grad_bias if need_b_ih else None,
            grad_bias if need_b_hh else None,
            *_OTHER_INPUTS_GRADS,
        )


# (One for each argument, those with a default value, too, whether they were given or not: autograd wants no fewer, and
# takes more.)
_OTHER_INPUTS_GRADS = (None,) * 6
_EMBEDDING_LSTM_INPUTS = 5 + len(_OTHER_INPUTS_GRADS)


def _versions(tensors: tuple[Tensor | None, ...]) -> list[int | None]:
    """How often each has been changed; None of those made in inference mode, which do not count."""
    return [None if t is None or t.is_inference() else t._version for t in tensors]


def _differentiable_embedding_backward(ctx: Any, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """As :func:`_differentiable_backward`."""
    w_ih, w_hh, *_, tokens, index, batch_sizes, positions, order = ctx.saved_tensors
    table, b_ih, b_hh = ctx.others
    if ctx.versions != _versions(ctx.others):
        raise RuntimeError(
            "create_graph: expected the embedding's weight and the biases as they were in the forward, "
            "and one has been modified by an inplace operation"
        )
    used = [i for i, grad in enumerate(grads) if grad is not None]

    def layer(table: Tensor, w_ih: Tensor, w_hh: Tensor, *biases: Tensor) -> list[Tensor]:
        b_ih, b_hh = biases or (None, None)
        given = table, tokens, index, batch_sizes, w_ih, w_hh, b_ih, b_hh, ctx.padding_idx
        outputs = embedding_lstm_reference(*given, ctx.output_shape, positions, order)
        return [outputs[i] for i in used]

    inputs = (table, w_ih, w_hh) if b_ih is None else (table, w_ih, w_hh, b_ih, b_hh)
    found = torch.func.vjp(layer, *inputs)[1]([grads[i] for i in used])
    grads = (*found, None, None)[:5]  # without biases these two have none
    wanted = (grad if needed else None for grad, needed in zip(grads, ctx.needs_input_grad[:5], strict=True))
    return (*wanted, *_OTHER_INPUTS_GRADS)


class LstmWithCells(torch.autograd.Function):
    """lstm_training, with the cell states for the caller."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        output, h_n, c_n, activations, cells = _ops.lstm_training_forward(*inputs)
        ctx.save_for_backward(*inputs, output, activations, cells)
        ctx.set_materialize_grads(False)
        return output, h_n, c_n, cells

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return _backward(ctx, ctx.saved_tensors, *grads)


torch.library.register_autograd("textclf_fast::lstm_training", _backward_of_training, setup_context=_save_for_backward)


def _save_rows(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.size, ctx.skip = inputs[0].size(0), inputs[-1]


def _gather_rows_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (rows,) = ctx.saved_tensors
    scatter = scatter_rows_reference if _differentiated_in_turn() else _ops.scatter_rows
    return scatter(grad, rows, ctx.size, ctx.skip), None, None


torch.library.register_autograd("textclf_fast::gather_rows", _gather_rows_backward, setup_context=_save_rows)


class GatherRows(torch.autograd.Function):
    """gather_rows."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, no_grad: int) -> Tensor:
        _save_rows(ctx, (table, rows, no_grad), table)
        return _ops.gather_rows(table, rows, no_grad)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _gather_rows_backward(ctx, grad)


def _save_places(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.skip = inputs[-1]
    ctx.set_materialize_grads(False)


def _scatter_rows_backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return None, None, None, None
    (rows,) = ctx.saved_tensors
    gather = gather_rows_reference if _differentiated_in_turn() else _ops.gather_rows
    found = gather(grad, rows, -1)
    return found if ctx.skip < 0 else found.masked_fill((rows == ctx.skip).unsqueeze(1), 0), None, None, None


torch.library.register_autograd("textclf_fast::scatter_rows", _scatter_rows_backward, setup_context=_save_places)


class ScatterRows(torch.autograd.Function):
    """scatter_rows."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: Tensor, count: int, skip: int) -> Tensor:
        _save_places(ctx, (values, rows, count, skip), values)
        return _ops.scatter_rows(values, rows, count, skip)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        return _scatter_rows_backward(ctx, grad)
