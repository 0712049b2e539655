"""checkpoint_every: the same results and gradients from a few kept states."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from textclf_fast import FusedEmbeddingLSTM, FusedLSTM, ops
from textclf_fast.nn.checkpointed import lstm_checkpointed
from textclf_fast.nn.stepwise import DirectionWeights

pytestmark = pytest.mark.usefixtures("_poisoned")

INPUTS, H, P = 3, 5, 2
# Rows that end within segments, at their ends, all at once; one row; more steps than a segment has, and fewer.
BATCHES = ([5, 5, 4, 4, 2, 1, 1], [3, 3, 3, 3, 3, 3], [1, 1, 1, 1, 1], [6], [7, 3, 3, 3])
EVERY = (1, 2, 3, 100)


def _layer(
    directions: int, with_index: bool, sizes: list[int], dtype: torch.dtype = torch.float64, projected: bool = False
) -> dict[str, Any]:
    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_()

    def weights() -> DirectionWeights:
        w_ih, w_hh, bias = numbers(4 * H, INPUTS), numbers(4 * H, width), numbers(4 * H)
        return DirectionWeights(w_ih, w_hh, bias, numbers(P, H) if projected else None)

    positions, width = sum(sizes), P if projected else H
    return {
        "rows": numbers(4 if with_index else positions, INPUTS),
        "index": torch.randint(0, 4, (positions,)) if with_index else None,
        "batch_sizes": torch.tensor(sizes),
        "weights": [weights() for _ in range(directions)],
        "h0": numbers(directions, sizes[0], width),
        "c0": numbers(directions, sizes[0], H),
    }


def _leaves(a: dict[str, Any]) -> list[Tensor]:
    return [a["rows"], a["h0"], a["c0"], *(w for own in a["weights"] for w in own if w is not None)]


def _plain(a: dict[str, Any]) -> tuple[Tensor, ...]:
    rows, weights = a["rows"].to(ops.gates_dtype(a["rows"].dtype)), a["weights"]
    gates = torch.stack([rows @ own.w_ih.T.to(rows.dtype) + own.bias for own in weights])
    w_hh = torch.stack([own.w_hh for own in weights])
    w_hr = None if weights[0].w_hr is None else torch.stack([own.w_hr for own in weights])
    return ops.lstm_with_cells(gates, a["index"], a["batch_sizes"], w_hh, a["h0"], a["c0"], w_hr=w_hr)


with_and_without_projection = pytest.mark.parametrize("projected", [False, True], ids=["", "projected"])


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("with_index", [False, True])
@pytest.mark.parametrize("sizes", BATCHES, ids=str)
@with_and_without_projection
def test_results_and_gradients(isa: str, directions: int, with_index: bool, sizes: list[int], projected: bool) -> None:
    a = _layer(directions, with_index, sizes, projected=projected)
    want = _plain(a)
    grads = [torch.randn_like(t) for t in want]
    expected = torch.autograd.grad(want, _leaves(a), grads)
    for every in EVERY:
        got = lstm_checkpointed(**a, every=every, need_cells=True)
        for g, w in zip(got, want, strict=True):
            torch.testing.assert_close(g, w)
        for g, w in zip(torch.autograd.grad(got, _leaves(a), grads), expected, strict=True):
            torch.testing.assert_close(g, w)
        without_cells = lstm_checkpointed(**a, every=every)
        assert without_cells[3].numel() == 0
        for g, w in zip(without_cells[:3], got[:3], strict=True):
            assert torch.equal(g, w)


@pytest.mark.parametrize("used", range(4))
def test_one_gradient_alone(used: int) -> None:
    a = _layer(2, True, BATCHES[0])
    (want, got) = _plain(a)[used], lstm_checkpointed(**a, every=2, need_cells=True)[used]
    grad = torch.randn_like(want)
    expected = torch.autograd.grad(want, _leaves(a), grad)
    for g, w in zip(torch.autograd.grad(got, _leaves(a), grad), expected, strict=True):
        torch.testing.assert_close(g, w)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@with_and_without_projection
def test_other_dtypes(isa: str, dtype: torch.dtype, projected: bool) -> None:
    a = _layer(2, False, BATCHES[0], dtype, projected)
    want, got = _plain(a), lstm_checkpointed(**a, every=2, need_cells=True)
    grads = [torch.randn_like(t) for t in want]
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.2}
    pairs = [*zip(got, want, strict=True)]
    found = torch.autograd.grad(got, _leaves(a), grads), torch.autograd.grad(want, _leaves(a), grads)
    for g, w in [*pairs, *zip(*found, strict=True)]:
        assert g.dtype == dtype
        torch.testing.assert_close(g, w, **tolerance)


@pytest.mark.parametrize("with_index", [False, True])
@with_and_without_projection
def test_gradcheck_and_gradgradcheck(with_index: bool, projected: bool) -> None:
    a = _layer(2, with_index, BATCHES[0], projected=projected)
    each = 3 + projected

    def run(*leaves: Tensor) -> tuple[Tensor, ...]:
        weights = [DirectionWeights(*leaves[3 + each * d : 3 + each * (d + 1)]) for d in range(2)]
        return lstm_checkpointed(
            leaves[0], a["index"], a["batch_sizes"], weights, leaves[1], leaves[2], every=3, need_cells=True
        )

    assert torch.autograd.gradcheck(run, _leaves(a), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, _leaves(a), fast_mode=True)


@pytest.mark.compat(
    "options", "checkpoint_every=k: the backward computes again what the forward did not keep", nn_lstm="no"
)
@pytest.mark.parametrize(
    "shape", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}, {"num_layers": 2, "proj_size": 2}], ids=str
)
@pytest.mark.parametrize("lengths", [None, [3, 9, 1, 5]])
def test_modules(shape: dict[str, Any], lengths: list[int] | None) -> None:
    plain = FusedEmbeddingLSTM(7, 3, 5, **shape, dropout=0.3 * (shape.get("num_layers", 1) - 1), dtype=torch.float64)
    module = FusedEmbeddingLSTM.from_modules(plain.embedding, plain.lstm, checkpoint_every=4)
    assert module.lstm.options.checkpoint_every == 4
    ids = torch.randint(0, 7, (9, 4))
    results = []
    for m in (plain, module):
        m.zero_grad()
        torch.manual_seed(3)
        output, states = m(ids, lengths)
        (output.square().sum() + states[1].sum()).backward()
        torch.manual_seed(3)
        of_floats = m.lstm(torch.sin(torch.arange(108.0, dtype=torch.float64)).view(9, 4, 3), lengths=lengths)[0]
        of_floats.square().sum().backward()
        with torch.no_grad():
            inferred = m.eval()(ids, lengths)[0]
            m.train()
        results.append([output, *states, inferred, of_floats, *(p.grad for p in plain.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_frozen_weights_and_inputs_without_gradients() -> None:
    module = FusedLSTM(3, 5, bidirectional=True, checkpoint_every=2)
    module.weight_hh_l0.requires_grad_(False)
    module.bias_ih_l0.requires_grad_(False)
    module.bias_hh_l0.requires_grad_(False)
    module(torch.randn(7, 4, 3))[0].sum().backward()
    assert module.weight_hh_l0.grad is None
    assert module.bias_ih_l0.grad is None
    assert module.weight_ih_l0.grad is not None
    x = torch.randn(7, 4, 3, requires_grad=True)
    module.requires_grad_(False)
    module(x)[0].sum().backward()
    assert x.grad is not None


def _saved_numbers(module: FusedLSTM, x: Tensor) -> int:
    """How many numbers the graph of a training forward keeps, each storage once."""
    storages: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes() // t.element_size()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        output, _ = module(x)
    own = {p.untyped_storage().data_ptr() for p in (*module.parameters(), x, output)}
    return sum(size for address, size in storages.items() if address not in own)


def test_what_is_kept() -> None:
    """Of N positions nothing but the output, not the gates (4H) and c; h and c of the segments' starts."""
    T, B, H = 64, 4, 32
    plain = FusedLSTM(8, H)
    x = torch.randn(T, B, 8)
    assert _saved_numbers(plain, x) >= 5 * H * T * B
    for every in (4, 16):
        kept = _saved_numbers(FusedLSTM.from_lstm(plain, checkpoint_every=every), x)
        assert kept <= 2 * H * B * T // every + 4 * H * B + 2 * 4 * H + T
