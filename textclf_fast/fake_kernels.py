"""Fake kernels of the ops, shapes and dtypes alone: what torch.compile, export and the meta device run.

The schemas are in csrc/ops.cpp; letters as in ops.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from textclf_fast import _libraries
from textclf_fast.reference import gates_dtype

_libraries.load()


@torch.library.register_fake("textclf_fast::lstm_inference")
def _(
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
    positions = (gates.size(1) if index is None else index.size(0)) if need_output else 0
    directions, width = w_hh.size(0), w_hh.size(2)
    return w_hh.new_empty(positions, directions * width), w_hh.new_empty(h0.shape), w_hh.new_empty(c0.shape)


@torch.library.register_fake("textclf_fast::lstm_cells_inference")
def _(
    gates: Tensor,
    index: Tensor | None,
    batch_sizes: Tensor,
    w_hh: Tensor,
    h0: Tensor,
    c0: Tensor,
    panels: Tensor | None = None,
    w_hr: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    positions = gates.size(1) if index is None else index.size(0)
    directions, hidden, width = w_hh.size(0), w_hh.size(1) // 4, w_hh.size(2)
    return (
        w_hh.new_empty(positions, directions * width),
        w_hh.new_empty(h0.shape),
        w_hh.new_empty(c0.shape),
        w_hh.new_empty(directions, positions, hidden),
    )


@torch.library.register_fake("textclf_fast::embedding_lstm_inference")
def _(
    table: Tensor,
    ids: Tensor,
    lengths: Tensor | None,
    batch_first: bool,
    w_hh: Tensor,
    panels: Tensor | None,
    need_output: bool,
    w_hr: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    directions, width, rows = w_hh.size(0), w_hh.size(2), ids.size(0 if batch_first else 1)
    output = w_hh.new_empty((*ids.shape, directions * width) if need_output else 0)
    return output, w_hh.new_empty(directions, rows, width), w_hh.new_empty(directions, rows, table.size(2) // 4)


@torch.library.register_fake("textclf_fast::lstm_training")
def _(
    gates: Tensor,
    index: Tensor | None,
    batch_sizes: Tensor,
    w_hh: Tensor,
    h0: Tensor,
    c0: Tensor,
    w_hr: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    positions = gates.size(1) if index is None else index.size(0)
    directions, hidden, width = w_hh.size(0), w_hh.size(1) // 4, w_hh.size(2)
    return (
        w_hh.new_empty(positions, directions * width),
        w_hh.new_empty(h0.shape),
        w_hh.new_empty(c0.shape),
        w_hh.new_empty(directions, positions, 4 * hidden),
        w_hh.new_empty(directions, positions, hidden),
    )


@torch.library.register_fake("textclf_fast::lstm_backward")
def _(
    grad_output: Tensor | None,
    grad_h_n: Tensor | None,
    grad_c_n: Tensor | None,
    activations: Tensor,
    cells: Tensor,
    output: Tensor,
    index: Tensor | None,
    gate_rows: int,
    batch_sizes: Tensor,
    w_hh: Tensor,
    h0: Tensor,
    c0: Tensor,
    need_w_hh: bool,
    grad_cells: Tensor | None = None,
    w_hr: Tensor | None = None,
    need_w_hr: bool = False,
    need_gates: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    gates = (activations.size(0), gate_rows, activations.size(2)) if need_gates else (0,)
    return (
        activations.new_empty(gates, dtype=gates_dtype(w_hh.dtype)),
        activations.new_empty(w_hh.shape if need_w_hh else (0,)),
        activations.new_empty(h0.shape),
        activations.new_empty(c0.shape),
        activations.new_empty(w_hr.shape if w_hr is not None and need_w_hr else (0,)),
    )


@torch.library.register_fake("textclf_fast::lstm_layer_inference")
def _(
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
    positions = (x if index is None else index).size(0)
    output = x.new_empty(positions if need_output else 0, w_hh.size(0) * w_hh.size(2))
    return output, x.new_empty(h0.shape), x.new_empty(c0.shape)


@torch.library.register_fake("textclf_fast::lstm_layer_training")
def _(
    x: Tensor,
    index: Tensor | None,
    batch_sizes: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    bias: Tensor | None,
    h0: Tensor,
    c0: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    (directions, _, hidden), positions = w_hh.shape, (x if index is None else index).size(0)
    return (
        x.new_empty(positions, directions * hidden),
        x.new_empty(h0.shape),
        x.new_empty(c0.shape),
        x.new_empty(directions, positions, 4 * hidden),
        x.new_empty(directions, positions, hidden),
    )


@torch.library.register_fake("textclf_fast::lstm_layer_backward")
def _(
    grad_output: Tensor | None,
    grad_h_n: Tensor | None,
    grad_c_n: Tensor | None,
    activations: Tensor,
    cells: Tensor,
    output: Tensor,
    x: Tensor,
    index: Tensor | None,
    batch_sizes: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    h0: Tensor,
    c0: Tensor,
    need_x: bool,
    need_w_ih: bool,
    need_w_hh: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        x.new_empty((w_hh.size(0), *x.shape) if need_x else (0,)),
        x.new_empty(w_ih.shape if need_w_ih else (0,)),
        x.new_empty(w_hh.shape if need_w_hh else (0,)),
        x.new_empty(w_hh.shape[:2] if need_bias else (0,), dtype=gates_dtype(x.dtype)),
        x.new_empty(h0.shape),
        x.new_empty(c0.shape),
    )


@torch.library.register_fake("textclf_fast::embedding_lstm_training")
def _(
    table: Tensor,
    ids: Tensor,
    batch_sizes: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
) -> tuple[Tensor, ...]:
    ctx = torch.library.get_ctx()
    positions, hidden, rows, distinct = ids.size(0), w_hh.size(1), ctx.new_dynamic_size(), ctx.new_dynamic_size()
    return (
        w_hh.new_empty(positions, hidden),
        w_hh.new_empty(1, rows, hidden),  # B is batch_sizes[0]
        w_hh.new_empty(1, rows, hidden),
        w_hh.new_empty(1, positions, 4 * hidden),
        w_hh.new_empty(1, positions, hidden),
        table.new_empty(distinct, table.size(1)),
        ids.new_empty(distinct),
        ids.new_empty(positions),
    )


@torch.library.register_fake("textclf_fast::embedding_lstm_padded_training")
def _(
    table: Tensor,
    ids: Tensor,
    lengths: Tensor | None,
    batch_first: bool,
    need_output: bool,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
) -> tuple[Tensor, ...]:
    ctx = torch.library.get_ctx()
    hidden, rows, positions = w_hh.size(1), ids.size(0 if batch_first else 1), ctx.new_dynamic_size()
    distinct, steps = ctx.new_dynamic_size(), ctx.new_dynamic_size()
    return (
        w_hh.new_empty(*ids.shape, hidden) if need_output else w_hh.new_empty(positions, hidden),
        w_hh.new_empty(1, rows, hidden),
        w_hh.new_empty(1, rows, hidden),
        w_hh.new_empty(1, positions, 4 * hidden),
        w_hh.new_empty(1, positions, hidden),
        table.new_empty(distinct, table.size(1)),
        ids.new_empty(distinct),
        ids.new_empty(positions),
        ids.new_empty(steps),
        ids.new_empty(ctx.new_dynamic_size()),
        ids.new_empty(ctx.new_dynamic_size()),
        w_hh.new_empty(ctx.new_dynamic_size(), hidden),
    )


@torch.library.register_fake("textclf_fast::embedding_lstm_backward")
def _(
    grad_output: Tensor | None,
    grad_h_n: Tensor | None,
    grad_c_n: Tensor | None,
    activations: Tensor,
    cells: Tensor,
    output: Tensor,
    x: Tensor,
    tokens: Tensor,
    index: Tensor,
    batch_sizes: Tensor,
    positions: Tensor | None,
    order: Tensor | None,
    w_ih: Tensor,
    w_hh: Tensor,
    vocab_size: int,
    padding_idx: int,
    need_table: bool,
    need_w_ih: bool,
    need_w_hh: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        x.new_empty((vocab_size, x.size(1)) if need_table else (0,)),
        x.new_empty(w_ih.shape if need_w_ih else (0,)),
        x.new_empty(w_hh.shape if need_w_hh else (0,)),
        x.new_empty(w_ih.size(0) if need_bias else 0),
    )


@torch.library.register_fake("textclf_fast::pack_recurrent")
def _(w_hh: Tensor, w_hr: Tensor | None = None, w_ih: Tensor | None = None) -> Tensor:
    return w_hh.new_empty(torch.library.get_ctx().new_dynamic_size())


@torch.library.register_fake("textclf_fast::distinct_tokens")
def _(ids: Tensor, vocab_size: int) -> tuple[Tensor, Tensor]:
    distinct = torch.library.get_ctx().new_dynamic_size()
    return ids.new_empty(distinct), torch.empty_like(ids, memory_format=torch.contiguous_format)


@torch.library.register_fake("textclf_fast::gather_rows")
def _(table: Tensor, rows: Tensor, no_grad: int) -> Tensor:
    return table.new_empty(rows.size(0), table.size(1))


@torch.library.register_fake("textclf_fast::scatter_rows")
def _(values: Tensor, rows: Tensor, count: int, skip: int) -> Tensor:
    return values.new_empty(count, values.size(1))


@torch.library.register_fake("textclf_fast::new_passing")
def _(like: Tensor, size: list[int]) -> Tensor:
    return like.new_empty(size)


@torch.library.register_fake("textclf_fast::packed_layout")
def _(lengths: Tensor, steps: int, step_stride: int, row_stride: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    ctx = torch.library.get_ctx()
    positions, longest = ctx.new_dynamic_size(), ctx.new_dynamic_size()
    return (
        lengths.new_empty(positions),
        lengths.new_empty(longest),
        lengths.new_empty(lengths.size(0)),
        lengths.new_empty(lengths.size(0)),
    )


@torch.library.register_fake("textclf_fast::layout_in_place")
def _(lengths: Tensor, steps: int, step_stride: int, row_stride: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows = lengths.size(0)
    return (
        lengths.new_empty(steps * rows),
        lengths.new_empty(steps * rows),
        lengths.new_empty(steps),
        lengths.new_empty(rows),
        lengths.new_empty(rows),
    )


@torch.library.register_fake("textclf_fast::stale_rows")
def _(ids: Tensor, done: Tensor, steps: int) -> Tensor:
    return ids.new_empty(torch.library.get_ctx().new_dynamic_size())


@torch.library.register_fake("textclf_fast::adam_rows_")
def _(
    param: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    done: Tensor,
    rows: Tensor,
    grad: Tensor | None,
    history: Tensor,
    steps: int,
) -> None:
    return None


@torch.library.register_fake("textclf_fast::quantize_recurrent")
def _(w_hh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    directions, hidden = w_hh.size(0), w_hh.size(2)
    blocks, fours = (hidden + 15) // 16, (hidden + 7) // 8 * 2
    rows = (directions, blocks, 4, 16)
    return (
        w_hh.new_empty((directions, blocks, fours, 4, 16, 4), dtype=torch.int8),
        w_hh.new_empty(rows),
        w_hh.new_empty(rows, dtype=torch.int32),
    )


@torch.library.register_fake("textclf_fast::lstm_int8_inference")
def _(
    gates: Tensor,
    index: Tensor | None,
    batch_sizes: Tensor,
    numbers: Tensor,
    scales: Tensor,
    offsets: Tensor,
    need_output: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    positions = (gates.size(1) if index is None else index.size(0)) if need_output else 0
    directions, hidden = gates.size(0), gates.size(2) // 4
    state = (directions, torch.library.get_ctx().new_dynamic_size(), hidden)  # B is batch_sizes[0]
    return gates.new_empty(positions, directions * hidden), gates.new_empty(state), gates.new_empty(state)


@torch.library.register_fake("textclf_fast::embedding_lstm_int8_inference")
def _(
    table: Tensor,
    ids: Tensor,
    lengths: Tensor | None,
    batch_first: bool,
    numbers: Tensor,
    scales: Tensor,
    offsets: Tensor,
    need_output: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    directions, hidden = table.size(0), table.size(2) // 4
    state = (directions, ids.size(0 if batch_first else 1), hidden)
    output = table.new_empty((*ids.shape, directions * hidden) if need_output else 0)
    return output, table.new_empty(state), table.new_empty(state)
