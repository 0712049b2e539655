"""Threads and processes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from lstm_pair import flat
from torch import Tensor, multiprocessing, nn


def _gradients(module: nn.LSTM, x: Tensor) -> list[Tensor]:
    results = flat(module(x))
    return [*results, *torch.autograd.grad(results[0].square().sum(), list(module.parameters()))]


@pytest.mark.compat("threads and processes", "four threads on one module: the bits of one alone, forward and backward")
@pytest.mark.parametrize("grad", [False, True])
def test_threads(lstm_class: type[nn.LSTM], grad: bool) -> None:
    module = lstm_class(5, 40, 2, bidirectional=True)
    inputs = [torch.randn(9, 1 + i, 5) for i in range(4)]
    barrier = threading.Barrier(4)

    def run(x: Tensor) -> list[Tensor]:
        barrier.wait()
        with torch.set_grad_enabled(grad):  # of this thread
            return [t for _ in range(5) for t in (_gradients(module, x) if grad else flat(module(x)))]

    with torch.set_grad_enabled(grad):
        want = [_gradients(module, x) if grad else flat(module(x)) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for got, alone in zip(pool.map(run, inputs), want, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(got, alone * 5, strict=True))


def _run_in_child(module: nn.LSTM, x: Tensor, queue: Any) -> None:
    with torch.no_grad():
        queue.put([t.tolist() for t in flat(module(x))])


@pytest.mark.compat("threads and processes", "a process forked after use computes the same")
def test_fork(lstm_class: type[nn.LSTM]) -> None:
    """With one thread, as PyTorch asks: its thread pool does not come over a fork."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        module, x = lstm_class(5, 40), torch.randn(9, 4, 5)
        with torch.no_grad():
            want = [t.tolist() for t in flat(module(x))]
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        child = context.Process(target=_run_in_child, args=(module, x, queue))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        assert queue.get() == want
    finally:
        torch.set_num_threads(threads)
