"""What the machine can do at its best: arithmetic, and reading from each level of its memory."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.mkldnn import to_mkldnn

from benchmarks.timing import Call, seconds, settle
from textclf_fast._libraries import BFLOAT16_ISAS, cpu_isa

Key = TypeVar("Key")

# Read again and again by every thread, for the caches; W_hh of H = 128 is 256 KiB, of H = 512 it is 4 MiB.
CACHE_SIZES = tuple(kib * 2**10 for kib in (64, 256, 512, 1024, 4096, 16384))
_COPIED = 256 * 2**20  # far beyond any cache
_SIDE = 1024
# Whatever disturbs the machine seldom lasts as long as all turns; a turn is short, so that each rate has many of them.
_ALL_TURNS, _TURN = 8.0, 0.02  # seconds


@dataclass(frozen=True)
class Peaks:
    """Rates, all threads together.

    Attributes:
        threads: PyTorch's.
        operations: additions and multiplications a second in matrix products, by dtype that the kernels multiply.
        cache: bytes read a second by the size in bytes of what is read again and again.
        memory: bytes a second of a large copy, read and written.
        date: when they were measured, in ISO 8601.
    """

    threads: int
    operations: dict[str, float]
    cache: dict[int, float]
    memory: float
    date: str

    def cache_rate(self, size: float) -> float:
        """The rate at which something of this many bytes is read again and again."""
        return self.cache[min((s for s in self.cache if s >= size), default=max(self.cache))]


def measure_peaks() -> Peaks:
    """Measures them, in some ten seconds; each is the best of tries spread over all of these.

    Arithmetic is a product of two 1024 x 1024 matrices, 2 * 1024^3 operations, by PyTorch's two libraries,
    whichever is faster: oneDNN runs close to the peak of the units themselves, MKL's torch.mm on AMD's cores at
    half of it. A cache is read by sums over the same block: 32 sums, shared by the threads, each of which reads the
    block whole. The memory's rate is that of a copy of 256 MiB, which counts twice.
    """
    settle()
    # Where the kernels have no product of bfloat16 PyTorch has none either: one would take 2 s, and nobody asks for it.
    dtypes = [torch.float32] + [torch.bfloat16] * (cpu_isa() in BFLOAT16_ISAS)
    products = {(dtype, make): make(dtype) for dtype in dtypes for make in (_product, _onednn_product)}
    sums = {size: _sums(size) for size in CACHE_SIZES}
    source = torch.zeros(_COPIED // 4)
    target = torch.zeros_like(source)
    best = fastest({**products, **sums, "copy": lambda: target.copy_(source)}, _ALL_TURNS, _TURN)
    return Peaks(
        threads=torch.get_num_threads(),
        operations={
            str(dtype).removeprefix("torch."): 2
            * _SIDE**3
            / min(best[dtype, make] for make in (_product, _onednn_product))
            for dtype in dtypes
        },
        cache={size: _times(size) * size / best[size] for size in sums},
        memory=2 * _COPIED / best["copy"],
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def fastest(calls: Mapping[Key, Call], duration: float, turn: float) -> dict[Key, float]:
    """The seconds of each call's fastest try.

    They take turns until ``duration`` is over, so that what disturbs the machine for a while leaves each of them other
    tries. In a turn a call is tried again and again, since the one before it has filled the caches with something else.

    Args:
        calls: by any names.
        duration: seconds that all turns take together, but for the round that is under way when they are over.
        turn: seconds that a turn takes; one try, where that is longer.
    """
    best = dict.fromkeys(calls, float("inf"))
    end = time.perf_counter() + duration
    while time.perf_counter() < end:
        for name, call in calls.items():
            end_of_turn = time.perf_counter() + turn
            while True:
                best[name] = min(best[name], seconds(call))
                if time.perf_counter() >= end_of_turn:
                    break
    return best


def _product(dtype: torch.dtype) -> Call:
    a, b = (torch.randn(_SIDE, _SIDE).to(dtype) for _ in range(2))
    out = torch.empty(_SIDE, _SIDE, dtype=dtype)
    return lambda: torch.mm(a, b, out=out)


def _onednn_product(dtype: torch.dtype) -> Call:
    linear = to_mkldnn(nn.Linear(_SIDE, _SIDE, bias=False), dtype).eval()
    x = torch.randn(_SIDE, _SIDE).to_mkldnn(dtype)

    def multiply() -> None:
        with torch.inference_mode():
            linear(x)

    return multiply


def _times(size: int) -> int:
    """How often a block is summed in a try: enough for the start of the threads not to count."""
    return max(32, 32 * 2**20 // size)


def _sums(size: int) -> Call:
    block = torch.ones(size // 4).expand(_times(size), -1)
    out = torch.empty(_times(size))
    return lambda: torch.sum(block, 1, out=out)


def write_peaks(peaks: Peaks) -> dict[str, Any]:
    """For JSON, whose keys are text."""
    return asdict(peaks) | {"cache": {str(size): rate for size, rate in peaks.cache.items()}}


def read_peaks(entry: dict[str, Any]) -> Peaks:
    """The other way."""
    return Peaks(**(entry | {"cache": {int(size): rate for size, rate in entry["cache"].items()}}))
