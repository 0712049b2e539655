"""How calls are timed beside each other."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

Call = Callable[[], object]


def flush_denormals() -> None:
    """The peers' best setting, for this process; before its threads start, which inherit it.

    Gradients fade into denormal numbers after some 130 steps, with which Intel's cores take 20 times as long. Ours are
    zero there anyway (csrc/cpu/flush_denormals.inl).
    """
    torch.set_flush_denormal(True)


WARM = 5e-3  # seconds for which a call runs before it is timed, and once at least


def seconds(call: Call) -> float:
    """Of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


_TASKS = Path("/proc/self/task")


def _another_thread_runs() -> bool:
    """Whether a thread of this process other than the caller's is on a core or waits for one.

    Asked of the threads' states: the processor time of a thread that runs is brought up to date by the clock's ticks,
    of which there may be one in 10 ms.
    """
    me = str(threading.get_native_id())
    for task in _TASKS.iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            if task.name != me and (task / "stat").read_text().rpartition(") ")[2].startswith("R"):
                return True
    return False


def settle(limit: float = 0.5) -> None:
    """Waits, for ``limit`` seconds at most, until no other thread of this process computes or spins.

    The threads of PyTorch's OpenMP spin for some milliseconds after their last work, ONNX Runtime's for some 100. Left
    alone, they would take the cores from whoever is timed next, if that has threads of its own: a call of 0.1 ms was
    seen to take 8 ms beside one thread that spins. Where threads cannot be asked, it waits for as long as those spin.
    """
    if not _TASKS.is_dir():
        time.sleep(0.15)
        return
    end = time.perf_counter() + limit
    while time.perf_counter() < end and _another_thread_runs():
        time.sleep(1e-3)


def warm(call: Call, once: float) -> None:
    """Before a timed call: it has its weights, its memory and its code in the caches, as in a loop of its own.

    Nobody alternates between two implementations of a layer. After another one's training step a step of ours at B=1,
    T=64 was seen to take 1.5 ms, and after 5 ms of its own 0.7 ms; one of nn.LSTM 2.2 ms and 1.5 ms. At B=32, T=256,
    fill 0.42, where one takes longer than that, ours takes 6.9 ms, and after one of its own 6.2; nn.LSTM 35 and 35.

    Args:
        call: will be timed next.
        once: the seconds that it takes.
    """
    end = time.perf_counter() + WARM - once
    call()
    while time.perf_counter() < end:
        call()


def ready(call: Call, once: float) -> None:
    """The same where peers have other threads, which have gone to sleep then."""
    settle()
    warm(call, once)
