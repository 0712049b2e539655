"""Gradients below the normal numbers are zero in the backward's kernels, and nowhere else (flush_denormals.inl)."""

from __future__ import annotations

import platform

import pytest
import torch
from layer_cases import threads

from textclf_fast import ops

pytestmark = [
    pytest.mark.usefixtures("_poisoned"),
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="denormal numbers are slow on x86 alone"),
]


def backward(count: int) -> list[torch.Tensor]:
    """Gradients of a layer, on ``count`` threads, from denormal gradients of h_n and c_n."""
    gates = torch.randn(1, 60, 4 * 33, generator=torch.Generator().manual_seed(0)).requires_grad_()
    w_hh = torch.full((1, 4 * 33, 33), 0.01, requires_grad=True)
    h0 = torch.zeros(1, 6, 33, requires_grad=True)
    with threads(count):
        _, h_n, c_n = ops.lstm(gates, None, torch.full((10,), 6), w_hh, h0, torch.zeros(1, 6, 33))
        return list(torch.autograd.grad([h_n, c_n], [gates, w_hh, h0], [torch.full_like(t, 1e-39) for t in (h_n, c_n)]))


@pytest.mark.parametrize("count", [1, 3])
def test_denormal_gradients_are_zero(isa: str, count: int) -> None:
    for grad in backward(count):
        assert grad.eq(0).all()


def test_pytorch_keeps_its_denormal_numbers(isa: str) -> None:
    """The control register is as it was, in this thread and in PyTorch's others."""
    backward(3)
    with threads(3):
        assert (torch.full((1 << 18,), 1e-30) * 1e-9).gt(0).all()
