"""The ops in plain PyTorch: short enough to believe at a glance, differentiable any number of times, slow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional


def gates_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of a layer's gates: its own, but float32 for those of 16 bits."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def lstm_reference(
    gates: Tensor,
    index: Tensor | None,
    batch_sizes: Tensor,
    w_hh: Tensor,
    h0: Tensor,
    c0: Tensor,
    w_hr: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`textclf_fast.ops.lstm` computes; same arguments and results."""
    return lstm_cells_reference(gates, index, batch_sizes, w_hh, h0, c0, w_hr)[:3]


def lstm_layer_reference(
    x: Tensor,
    index: Tensor | None,
    batch_sizes: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    bias: Tensor | None,
    h0: Tensor,
    c0: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`textclf_fast.ops.lstm_layer` computes; same arguments and results."""
    dtype = gates_dtype(x.dtype)
    gates = x.to(dtype) @ w_ih.to(dtype).transpose(1, 2)
    gates = gates if bias is None else gates + bias.unsqueeze(1)
    return lstm_reference(gates, index, batch_sizes, w_hh, h0, c0)


def embedding_lstm_reference(
    table: Tensor,
    tokens: Tensor,
    index: Tensor,
    batch_sizes: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
    padding_idx: int,
    output_shape: torch.Size | None = None,
    positions: Tensor | None = None,
    order: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`textclf_fast.ops.embedding_lstm` computes of the ids ``tokens[index]``; same results.

    With the last three, those that embedding_lstm_padded_training gives out, what
    :func:`textclf_fast.ops.embedding_lstm_padded` does.
    """
    bias = None if b_ih is None or b_hh is None else (b_ih + b_hh).unsqueeze(0)
    zeros = w_hh.new_zeros(1, int(batch_sizes[0]), w_hh.size(1))
    x = gather_rows_reference(table, tokens, padding_idx)
    output, h_n, c_n = lstm_layer_reference(
        x, index, batch_sizes, w_ih.unsqueeze(0), w_hh.unsqueeze(0), bias, zeros, zeros
    )
    if positions is not None and positions.numel():
        assert output_shape is not None
        output = output.new_zeros(output_shape.numel() // output.size(1), output.size(1)).index_copy(
            0, positions, output
        )
    if order is not None and order.numel():
        place = order.argsort()
        h_n, c_n = h_n[:, place], c_n[:, place]
    return output if output_shape is None else output.view(output_shape), h_n, c_n


def lstm_cells_reference(
    gates: Tensor,
    index: Tensor | None,
    batch_sizes: Tensor,
    w_hh: Tensor,
    h0: Tensor,
    c0: Tensor,
    w_hr: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What :func:`textclf_fast.ops.lstm_with_cells` computes; same arguments and results."""
    dtype = w_hh.dtype
    w_hh, h0, c0 = w_hh.to(gates.dtype), h0.to(gates.dtype), c0.to(gates.dtype)  # bfloat16 is computed in float32
    products: list[Callable[[Tensor], Tensor]] = [partial(functional.linear, weight=w) for w in w_hh]
    projections: list[Callable[[Tensor], Tensor]] = [_as_it_is] * len(w_hh)
    if w_hr is not None:
        projections = [partial(functional.linear, weight=w) for w in w_hr.to(gates.dtype)]
    results = _walk(gates, index, batch_sizes, products, projections, h0, c0)
    return results[0].to(dtype), results[1].to(dtype), results[2].to(dtype), results[3].to(dtype)


def gather_rows_reference(table: Tensor, rows: Tensor, no_grad: int) -> Tensor:
    """What :func:`textclf_fast.ops.gather_rows` computes; same arguments and result."""
    return functional.embedding(rows, table, no_grad if no_grad >= 0 else None)


def scatter_rows_reference(grad: Tensor, rows: Tensor, size: int, no_grad: int) -> Tensor:
    """The gradient of the table of :func:`gather_rows_reference`: (U, E) -> (size, E)."""
    kept = grad.masked_fill((rows == no_grad).unsqueeze(1), 0)
    return grad.new_zeros(size, grad.size(1)).index_add(0, rows, kept)


def lstm_int8_reference(
    gates: Tensor, index: Tensor | None, batch_sizes: Tensor, w_hh: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`textclf_fast.int8.lstm_int8_inference` computes, from w_hh (D, 4H, H) itself, in float64."""

    def product(w: Tensor) -> Callable[[Tensor], Tensor]:
        largest = w.abs().amax(1)
        numbers = (w * (127 / largest.unsqueeze(1))).round().nan_to_num()  # a row of zeros is 0 / 0
        scales = (largest / 127**2).float().double()
        return lambda h: (h * 127).round() @ numbers.T * scales

    zeros = torch.zeros(w_hh.size(0), int(batch_sizes[0]), w_hh.size(2), dtype=torch.float64)
    products = [product(w) for w in w_hh.double()]
    return _walk(gates.double(), index, batch_sizes, products, [_as_it_is] * len(products), zeros, zeros)[:3]


def _as_it_is(m: Tensor) -> Tensor:
    return m


def _walk(
    gates: Tensor,
    index: Tensor | None,
    batch_sizes: Tensor,
    products: list[Callable[[Tensor], Tensor]],
    projections: list[Callable[[Tensor], Tensor]],
    h0: Tensor,
    c0: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The layer, with each direction's product of h and W_hh, (rows, P) -> (rows, 4H), and (rows, H) -> (rows, P)."""
    sizes = batch_sizes.tolist()
    outputs, states_h, states_c, cells = [], [], [], []
    for direction, (product, projection) in enumerate(zip(products, projections, strict=True)):
        rows = gates[direction] if index is None else gates[direction, index]
        inputs = list(rows.split(sizes))
        h, c = h0[direction], c0[direction]
        steps, step_cells = [h] * len(sizes), [c] * len(sizes)
        order = range(len(sizes)) if direction == 0 else range(len(sizes) - 1, -1, -1)
        for t in order:
            alive = sizes[t]
            i, f, g, o = (inputs[t] + product(h[:alive])).chunk(4, dim=1)
            new_c = f.sigmoid() * c[:alive] + i.sigmoid() * g.tanh()
            new_h = projection(o.sigmoid() * new_c.tanh())
            h, c = torch.cat([new_h, h[alive:]]), torch.cat([new_c, c[alive:]])
            steps[t], step_cells[t] = new_h, new_c
        outputs.append(torch.cat(steps))
        states_h.append(h)
        states_c.append(c)
        cells.append(torch.cat(step_cells))
    return torch.cat(outputs, dim=1), torch.stack(states_h), torch.stack(states_c), torch.stack(cells)


def layout_in_place_reference(
    lengths: Tensor, steps: int, step_stride: int, row_stride: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What :func:`textclf_fast.ops.layout_in_place` computes; same arguments and results."""
    rows, total, device = lengths.size(0), lengths.size(0) * steps, lengths.device
    row, step = torch.arange(rows, device=device), torch.arange(steps, device=device).unsqueeze(1)
    own, order = lengths.clamp(1, steps).sort(descending=True, stable=True)
    inverse = torch.empty_like(order).scatter_(0, order, row)
    alive = own > step  # (T, B), rows in packed order, as what follows
    batch_sizes = alive.sum(1)
    position = (batch_sizes.cumsum(0) - batch_sizes).unsqueeze(1) + row
    place = step * step_stride + order * row_stride
    given = lengths.index_select(0, order)
    known = torch.where((given >= 1) & (given <= steps), place, -1)
    # What is not alive goes to one more position, which is cut off.
    positions = lengths.new_full((total + 1,), -1)
    positions.scatter_(0, torch.where(alive, position, total).flatten(), torch.where(alive, known, -1).flatten())
    positions = positions.narrow(0, 0, total)
    places = torch.empty_like(positions).scatter_(0, place.flatten(), torch.where(alive, position, -1).flatten())
    return positions, places, batch_sizes, order, inverse
