"""The LSTM layer in plain PyTorch: short enough to believe at a glance, differentiable any number of times, slow."""

from __future__ import annotations

import torch
from torch import Tensor


def lstm_reference(
    gates: Tensor, index: Tensor | None, batch_sizes: Tensor, w_hh: Tensor, h0: Tensor, c0: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`textclf_fast.ops.lstm` computes; same arguments and results."""
    dtype = w_hh.dtype
    w_hh, h0, c0 = w_hh.to(gates.dtype), h0.to(gates.dtype), c0.to(gates.dtype)  # bfloat16 is computed in float32
    sizes = batch_sizes.tolist()
    outputs, states_h, states_c = [], [], []
    for direction in range(w_hh.size(0)):
        rows = gates[direction] if index is None else gates[direction, index]
        inputs = list(rows.split(sizes))
        h, c = h0[direction], c0[direction]
        steps: list[Tensor] = [h] * len(sizes)
        order = range(len(sizes)) if direction == 0 else range(len(sizes) - 1, -1, -1)
        for t in order:
            alive = sizes[t]
            i, f, g, o = (inputs[t] + h[:alive] @ w_hh[direction].T).chunk(4, dim=1)
            new_c = f.sigmoid() * c[:alive] + i.sigmoid() * g.tanh()
            new_h = o.sigmoid() * new_c.tanh()
            h, c = torch.cat([new_h, h[alive:]]), torch.cat([new_c, c[alive:]])
            steps[t] = new_h
        outputs.append(torch.cat(steps))
        states_h.append(h)
        states_c.append(c)
    return torch.cat(outputs, dim=1).to(dtype), torch.stack(states_h).to(dtype), torch.stack(states_c).to(dtype)
