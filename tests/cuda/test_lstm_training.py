"""lstm_training and lstm_backward on a GPU against the CPU's kernels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytestmark = pytest.mark.gpu

NAMES = ("grad_gates", "grad_w_hh", "grad_h0", "grad_c0")
_ops = torch.ops.textclf_fast


def _problem(directions: int, hidden: int, indexed: bool) -> list[Tensor | None]:
    """In float64: gates, index, batch_sizes, w_hh, h0, c0."""
    torch.manual_seed(0)
    batch_sizes, rows = torch.tensor([33, 33, 20, 5, 1]), 33
    positions = int(batch_sizes.sum())
    gate_rows = 40 if indexed else positions
    index = torch.randint(gate_rows, (positions,)) if indexed else None
    gates = torch.randn(directions, gate_rows, 4 * hidden, dtype=torch.float64)
    w_hh = torch.randn(directions, 4 * hidden, hidden, dtype=torch.float64) / hidden**0.5
    states = torch.randn(2, directions, rows, hidden, dtype=torch.float64)
    return [gates, index, batch_sizes, w_hh, states[0], states[1]]


def _narrow(problem: list[Tensor | None], dtype: torch.dtype, device: str) -> list[Tensor | None]:
    """16-bit layers have gates in float32; batch sizes stay on the CPU."""
    gates, index, batch_sizes, *rest = problem
    wide = torch.float32 if dtype.itemsize == 2 else dtype
    index = None if index is None else index.to(device)
    return [gates.to(device, wide), index, batch_sizes, *(t.to(device, dtype) for t in rest)]


def _gradients(problem: list[Tensor | None], need_w_hh: bool = True, need_gates: bool = True) -> list[Tensor]:
    gates, index, batch_sizes, w_hh, h0, c0 = problem
    output, h_n, c_n, activations, cells = _ops.lstm_training(gates, index, batch_sizes, w_hh, h0, c0)
    given = [(t.double() * 3).sin().to(t.dtype) for t in (output, h_n, c_n)]
    saved = (activations, cells, output, index, gates.size(1), batch_sizes, w_hh, h0, c0, need_w_hh)
    return list(_ops.lstm_backward(*given, *saved, need_gates=need_gates))[: len(NAMES)]


# Of the largest number; every family of an H100.
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-10), (torch.float32, 2e-5), (torch.bfloat16, 4e-2), (torch.float16, 5e-3)],
)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("hidden", [1, 17, 128, 256, 513, 1024])
@pytest.mark.parametrize("indexed", [False, True])
def test_equals_float64(dtype: torch.dtype, tolerance: float, directions: int, hidden: int, indexed: bool) -> None:
    problem = _problem(directions, hidden, indexed)
    ours = _gradients(_narrow(problem, dtype, "cuda"))
    theirs = _gradients(_narrow(_narrow(problem, dtype, "cpu"), torch.float64, "cpu"))
    for name, mine, expected in zip(NAMES, ours, theirs, strict=True):
        error = (mine.cpu().double() - expected).abs().max() / expected.abs().max()
        assert error <= tolerance, (name, error)


@pytest.mark.parametrize("need_w_hh", [False, True])
@pytest.mark.parametrize("hidden", [128, 256, 1024])
@pytest.mark.parametrize("indexed", [False, True])
def test_gradients_of_gates_are_left_out_where_nobody_asks(indexed: bool, hidden: int, need_w_hh: bool) -> None:
    problem = _narrow(_problem(2, hidden, indexed), torch.bfloat16, "cuda")
    expected, others = _gradients(problem, need_w_hh), _gradients(problem, need_w_hh, need_gates=False)
    assert others[0].shape == (0,)
    assert all(torch.equal(a, b) for a, b in zip(others[1:], expected[1:], strict=True))


@pytest.mark.parametrize("hidden", [128, 256, 1024])
def test_gives_the_same_bits_every_time(hidden: int) -> None:
    problem = _narrow(_problem(2, hidden, indexed=True), torch.bfloat16, "cuda")
    first = _gradients(problem)
    for _ in range(250):
        assert all(torch.equal(a, b) for a, b in zip(_gradients(problem), first, strict=True))


def test_a_step_with_batch_sizes_on_the_device_is_captured() -> None:
    problem = _narrow(_problem(2, 64, indexed=True), torch.float32, "cuda")
    expected = _gradients(problem)
    problem[2] = problem[2].cuda()
    for ours, theirs in zip(_gradients(problem), expected, strict=True):
        assert torch.equal(ours, theirs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = _gradients(problem)
    graph.replay()
    for ours, theirs in zip(results, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_what_is_not_needed_is_left_out() -> None:
    assert _gradients(_narrow(_problem(1, 8, indexed=True), torch.float32, "cuda"), need_w_hh=False)[1].numel() == 0
