"""LSTM layers step by step in plain PyTorch: for the options that change what a step does.

A loop over the packed layout, with a dozen PyTorch calls a step: many times slower than the kernels, on any device, in
any dtype, under every transform, and differentiable any number of times.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from textclf_fast.reference import gates_dtype


class LayerNorms(NamedTuple):
    """The gains of a normalised layer, one direction's, and the bias of its c: (4H,), (4H,), (H,), (H,)."""

    ih: Tensor
    hh: Tensor
    cell: Tensor
    cell_bias: Tensor


class DirectionWeights(NamedTuple):
    """One direction of a layer.

    Attributes:
        w_ih: (4H, I).
        w_hh: (4H, P).
        bias: (4H,), the sum of both, or None.
        w_hr: (P, H) where there is a projection.
        norms: where the layer is normalised.
    """

    w_ih: Tensor
    w_hh: Tensor
    bias: Tensor | None = None
    w_hr: Tensor | None = None
    norms: LayerNorms | None = None


class StepOptions(NamedTuple):
    """What :class:`textclf_fast.nn.options.LSTMOptions` says about steps, and whether this is training."""

    recurrent_dropout: float = 0.0
    zoneout_h: float = 0.0
    zoneout_c: float = 0.0
    training: bool = True


class _Results(NamedTuple):
    output: Tensor  # (N, P)
    h_n: Tensor  # (B, P)
    c_n: Tensor  # (B, H)
    cells: Tensor  # (N, H)


def lstm_stepwise(
    rows: Tensor,
    index: Tensor | None,
    batch_sizes: Tensor,
    weights: list[DirectionWeights],
    h0: Tensor,
    c0: Tensor,
    options: StepOptions,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A layer in the packed layout, of any step.

    Args:
        rows: (R, I), the layer's input.
        index: (N,) the row that each position reads, or None where R is N.
        batch_sizes: (T,) int64 on the CPU, rows alive at each step.
        weights: of each direction.
        h0: (D, B, P) in packed order.
        c0: (D, B, H).
        options: what a step does.

    Returns:
        output (N, D * P), h_n (D, B, P), c_n (D, B, H) and cells (D, N, H), of the dtype of the weights; bfloat16 is
        computed in float32.
    """
    sizes = batch_sizes.tolist()
    results = []
    for d, own in enumerate(weights):
        order = range(len(sizes)) if d == 0 else range(len(sizes) - 1, -1, -1)
        results.append(_walk(rows, index, sizes, order, own, h0[d], c0[d], options))
    dtype = weights[0].w_hh.dtype
    return (
        torch.cat([r.output for r in results], dim=1).to(dtype),
        torch.stack([r.h_n for r in results]).to(dtype),
        torch.stack([r.c_n for r in results]).to(dtype),
        torch.stack([r.cells for r in results]).to(dtype),
    )


def _walk(
    rows: Tensor,
    index: Tensor | None,
    sizes: list[int],
    order: range,
    weights: DirectionWeights,
    h0: Tensor,
    c0: Tensor,
    options: StepOptions,
) -> _Results:
    """One direction. h and c hold the rows that are alive: they lose some at the end, or gain some from h0 and c0."""
    dtype = gates_dtype(weights.w_hh.dtype)
    weights, h0, c0 = _in_dtype(weights, dtype), h0.to(dtype), c0.to(dtype)
    gates = _project(rows.to(dtype), weights)
    inputs = (gates if index is None else gates.index_select(0, index)).split(sizes)
    h, c = h0[: sizes[order[0]]], c0[: sizes[order[0]]]
    outputs, cells = [h] * len(sizes), [c] * len(sizes)
    ended: list[tuple[Tensor, Tensor]] = []
    for t in order:
        alive, before = sizes[t], h.size(0)
        if alive < before:
            ended.append((h[alive:], c[alive:]))
            h, c = h[:alive], c[:alive]
        elif alive > before:
            h, c = torch.cat([h, h0[before:alive]]), torch.cat([c, c0[before:alive]])
        h, c = _step(inputs[t], h, c, weights, options)
        outputs[t], cells[t] = h, c
    ended.append((h, c))
    h_n, c_n = (torch.cat(parts) for parts in zip(*reversed(ended), strict=True))
    return _Results(torch.cat(outputs), h_n, c_n, torch.cat(cells))


def _in_dtype(weights: DirectionWeights, dtype: torch.dtype) -> DirectionWeights:
    def cast(t: Tensor | None) -> Tensor | None:
        return None if t is None else t.to(dtype)

    w_ih, w_hh, bias, w_hr, norms = weights
    if norms is not None:
        norms = LayerNorms(*(t.to(dtype) for t in norms))
    return DirectionWeights(w_ih.to(dtype), w_hh.to(dtype), cast(bias), cast(w_hr), norms)


def _project(rows: Tensor, weights: DirectionWeights) -> Tensor:
    """The input half of the gates, (R, 4H), and the bias."""
    if weights.norms is None:
        return functional.linear(rows, weights.w_ih, weights.bias)
    gates = functional.layer_norm(functional.linear(rows, weights.w_ih), weights.norms.ih.shape, weights.norms.ih)
    return gates if weights.bias is None else gates + weights.bias


def _step(
    gates: Tensor, h: Tensor, c: Tensor, weights: DirectionWeights, options: StepOptions
) -> tuple[Tensor, Tensor]:
    """h and c of the rows that are alive, one step on."""
    norms, training = weights.norms, options.training
    recurrent = functional.linear(h, weights.w_hh)
    if norms is not None:
        recurrent = functional.layer_norm(recurrent, norms.hh.shape, norms.hh)
    i, f, g, o = (gates + recurrent).chunk(4, dim=1)
    g = g.tanh()
    if options.recurrent_dropout:
        g = functional.dropout(g, options.recurrent_dropout, training)
    new_c = f.sigmoid() * c + i.sigmoid() * g
    shown = new_c if norms is None else functional.layer_norm(new_c, norms.cell.shape, norms.cell, norms.cell_bias)
    new_h = o.sigmoid() * shown.tanh()
    if weights.w_hr is not None:
        new_h = functional.linear(new_h, weights.w_hr)
    return _zone_out(h, new_h, options.zoneout_h, training), _zone_out(c, new_c, options.zoneout_c, training)


def _zone_out(old: Tensor, new: Tensor, rate: float, training: bool) -> Tensor:
    """The old value with this probability, else the new one; in evaluation what is to be expected."""
    if not rate:
        return new
    if not training:
        return torch.lerp(new, old, rate)
    return torch.where(torch.rand_like(new) < rate, old, new)
