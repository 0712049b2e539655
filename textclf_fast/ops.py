"""Python face of the ops: one function each. (Their gradients: autograd.py; fake kernels: fake_kernels.py.)

The schemas are in csrc/ops.cpp, the packed layout in csrc/lstm_problem.h.  Letters: T steps, B rows, N positions =
sum of lengths, D directions, H hidden units, P numbers of h, R gate rows, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from textclf_fast import _libraries, fake_kernels  # noqa: F401 (registers them)
from textclf_fast.autograd import EmbeddingLstm, GatherRows, Lstm, LstmLayer, LstmWithCells, ScatterRows
from textclf_fast.autograd import transformed as transformed
from textclf_fast.reference import gates_dtype as gates_dtype
from textclf_fast.reference import (
    gather_rows_reference,
    layout_in_place_reference,
    lstm_cells_reference,
    lstm_reference,
    scatter_rows_reference,
)

_ops = torch.ops.textclf_fast


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
            return Lstm.apply(gates, index, batch_sizes, w_hh, h0, c0, w_hr)
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
        return LstmLayer.apply(x, index, batch_sizes, w_ih, w_hh, bias, h0, c0)
    return _ops.lstm_layer_inference(x, index, batch_sizes, w_ih, w_hh, bias, h0, c0, panels, need_output)


def embedding_lstm(
    table: Tensor,
    ids: Tensor,
    batch_sizes: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    padding_idx: int = -1,
) -> tuple[Tensor, Tensor, Tensor]:
    """An embedding and one LSTM layer of one direction, from zero initial states, as training has them.

    The same bits as :func:`distinct_tokens`, :func:`gather_rows` and :func:`lstm_layer`, in one call each way
    (:mod:`textclf_fast.nn.trained` has what that saves). Not under torch.compile, nor under a transform of torch.func
    or in forward mode.

    Args:
        table: (V, I) float32 or float64 on the CPU, the embedding's weight; the other floats are like it.
        ids: (N,) int64 in packed order, each in ``0 .. V - 1``.
        batch_sizes: (T,) int64 on the CPU, rows alive at each step, non-increasing.
        w_ih: (4H, I).
        w_hh: (4H, H).
        b_ih, b_hh: (4H,), or both None.
        padding_idx: the token that gets no gradient, -1 for none.

    Returns:
        output (N, H), h_n and c_n (1, B, H), rows in packed order.

    Raises:
        RuntimeError: a shape, dtype, device, id or batch size that does not fit; the message names the argument.
    """
    return EmbeddingLstm.apply(table, w_ih, w_hh, b_ih, b_hh, padding_idx, ids, batch_sizes)


def embedding_lstm_padded(
    table: Tensor,
    ids: Tensor,
    lengths: Tensor | None,
    batch_first: bool,
    need_output: bool,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    padding_idx: int = -1,
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`embedding_lstm` on a padded batch of token ids, whose layout is made on the way.

    Args:
        table, w_ih, w_hh, b_ih, b_hh, padding_idx: as there.
        ids: (T, B), or (B, T) where batch_first, int64 on the CPU, each in ``0 .. V - 1`` up to its row's length.
        lengths: (B,) int64 on the CPU, each in ``1 .. T``; None: all T.
        batch_first: the form of ids and output.
        need_output: False leaves the output where it is, in packed order: it is not to be looked at then.

    Returns:
        output (T, B, H), or (B, T, H), zero past the lengths; h_n and c_n (1, B, H).

    Raises:
        RuntimeError: a shape, dtype, device, id or length that does not fit; the message names the argument.
    """
    return EmbeddingLstm.apply(table, w_ih, w_hh, b_ih, b_hh, padding_idx, ids, None, lengths, batch_first, need_output)


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
            return LstmWithCells.apply(gates, index, batch_sizes, w_hh, h0, c0, w_hr)
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
        return GatherRows.apply(table, rows, no_grad)
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
        return ScatterRows.apply(values, rows, count, -1)
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
