"""lstm_inference on a GPU against the CPU's kernels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from textclf_fast import ops

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch has no CUDA here, or there is no GPU")


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
