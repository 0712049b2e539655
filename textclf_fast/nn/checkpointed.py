"""A layer whose training forward keeps h and c at every k-th step alone; its backward computes the rest again.

What a training step keeps of a layer, in numbers a position and direction, on float input: the gates' input half 4H,
their activations 4H, c and h H each: 10H, and the backward makes 4H more, the gates' gradients. In segments of k steps
only h, as the layer's output, is kept for every position; h and c at the start of each of T / k segments are 2H / k a
position, and of everything else there is one segment at a time, k B positions of 13H. At T = 1024 and k = 32 that is
H (1 + 2 / 32 + 13 * 32 / 1024), 1.5H instead of 14H. k = sqrt(2 T / 13) needs least, 13 at T = 1024 and 1.3H, but it is
flat there, and segments cost calls: k B should be some 128 positions or more, a chunk of the backward.

The price is one more forward, and the projection of float input once more: of the three products that a step costs,
forward, gradients of the gates and of W_hh, one is done twice: 4 / 3 of the work of a training step.

Measured, peak of a training step in MiB by benchmarks/memory_step.py's means, I = 128, H = 256, B = 32, float32, one
thread (nn.LSTM, without checkpoints, k = 8, 16, 32, 64):
T = 256, one layer: 131, 121, 15, 18, 24, 42; two layers, bidirectional: 385, 412, 75, 74, 80, 99;
T = 1024, one layer: 511, 481, 44, 41, 43, 56; two layers, bidirectional: 1506, 1612, 241, 232, 231, not measured.

With an index, as in FusedEmbeddingLSTM's first layer, the gates are rows of a table that stays as it is, and 6H of
activations, c and h are what is saved.

Source of the method: T. Chen, B. Xu, C. Zhang and C. Guestrin, Training Deep Nets with Sublinear Memory Cost, 2016;
for recurrent networks A. Gruslys et al., Memory-Efficient Backpropagation Through Time, 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from textclf_fast import ops
from textclf_fast.nn.stepwise import DirectionWeights


def lstm_checkpointed(
    rows: Tensor,
    index: Tensor | None,
    batch_sizes: Tensor,
    weights: list[DirectionWeights],
    h0: Tensor,
    c0: Tensor,
    every: int,
    need_cells: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A layer with the results of :func:`textclf_fast.ops.lstm_with_cells`, and its gradients, up to rounding.

    Up to rounding, since sums over positions are cut at other places, the reverse direction's run the other way, and
    one or two rows of W_hh's product are summed forwards and backwards in turns, counted from a segment's start; in
    bfloat16 the weights' gradients are rounded once a segment, and added up in float32. Gradients that are to be
    differentiated again (``create_graph=True``) are computed without checkpoints.

    Args:
        rows: (R, I), the layer's input.
        index: (N,) the row that each position reads; or None where R is N: projection is done in segments, too, then.
        batch_sizes: (T,) int64 on the CPU, rows alive at each step.
        weights: of each direction, without norms.
        h0: (D, B, P) in packed order; P is H where h is not projected.
        c0: (D, B, H).
        every: k, steps in a segment.
        need_cells: whether the cell states are wanted.

    Returns:
        output (N, D * P), h_n (D, B, P), c_n (D, B, H), and cells (D, N, H), or (D, 0, H) where they are not wanted.
    """
    results = []
    for d, own in enumerate(weights):
        segments = _segments(batch_sizes, every, reverse=d == 1)
        table = None if index is None else _project(rows, own.w_ih, own.bias)
        inputs = [rows, own.w_ih, own.bias] if table is None else [table, None, None]
        inputs += own.w_hh, own.w_hr, h0[d], c0[d]
        results.append(_Checkpointed.apply(*inputs, index, batch_sizes, segments, need_cells))
    outputs, *states = zip(*results, strict=True)
    output = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
    h_n, c_n, cells = (torch.stack(parts) for parts in states)
    return output, h_n, c_n, cells


class _Segment(NamedTuple):
    """Some steps of the packed layout, as a layout of their own.

    The reverse direction is the forward one on rows that are turned round, each from its last step in the segment on:
    the layout is the same, as each keeps its length. ``turned`` (n,) is the position that each position becomes then,
    and the way back.
    """

    batch_sizes: Tensor
    first: int  # position
    end: int
    rows: int  # alive in its first step
    turned: Tensor | None

    def turn(self, positions: Tensor) -> Tensor:
        """(n, ...) in the order of the walk, or back."""
        return positions if self.turned is None else positions.index_select(0, self.turned)


def _segments(batch_sizes: Tensor, every: int, reverse: bool) -> list[_Segment]:
    """In the order in which the direction walks them."""
    segments, first = [], 0
    for sizes in batch_sizes.split(every):
        end, rows = first + int(sizes.sum()), int(sizes[0])
        turned = _turned(sizes, rows) if reverse else None
        segments.append(_Segment(sizes, first, end, rows, turned))
        first = end
    return segments[::-1] if reverse else segments


def _turned(sizes: Tensor, rows: int) -> Tensor:
    row = torch.arange(rows)
    alive = sizes.unsqueeze(1) > row  # (steps, rows): the true ones are the positions, in order
    step = torch.arange(sizes.numel()).unsqueeze(1)
    mirrored = (alive.sum(0) - 1 - step).clamp_min_(0)
    offsets = sizes.cumsum(0) - sizes
    return (offsets[mirrored] + row)[alive]


def _project(rows: Tensor, w_ih: Tensor, bias: Tensor | None) -> Tensor:
    dtype = ops.gates_dtype(w_ih.dtype)
    return functional.linear(rows.to(dtype), w_ih.to(dtype), None if bias is None else bias.to(dtype))


def _part(rows: Tensor, segment: _Segment, index: Tensor | None) -> Tensor:
    """What a segment reads of the layer's rows, or of their gradient: a view."""
    return rows if index is not None else rows[segment.first : segment.end]


def _run(
    segment: _Segment,
    index: Tensor | None,
    rows: Tensor,
    w_ih: Tensor | None,
    bias: Tensor | None,
    w_hh: Tensor,
    w_hr: Tensor | None,
    h: Tensor,
    c: Tensor,
    panels: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """output (n, P) and cells (n, H) in the order of the walk, h (rows, P) and c (rows, H) after it."""
    gates = rows if w_ih is None else _project(rows, w_ih, bias)
    own_index = segment.turned if index is None else segment.turn(index[segment.first : segment.end])
    gates, w_hh, h, c = gates.unsqueeze(0), w_hh.unsqueeze(0), h.unsqueeze(0), c.unsqueeze(0)
    output, h_n, c_n, cells = ops.lstm_with_cells(
        gates, own_index, segment.batch_sizes, w_hh, h, c, panels, _one_direction(w_hr)
    )
    return output, h_n[0], c_n[0], cells[0]


def _one_direction(w_hr: Tensor | None) -> Tensor | None:
    return None if w_hr is None else w_hr.unsqueeze(0)


class _Checkpointed(torch.autograd.Function):
    """One direction: rows (N, I) and their weights, or (R, 4H) gates and an index; w_hh (4H, P); w_hr (P, H) or None.

    h0 (B, P), c0 (B, H).
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        w_ih: Tensor | None,
        bias: Tensor | None,
        w_hh: Tensor,
        w_hr: Tensor | None,
        h0: Tensor,
        c0: Tensor,
        index: Tensor | None,
        batch_sizes: Tensor,
        segments: list[_Segment],
        need_cells: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        positions = max(s.end for s in segments)
        output = h0.new_empty(positions, h0.size(1))
        cells = h0.new_empty(positions if need_cells else 0, c0.size(1))
        h, c = h0.clone(), c0.clone()
        panels = ops.pack_recurrent(w_hh.unsqueeze(0), _one_direction(w_hr))
        kept: list[Tensor] = []  # h and c at the start of each segment
        for s in segments:
            kept += h[: s.rows].clone(), c[: s.rows].clone()
            found = _run(s, index, _part(rows, s, index), w_ih, bias, w_hh, w_hr, kept[-2], kept[-1], panels)
            output[s.first : s.end], h[: s.rows], c[: s.rows] = s.turn(found[0]), found[1], found[2]
            if need_cells:
                cells[s.first : s.end] = s.turn(found[3])
        ctx.save_for_backward(rows, w_ih, bias, w_hh, w_hr, h0, c0, index, batch_sizes, *kept)
        ctx.segments = segments
        ctx.set_materialize_grads(False)
        return output, h, c, cells

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        *inputs, index, batch_sizes = ctx.saved_tensors[:9]
        needed = ctx.needs_input_grad[:7]
        if torch.is_grad_enabled():  # create_graph=True: these gradients will be differentiated in turn
            (whole,) = _segments(batch_sizes, batch_sizes.numel(), ctx.segments[0].turned is not None)
            output, h_n, c_n, cells = _run(whole, index, *inputs)
            results = whole.turn(output), h_n, c_n, whole.turn(cells)
            return *_gradients(results, inputs, needed, grads, create_graph=True), None, None, None, None
        kept = list(ctx.saved_tensors[9:])
        rows, w_ih, bias, w_hh, w_hr, h0, c0 = inputs
        sums = [
            torch.zeros_like(t, dtype=ops.gates_dtype(t.dtype)) if t is not None and need else None
            for t, need in zip((rows, w_ih, bias, w_hh, w_hr), needed, strict=False)
        ]
        grad_output, grad_h_n, grad_c_n, grad_cells = grads
        grad_h = torch.zeros_like(h0) if grad_h_n is None else grad_h_n.clone()
        grad_c = torch.zeros_like(c0) if grad_c_n is None else grad_c_n.clone()
        for s in reversed(ctx.segments):
            c, h = kept.pop(), kept.pop()
            own_needed = [*(total is not None for total in sums), True, True]
            own: list[Any] = [
                None if t is None else t.detach().requires_grad_(need)
                for t, need in zip((_part(rows, s, index), w_ih, bias, w_hh, w_hr, h, c), own_needed, strict=True)
            ]
            with torch.enable_grad():
                results = _run(s, index, *own)
            own_grads = (
                None if grad_output is None else s.turn(grad_output[s.first : s.end]),
                grad_h[: s.rows],
                grad_c[: s.rows],
                None if grad_cells is None else s.turn(grad_cells[s.first : s.end]),
            )
            found = _gradients(results, own, own_needed, own_grads)
            grad_h[: s.rows], grad_c[: s.rows] = found[-2:]
            for i, total in enumerate(sums):
                if total is not None:
                    part = _part(total, s, index) if i == 0 else total
                    part += found[i]
        given = [None if t is None else t.to(like.dtype) for t, like in zip(sums, inputs, strict=False)]
        return *given, grad_h, grad_c, None, None, None, None


def _gradients(
    results: Sequence[Tensor],
    inputs: Sequence[Any],
    needed: Sequence[bool],
    grads: Sequence[Tensor | None],
    create_graph: bool = False,
) -> list[Any]:
    """Of each input, None where it is not needed."""
    used = [(result, grad) for result, grad in zip(results, grads, strict=True) if grad is not None]
    outputs, output_grads = zip(*used, strict=True) if used else ((), ())
    wanted = [t for t, need in zip(inputs, needed, strict=True) if need]
    found = iter(torch.autograd.grad(outputs, wanted, output_grads, create_graph=create_graph, allow_unused=True))
    return [next(found) if need else None for need in needed]
