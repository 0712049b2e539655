"""Python face of the ops: one function each, and autograd. (Fake kernels: fake_kernels.py.)

The schemas are in csrc/ops.cpp, the packed layout in csrc/lstm_problem.h.  Letters: T steps, B rows, N positions =
sum of lengths, D directions, H hidden units, P numbers of h, R gate rows, V vocabulary.
"""

from __future__ import annotations

from types import NoneType
from typing import Any

import torch
from torch import Tensor

from textclf_fast import _libraries, fake_kernels  # noqa: F401 (registers them)
from textclf_fast.reference import gates_dtype as gates_dtype
from textclf_fast.reference import (
    gather_rows_reference,
    layout_in_place_reference,
    lstm_cells_reference,
    lstm_layer_reference,
    lstm_reference,
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


def exports_to_onnx() -> bool:
    """Whether a graph is traced for torch.onnx.export(dynamo=True)."""
    if not (torch.compiler.is_compiling() or torch.compiler.is_exporting()):
        return False
    from textclf_fast._tracing import in_onnx_export

    return in_onnx_export()


def transforms_are_off() -> bool:
    """Whether ops run as they are: no autocast, no export to ONNX, no tracing, no transform of torch.func."""
    # (An export to ONNX traces or compiles: asking for it at once would take longer than all else here.)
    return not (torch.jit.is_tracing() or exports_to_onnx() or torch.is_autocast_enabled("cpu") or transformed())


def lstm(
    gates: Tensor,
    index: Tensor | None,
    batch_sizes: Tensor,
    w_hh: Tensor,
    h0: Tensor,
    c0: Tensor,
    panels: Tensor | None = None,
    need_output: bool = True,
    w_hr: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One LSTM layer in the packed layout.

    Its gradients come from a kernel too; those of its gradients (``create_graph=True``), and everything under a
    transform of torch.func or in forward mode, through the plain-PyTorch reference.

    Args:
        gates: (D, R, 4H) float32 or float64, the input half of the gates (i, f, g, o), both biases included.
        index: (N,) int64, the row of ``gates`` that each position reads, or None where R is N.
        batch_sizes: (T,) int64 on the CPU, rows alive at each step, non-increasing. Beside CUDA tensors it may be on
            their device, unseen: it may end in zeros then, N is what it adds up to at most, and the rest of output is
            not written. An index that is no row makes its row of the batch NaN there.
        w_hh: (D, 4H, P) of the dtype of gates, or bfloat16 (on CUDA float16, too) beside float32 gates; the states
            likewise. P is H without w_hr.
        h0: (D, B, P), rows in packed order.
        c0: (D, B, H).
        panels: what :func:`pack_recurrent` made of these very weights; spares inference the packing.
        need_output: False lets inference leave the output out: it is (0, D * P) then.
        w_hr: (D, P, H), the projection of the cells' output to h, as in csrc/lstm_problem.h; None for none.

    Returns:
        output (N, D * P), h_n (D, B, P) and c_n (D, B, H), of the dtype of w_hh.

    Raises:
        RuntimeError: a shape, dtype, device, batch size or index that does not fit; the message names the argument.
    """
    if transformed():
        return lstm_reference(gates, index, batch_sizes, w_hh, h0, c0, w_hr)
    if _recorded(gates, w_hh, h0, c0, w_hr):
        if not torch.compiler.is_compiling():
            return _Lstm.apply(gates, index, batch_sizes, w_hh, h0, c0, w_hr)
        output, h_n, c_n, _, _ = _ops.lstm_training(gates, index, batch_sizes, w_hh, h0, c0, w_hr)
        return output, h_n, c_n
    return _ops.lstm_inference(gates, index, batch_sizes, w_hh, h0, c0, panels, need_output, w_hr)


def lstm_layer(
    x: Tensor,
    index: Tensor | None,
    batch_sizes: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    bias: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    panels: Tensor | None = None,
    need_output: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`lstm` from the layer's input: the kernels project it themselves.

    Not under torch.compile, nor under a transform of torch.func or in forward mode.

    Args:
        x: (R, I) float32, float64 or bfloat16 on the CPU; the other floats are like it.
        index: (N,) int64, the row of ``x`` that each position reads, or None where R is N. Each row is projected once.
        batch_sizes: (T,) int64 on the CPU, rows alive at each step, non-increasing.
        w_ih: (D, 4H, I).
        w_hh: (D, 4H, H).
        bias: (D, 4H), the sum of both biases, or None for none; float32 beside bfloat16.
        h0, c0: (D, B, H), rows in packed order.
        panels: what :func:`pack_recurrent` made of w_hh and w_ih; spares inference the packing.
        need_output: False lets inference leave the output out: it is (0, D * H) then.

    Returns:
        output (N, D * H), h_n and c_n (D, B, H).

    Raises:
        RuntimeError: a shape, dtype, device or batch size that does not fit; the message names the argument.
    """
    tensors = (x, w_ih, w_hh, h0, c0) if bias is None else (x, w_ih, w_hh, h0, c0, bias)
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return _LstmLayer.apply(x, index, batch_sizes, w_ih, w_hh, bias, h0, c0)
    return _ops.lstm_layer_inference(x, index, batch_sizes, w_ih, w_hh, bias, h0, c0, panels, need_output)


def lstm_with_cells(
    gates: Tensor,
    index: Tensor | None,
    batch_sizes: Tensor,
    w_hh: Tensor,
    h0: Tensor,
    c0: Tensor,
    panels: Tensor | None = None,
    w_hr: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """:func:`lstm`, and the cell state at every position: cells (D, N, H), differentiable as the others are."""
    if transformed():
        return lstm_cells_reference(gates, index, batch_sizes, w_hh, h0, c0, w_hr)
    if _recorded(gates, w_hh, h0, c0, w_hr):
        if not torch.compiler.is_compiling():
            return _LstmWithCells.apply(gates, index, batch_sizes, w_hh, h0, c0, w_hr)
        output, h_n, c_n, _, cells = _ops.lstm_training(gates, index, batch_sizes, w_hh, h0, c0, w_hr)
        return output, h_n, c_n, cells
    return _ops.lstm_cells_inference(gates, index, batch_sizes, w_hh, h0, c0, panels, w_hr)


def _recorded(gates: Tensor, w_hh: Tensor, h0: Tensor, c0: Tensor, w_hr: Tensor | None) -> bool:
    """Whether autograd records a layer."""
    return torch.is_grad_enabled() and (
        gates.requires_grad
        or w_hh.requires_grad
        or h0.requires_grad
        or c0.requires_grad
        or (w_hr is not None and w_hr.requires_grad)
    )


def embedding_lstm_inference(
    table: Tensor,
    ids: Tensor,
    lengths: Tensor | None,
    batch_first: bool,
    w_hh: Tensor,
    panels: Tensor | None,
    need_output: bool = True,
    w_hr: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One LSTM layer on a padded batch of token ids, from zero initial states.

    Args:
        table: (D, V, 4H), the input half of the gates of every token.
        ids: (T, B), or (B, T) where batch_first, int64 on the CPU, each in ``0 .. V - 1`` up to its row's length.
        lengths: (B,) int64 on the CPU, each in ``1 .. T``; None: all T.
        batch_first: the form of ids and output.
        w_hh: (D, 4H, P).
        panels: what :func:`pack_recurrent` made of these very weights.
        need_output: False leaves the output out: it is (0,) then.
        w_hr: (D, P, H), or None, as in :func:`lstm`.

    Returns:
        output (T, B, D * P), or (B, T, D * P), zero past the lengths; h_n (D, B, P) and c_n (D, B, H).

    Raises:
        RuntimeError: a shape, dtype, id or length that does not fit; the message names the argument.
    """
    return _ops.embedding_lstm_inference(table, ids, lengths, batch_first, w_hh, panels, need_output, w_hr)


def pack_recurrent(w_hh: Tensor, w_hr: Tensor | None = None, w_ih: Tensor | None = None) -> Tensor:
    """The weights as the CPU kernels of the chosen instruction set read them: one opaque vector.

    w_hr where h is projected; w_ih for :func:`lstm_layer`, and for no other.
    """
    return _ops.pack_recurrent(w_hh, w_hr, w_ih)


def distinct_tokens(ids: Tensor, vocab_size: int) -> tuple[Tensor, Tensor]:
    """The distinct ids of a batch and each position's place among them.

    Args:
        ids: (N,) int64 on the CPU, each in ``0 .. vocab_size - 1``.
        vocab_size: V.

    Returns:
        tokens (U,) in order of first appearance and index (N,), with ``tokens[index] == ids``.

    Raises:
        RuntimeError: an id out of range; the message names it and its position.
    """
    return _ops.distinct_tokens(ids, vocab_size)


def gather_rows(table: Tensor, rows: Tensor, no_grad: int = -1) -> Tensor:
    """Rows of a table by their numbers, as an embedding of distinct tokens; differentiable any number of times.

    Its gradient, a whole table, is PyTorch's, but in memory that asks for huge pages: at V = 10,000, E = 100 the page
    faults of PyTorch's were seen to take 0.6 ms, as long as forward and backward of 64 steps at H = 128.

    Args:
        table: (V, E) on the CPU.
        rows: (U,) int64, distinct, each in ``0 .. V - 1``.
        no_grad: the row that gets no gradient (an embedding's ``padding_idx``), -1 for none.

    Returns:
        (U, E).

    Raises:
        RuntimeError: a row out of range; the message names it.
    """
    if transformed():
        return gather_rows_reference(table, rows, no_grad)
    if torch.is_grad_enabled() and table.requires_grad and not torch.compiler.is_compiling():
        return _GatherRows.apply(table, rows, no_grad)
    return _ops.gather_rows(table, rows, no_grad)


def scatter_rows(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Rows put into a table of zeros: the other way round than :func:`gather_rows`; differentiable any number of times.

    Args:
        values: (U, E) on the CPU.
        rows: (U,) int64, distinct, each in ``0 .. count - 1``: where they go.
        count: of the table's rows.

    Returns:
        (count, E), in memory that is kept from step to step: for what does not outlive one.

    Raises:
        RuntimeError: a row out of range; the message names it.
    """
    if transformed():
        return scatter_rows_reference(values, rows, count, -1)
    if torch.is_grad_enabled() and values.requires_grad and not torch.compiler.is_compiling():
        return _ScatterRows.apply(values, rows, count)
    return _ops.scatter_rows(values, rows, count, -1)


def new_passing(like: Tensor, size: list[int]) -> Tensor:
    """An uninitialized tensor like this one, on the CPU, for what does not outlive a training step.

    Where it is large it is in memory that is kept from step to step, whose pages are there already.
    """
    return _ops.new_passing(like, size)


def packed_layout(
    lengths: Tensor, steps: int, step_stride: int, row_stride: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where the real positions of a padded batch are, in packed order.

    Args:
        lengths: (B,) int64 on the CPU, each in ``1 .. steps``.
        steps: T of the padded batch.
        step_stride: distance between a row's steps in the flattened batch: B, or 1 where it is batch-first.
        row_stride: distance between rows: 1, or T where it is batch-first.

    Returns:
        positions (N,), batch_sizes (max length,), sorted_indices (B,) and unsorted_indices (B,).

    Raises:
        RuntimeError: a length out of range; the message names it.
    """
    return _ops.packed_layout(lengths, steps, step_stride, row_stride)


# The kernel compares rows with all rows and steps: at 4,096 of them and T = 256 some 18 million pairs, of ten integer
# instructions each; an H100 has 132 * 64 lanes for those: 21,000 cycles, some 12 us. Its time grows with the square,
# that of a sort does not. (Arithmetic, not measured.)
_MOST_ROWS_IN_PLACE = 4096


def layout_in_place(
    lengths: Tensor, steps: int, step_stride: int, row_stride: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Where the positions of a padded batch are in packed order, without a look at the lengths from the host.

    On a GPU these are two launches, where the library has them. With more than 4,096 rows, or 2^31 positions, it is
    plain PyTorch, some 20 launches, as on any other device.

    Args:
        lengths: (B,) int64, on any device. Rows whose length is outside of ``1 .. steps`` have no positions but -1.
        steps: T of the padded batch.
        step_stride: distance between a row's steps in the flattened batch: B, or 1 where it is batch-first.
        row_stride: distance between rows: 1, or T where it is batch-first.

    Returns:
        All int64, on the device of lengths: positions (T * B,), the place of each packed position in the flattened
        batch, then -1; places (T * B,), the packed position of each place, -1 past the lengths; batch_sizes (T,), with
        zeros at the end; sorted_indices (B,) and unsorted_indices (B,).
    """
    rows = lengths.size(0)
    if (
        lengths.is_cuda
        and rows <= _MOST_ROWS_IN_PLACE
        and rows * steps < 2**31
        and _libraries.cuda_has("layout_in_place")
    ):
        return _ops.layout_in_place(lengths, steps, step_stride, row_stride)
    return layout_in_place_reference(lengths, steps, step_stride, row_stride)


def stale_rows(ids: Tensor, done: Tensor, steps: int) -> Tensor:
    """The rows among ``ids`` that have not had all of the first ``steps`` steps, each once, in order of appearance.

    Args:
        ids: int64 on the CPU, of any shape, each in ``0 .. V - 1``.
        done: (V,) int64, the steps that each row has had.
        steps: at least 0.

    Returns:
        (U,) int64.

    Raises:
        RuntimeError: an id out of range, another dtype; the message names the argument.
    """
    return _ops.stale_rows(ids, done, steps)


def adam_rows_(
    param: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    done: Tensor,
    rows: Tensor,
    grad: Tensor | None,
    history: Tensor,
    steps: int,
) -> None:
    """Gives some rows all of the first ``steps`` steps of Adam that they have not had.

    Those steps are without a gradient, but for the last where ``grad`` is given. The version counters of what is
    changed go up, so that autograd and kept tensors notice.

    Args:
        param: (V, E) float32 or float64 on the CPU, contiguous; changed, as are the next three.
        exp_avg, exp_avg_sq: Adam's moments, alike.
        done: (V,) int64, the steps that each row has had.
        rows: (U,) int64, distinct, each in ``0 .. V - 1``.
        grad: (U, E) of param's dtype, or None.
        history: (S, 8) float64, the numbers of each step: lr / (1 - beta1^n), 1 / sqrt(1 - beta2^n), beta1, beta2,
            sqrt(beta2), what decoupled weight decay leaves of a weight, weight decay added to the gradient, eps (> 0).
        steps: at most S.

    Raises:
        RuntimeError: a shape, dtype, row or count of steps that does not fit; the message names the argument.
    """
    with torch.no_grad():
        _ops.adam_rows_(param, exp_avg, exp_avg_sq, done, rows, grad, history, steps)
    torch.autograd.graph.increment_version((param, exp_avg, exp_avg_sq, done))


# ---- Autograd ------------------------------------------------------------------------------------
#
# The formulas are registered with the ops, for torch.compile; eager calls take them by way of autograd.Function, which
# costs some 40 us less for a training step.


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


class _Lstm(torch.autograd.Function):
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


class _LstmLayer(torch.autograd.Function):
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


class _LstmWithCells(torch.autograd.Function):
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


class _GatherRows(torch.autograd.Function):
    """gather_rows."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, no_grad: int) -> Tensor:
        _save_rows(ctx, (table, rows, no_grad), table)
        return _ops.gather_rows(table, rows, no_grad)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _gather_rows_backward(ctx, grad)


class _ScatterRows(torch.autograd.Function):
    """scatter_rows, from which no row is left out."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: Tensor, count: int) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.set_materialize_grads(False)
        return _ops.scatter_rows(values, rows, count, -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        (rows,) = ctx.saved_tensors
        return None if grad is None else gather_rows(grad, rows), None, None
