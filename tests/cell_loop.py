"""LSTM layers as a loop over nn.LSTMCell's equations, a row at a time: what options are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

Mix = Callable[[int, int, int, int, Tensor, Tensor], Tensor]  # layer, direction, row, t, old and new


@dataclass
class Changes:
    """What an option does to a plain LSTM; by default nothing."""

    w_hh: Callable[[str, Tensor], Tensor] = lambda name, w: w
    layer_input: Callable[[int, int, Tensor], Tensor] = lambda layer, row, x: x  # of (t, I)
    candidate: Callable[[int, int, int, int, Tensor], Tensor] = lambda layer, direction, row, t, g: g
    mix_h: Mix = lambda layer, direction, row, t, old, new: new
    mix_c: Mix = lambda layer, direction, row, t, old, new: new
    norms: bool = False


def run_loop(
    lstm: nn.LSTM,
    x: Tensor,
    lengths: list[int],
    hx: tuple[Tensor, Tensor] | None = None,
    changes: Changes | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
    """(T, B, I) -> output, (h_n, c_n) and the last layer's cell states; zero past the lengths."""
    changes = changes or Changes()
    D, L, H = 1 + lstm.bidirectional, lstm.num_layers, lstm.hidden_size
    if hx is None:
        hx = x.new_zeros(L * D, x.size(1), lstm.proj_size or H), x.new_zeros(L * D, x.size(1), H)
    rows, finals = [], []
    for b, length in enumerate(lengths):
        inputs, states = x[:length, b], []
        for layer in range(L):
            inputs = changes.layer_input(layer, b, inputs)
            walked = []
            for d in range(D):
                h, c = (state[layer * D + d, b] for state in hx)
                walked.append(_walk(lstm, changes, (layer, d, b), inputs, h, c))
            inputs = torch.cat([hs for hs, _, _ in walked], 1)
            cells = torch.cat([cs for _, cs, _ in walked], 1)
            states += [final for _, _, final in walked]
        padding = (0, 0, 0, x.size(0) - length)
        rows.append((functional.pad(inputs, padding), functional.pad(cells, padding)))
        finals.append(states)
    output, cells = (torch.stack(parts, 1) for parts in zip(*rows, strict=True))
    h_n, c_n = (torch.stack([torch.stack([s[k] for s in states]) for states in finals], 1) for k in range(2))
    return output, (h_n, c_n), cells


def _walk(
    lstm: nn.LSTM, changes: Changes, place: tuple[int, int, int], inputs: Tensor, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """One direction of a layer on one row."""
    layer, direction, _ = place
    suffix = f"_l{layer}{'_reverse' if direction else ''}"

    def weight(kind: str) -> Tensor:
        return getattr(lstm, kind + suffix)

    def normed(value: Tensor, kind: str) -> Tensor:
        if not changes.norms:
            return value
        return (value - value.mean()) / (value.var(unbiased=False) + 1e-5).sqrt() * weight(kind)

    w_hh = changes.w_hh(f"weight_hh{suffix}", weight("weight_hh"))
    hs, cs = [h] * len(inputs), [c] * len(inputs)
    for t in range(len(inputs)) if direction == 0 else range(len(inputs) - 1, -1, -1):
        gates = normed(weight("weight_ih") @ inputs[t], "norm_ih") + normed(w_hh @ h, "norm_hh")
        if lstm.bias:
            gates = gates + weight("bias_ih") + weight("bias_hh")
        i, f, g, o = gates.chunk(4)
        new_c = f.sigmoid() * c + i.sigmoid() * changes.candidate(*place, t, g.tanh())
        shown = normed(new_c, "norm_cell") + weight("norm_cell_bias") if changes.norms else new_c
        new_h = o.sigmoid() * shown.tanh()
        if lstm.proj_size:
            new_h = weight("weight_hr") @ new_h
        h, c = changes.mix_h(*place, t, h, new_h), changes.mix_c(*place, t, c, new_c)
        hs[t], cs[t] = h, c
    return torch.stack(hs), torch.stack(cs), (h, c)
