"""How calls are timed beside each other."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

Call = Callable[[], object]


def flush_denormals() -> None:
    """The peers' best setting, for this process; before its threads start, which inherit it.

    Gradients fade into denormal numbers after some 130 steps, with which Intel's cores take 20 times as long. Ours are
    zero there anyway (csrc/cpu/flush_denormals.inl).
    """
    torch.set_flush_denormal(True)


SHORT = 5e-3  # a call of fewer seconds is noticeably longer when threads and caches have to warm up first


def seconds(call: Call) -> float:
    """Of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def settle(limit: float = 0.05) -> None:
    """Waits, for ``limit`` seconds at most, until no thread of this process computes or spins.

    The threads of PyTorch's OpenMP spin for some milliseconds after their last work, and so do other pools'. Left
    alone, they would take the cores from whoever is timed next, if that has threads of its own.
    """
    end = time.perf_counter() + limit
    while time.perf_counter() < end:
        start, busy = time.perf_counter(), time.process_time()
        time.sleep(1e-3)
        if time.process_time() - busy < 0.2 * (time.perf_counter() - start):
            return


def ready(call: Call, once: float) -> None:
    """Before a timed call whose peers have other threads: theirs have gone to sleep, and what is short is warm.

    Args:
        call: will be timed next.
        once: the seconds that it takes.
    """
    settle()
    end = time.perf_counter() + SHORT
    while once < SHORT and time.perf_counter() < end:
        call()
