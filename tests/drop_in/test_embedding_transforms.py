"""Derivatives of every other kind, of FusedEmbeddingLSTM: torch.func and forward mode, over weights and over ids."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap

from textclf_fast import FusedEmbeddingLSTM

T, B, E, H, V = 3, 2, 2, 3, 7
LENGTHS = torch.tensor([2, 3])


class Pair(nn.Module):
    """nn.Embedding and nn.LSTM as usual, packed where there are lengths."""

    def __init__(self, fused: FusedEmbeddingLSTM) -> None:
        super().__init__()
        self.embedding, own = fused.embedding, fused.lstm
        self.lstm = nn.LSTM(E, H, own.num_layers, bidirectional=own.bidirectional, dtype=own.weight_hh_l0.dtype)
        self.lstm.load_state_dict(own.state_dict())

    def forward(self, ids: Tensor, lengths: Tensor | None = None) -> Any:
        if lengths is None:
            return self.lstm(self.embedding(ids))
        packed = nn.utils.rnn.pack_padded_sequence(self.embedding(ids), lengths, enforce_sorted=False)
        output, states = self.lstm(packed)
        return nn.utils.rnn.pad_packed_sequence(output)[0], states


@pytest.mark.compat(
    "transforms", "of FusedEmbeddingLSTM, over weights and over ids", nn_lstm="nn.Embedding and nn.LSTM: some"
)
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=str)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "padding_idx": 2}], ids=str)
@pytest.mark.parametrize("inference", [False, True])
def test_embedding_lstm(lengths: Tensor | None, options: dict[str, Any], inference: bool) -> None:
    fused = FusedEmbeddingLSTM(V, E, H, **options, dtype=torch.float64)
    if inference:
        with torch.no_grad():
            fused.prepare_inference()  # what is kept must not be used
    plain = Pair(fused)
    ids = torch.tensor([[2, 4], [0, 6], [4, 2]])
    weights = {name: p.detach() for name, p in fused.named_parameters()}
    directions = {name: torch.randn_like(w) for name, w in weights.items()}

    def run(weights: dict[str, Tensor], ids: Tensor, module: nn.Module = fused) -> Tensor:
        return functional_call(module, weights, (ids, lengths))[0]

    def loss(weights: dict[str, Tensor], ids: Tensor) -> Tensor:
        return run(weights, ids).square().sum()

    def check(got: dict[str, Tensor], ids: Tensor) -> None:
        plain.zero_grad()
        run(dict(plain.named_parameters()), ids, plain).square().sum().backward()
        for name, p in plain.named_parameters():
            torch.testing.assert_close(got[name], p.grad)

    check(grad(loss)(weights, ids), ids)
    many = torch.stack([ids, ids.flip(0), (ids + 1) % V])
    for b, gradients in enumerate(zip(*vmap(grad(loss), in_dims=(None, 0))(weights, many).values(), strict=True)):
        check(dict(zip(weights, gradients, strict=True)), many[b])
    with torch.no_grad():
        want = torch.stack([run(weights, one, plain) for one in many])
    torch.testing.assert_close(vmap(run, in_dims=(None, 0))(weights, many), want)
    with torch.no_grad():
        torch.testing.assert_close(vmap(run, in_dims=(None, 0))(weights, many), want)
    step = 1e-6
    moved = [{n: w + s * step * directions[n] for n, w in weights.items()} for s in (1, -1)]
    with torch.no_grad():
        slope = (run(moved[0], ids, plain) - run(moved[1], ids, plain)) / (2 * step)
    tangent = jvp(lambda w: run(w, ids), (weights,), (directions,))[1]
    torch.testing.assert_close(tangent, slope, rtol=1e-6, atol=1e-8)


@pytest.mark.compat("transforms", "a backward of FusedEmbeddingLSTM keeps the tangents that it is given")
def test_embedding_lstm_backward_transformed() -> None:
    fused = FusedEmbeddingLSTM(V, E, H, dtype=torch.float64, padding_idx=2)
    output = fused(torch.tensor([[2, 4], [0, 6], [4, 2]]))[0]
    t, parameters = torch.randn_like(output), list(fused.parameters())
    want = torch.autograd.grad(output, parameters, t, retain_graph=True)
    with forward_ad.dual_level():
        found = torch.autograd.grad(output, parameters, forward_ad.make_dual(output.detach(), t))
        for a, b in zip(found, want, strict=True):
            torch.testing.assert_close(forward_ad.unpack_dual(a).tangent, b)
