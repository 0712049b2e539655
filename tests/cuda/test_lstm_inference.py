"""lstm_inference on a GPU against the CPU's kernels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from textclf_fast import ops

pytestmark = pytest.mark.gpu


def _problem(dtype: torch.dtype, directions: int, hidden: int, indexed: bool) -> list[Tensor | None]:
    batch_sizes = torch.tensor([33, 33, 20, 5, 1])
    positions, rows = int(batch_sizes.sum()), 33
    gate_rows = 40 if indexed else positions
    return [
        torch.randn(directions, gate_rows, 4 * hidden, dtype=dtype),
        torch.randint(gate_rows, (positions,)) if indexed else None,
        batch_sizes,
        torch.randn(directions, 4 * hidden, hidden, dtype=dtype) / hidden**0.5,
        torch.randn(directions, rows, hidden, dtype=dtype),
        torch.randn(directions, rows, hidden, dtype=dtype),
    ]


def _on_gpu(problem: list[Tensor | None]) -> list[Tensor | None]:
    # batch_sizes stay on the CPU.
    return [t if t is None or k == 2 else t.cuda() for k, t in enumerate(problem)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("hidden", [1, 17, 128, 513])
@pytest.mark.parametrize("indexed", [False, True])
def test_equals_the_cpu(dtype: torch.dtype, directions: int, hidden: int, indexed: bool) -> None:
    problem = _problem(dtype, directions, hidden, indexed)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    with torch.no_grad():
        for ours, theirs in zip(ops.lstm(*_on_gpu(problem)), ops.lstm(*problem), strict=True):
            torch.testing.assert_close(ours.cpu(), theirs, rtol=0, atol=tolerance)


def test_autocast_does_not_step_in() -> None:
    problem = _on_gpu(_problem(torch.float32, 1, 64, indexed=True))
    with torch.no_grad():
        expected = ops.lstm(*problem)
        with torch.autocast("cuda"):
            results = ops.lstm(*problem)
    for ours, theirs in zip(results, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_a_mixture_of_devices_is_refused() -> None:
    problem = _on_gpu(_problem(torch.float32, 1, 8, indexed=False))
    problem[4] = problem[4].cpu()
    with pytest.raises(RuntimeError, match="h0: is on another device than gates"), torch.no_grad():
        ops.lstm(*problem)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
@pytest.mark.parametrize("hidden", [17, 128, 513, 1024])  # each family of an H100
def test_16_bit_layers_equal_float64(dtype: torch.dtype, tolerance: float, hidden: int) -> None:
    gates, index, sizes, *weights = _problem(torch.float32, 2, hidden, indexed=True)
    narrow = [w.to(dtype) for w in weights]
    with torch.no_grad():
        expected = ops.lstm(gates.double(), index, sizes, *(w.double() for w in narrow))
        results = ops.lstm(*_on_gpu([gates, index, sizes, *narrow]))
    for ours, theirs in zip(results, expected, strict=True):
        torch.testing.assert_close(ours.cpu().double(), theirs, rtol=0, atol=tolerance)


def test_batch_sizes_may_be_on_the_device_and_a_graph_may_be_captured() -> None:
    problem = _on_gpu(_problem(torch.float32, 2, 64, indexed=True))
    with torch.no_grad():
        expected = ops.lstm(*problem)
        problem[2] = problem[2].cuda()
        for ours, theirs in zip(ops.lstm(*problem), expected, strict=True):
            assert torch.equal(ours, theirs)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = ops.lstm(*problem)
        graph.replay()
    for ours, theirs in zip(results, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_a_graph_is_not_captured_around_batch_sizes_on_the_cpu() -> None:
    problem = _on_gpu(_problem(torch.float32, 1, 64, indexed=True))
    with (
        torch.no_grad(),
        pytest.raises(RuntimeError, match="batch_sizes: is on the CPU"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        ops.lstm(*problem)
