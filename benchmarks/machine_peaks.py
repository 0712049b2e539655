"""What the machine can do at its best: arithmetic, and reading from each level of its memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.timing import seconds

# Read again and again by every thread, for the caches; W_hh of H = 128 is 256 KiB, of H = 512 it is 4 MiB.
CACHE_SIZES = tuple(kib * 2**10 for kib in (64, 256, 512, 1024, 4096, 16384))
_COPIED = 256 * 2**20  # far beyond any cache
_SIDE = 1024


@dataclass(frozen=True)
class Peaks:
    """Rates, all threads together.

    Attributes:
        threads: PyTorch's.
        operations: additions and multiplications a second in matrix products, by dtype.
        cache: bytes read a second by the size in bytes of what is read again and again.
        memory: bytes a second of a large copy, read and written.
    """

    threads: int
    operations: dict[str, float]
    cache: dict[int, float]
    memory: float

    def cache_rate(self, size: float) -> float:
        """The rate at which something of this many bytes is read again and again."""
        return self.cache[min((s for s in self.cache if s >= size), default=max(self.cache))]


def measure_peaks() -> Peaks:
    """Measures them, in some seconds; each is the best of many tries.

    Arithmetic is torch.mm of two 1024 x 1024 matrices, 2 * 1024^3 operations: it runs close to the peak of the units
    themselves. A cache is read by sums over the same block: 32 sums, shared by the threads, each of which reads the
    block whole. The memory's rate is that of a copy of 256 MiB, which counts twice.
    """
    operations = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(_SIDE, _SIDE).to(dtype) for _ in range(2))
        out = torch.empty(_SIDE, _SIDE, dtype=dtype)
        best = _best(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), 40)
        operations[str(dtype).removeprefix("torch.")] = 2 * _SIDE**3 / best
    cache = {size: _cache_rate(size) for size in CACHE_SIZES}
    source = torch.zeros(_COPIED // 4)
    target = torch.zeros_like(source)
    memory = 2 * _COPIED / _best(lambda: target.copy_(source), 7)
    return Peaks(torch.get_num_threads(), operations, cache, memory)


def _cache_rate(size: int) -> float:
    times = max(32, 32 * 2**20 // size)  # enough for the start of the threads not to count
    block = torch.ones(size // 4).expand(times, -1)
    out = torch.empty(times)
    return times * size / _best(lambda: torch.sum(block, 1, out=out), 15)


def _best(call: Callable[[], object], tries: int) -> float:
    call()
    return min(seconds(call) for _ in range(tries))
