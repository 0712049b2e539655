"""One process of the GPU script: measures cells one after the other; each is a line of JSON when it is done.

A kernel that fails leaves the process without a GPU: it ends then, and `run.py` starts another behind that cell.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.cells import CELLS, FLASHRNN_CELLS, GpuCell
from benchmarks.gpu.contests import Contest, Unmeasurable, make_contest
from benchmarks.gpu.machine import describe_gpu
from benchmarks.gpu.record import GpuRow, write_row
from benchmarks.gpu.timing import time_calls
from benchmarks.timing import Call

LISTS = {"cells": CELLS, "flashrnn": FLASHRNN_CELLS}
SECONDS_A_CELL = 2.0
# Of the largest number of the reference's result: h_n is below 1, gradients are sums over all positions.
_TOLERANCES = {"float32": 2e-3, "bfloat16": 5e-2, "float16": 1e-2}
_OPS = {"inference": "textclf_fast::lstm_inference", "training": "textclf_fast::lstm_backward"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("list", choices=LISTS)
    parser.add_argument("--out", type=Path, required=True, help="lines of JSON are appended to it")
    parser.add_argument("--skip", type=int, default=0, help="cells of the list that others have measured")
    parser.add_argument("--seconds", type=float, required=True, help="begin no cell after them")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU, a cell of each section and mode")
    options = parser.parse_args()
    device = torch.device("cpu" if options.dry_run else "cuda")
    cells = few(LISTS[options.list]) if options.dry_run else LISTS[options.list]
    end = time.monotonic() + options.seconds
    with options.out.open("a", encoding="utf-8") as out:

        def write(line: dict[str, Any]) -> None:
            out.write(json.dumps(line) + "\n")
            out.flush()

        write({"machine": describe_gpu(device)})
        for number, cell in enumerate(cells[options.skip :], start=options.skip):
            left = end - time.monotonic()
            if left < 0:
                write({"out_of_time": [_label(c) for c in cells[number:]]})
                return
            write({"begun": number, "cell": _label(cell)})
            budget = min(SECONDS_A_CELL, left / (len(cells) - number))
            try:
                write({"row": write_row(measure(cell, device, budget))})
            except Unmeasurable as reason:
                write({"unmeasured": str(reason)})
            except torch.cuda.OutOfMemoryError:
                torch.cuda.empty_cache()
                write({"unmeasured": "the GPU's memory is too small"})
            except Exception as error:
                write({"unmeasured": f"{type(error).__name__}: {str(error).splitlines()[0]}"})
                if device.type == "cuda":
                    torch.cuda.synchronize(device)  # fails where the GPU is lost
        write({"machine": describe_gpu(device)})


def _label(cell: GpuCell) -> str:
    return f"{cell.section}, {cell.mode}: {cell.name}"


def few(cells: list[GpuCell]) -> list[GpuCell]:
    """One of each section and mode, at sizes that take no time."""
    kinds: dict[tuple[str, str], list[GpuCell]] = {}
    for cell in cells:
        kinds.setdefault((cell.section, cell.mode), []).append(cell.tiny())
    return [cell for kind in kinds.values() for cell in kind[:1]]


def measure(cell: GpuCell, device: torch.device, budget: float) -> GpuRow:
    """Builds, checks and times a cell.

    Raises:
        Unmeasurable: a peer is not here, or ours is wrong.
    """
    contest = make_contest(cell, device)
    notes = {"result": _check(contest, cell)} | _kernels(contest.calls["ours"], cell, device)
    if cell.section == "memory":
        if device.type != "cuda":
            raise Unmeasurable("peak memory is asked of CUDA's allocator")
        peaks = {name: _peak(call) for name, call in contest.calls.items()}
        return _row(cell, contest, "MiB", peaks, {}, 1, notes)
    times = time_calls(contest.calls, budget, device)
    return _row(cell, contest, "s", times.seconds, times.on_the_gpu, times.rounds, notes)


def _row(
    cell: GpuCell,
    contest: Contest,
    unit: str,
    amounts: dict[str, float],
    on_the_gpu: dict[str, float],
    rounds: int,
    notes: dict[str, str],
) -> GpuRow:
    ours, *_ = amounts.values()
    peers = {name: amount for name, amount in amounts.items() if name != "ours"}
    return GpuRow(
        section=cell.section,
        cell=cell.name,
        mode=cell.mode,
        unit=unit,
        ours=ours,
        peers=peers,
        rounds=rounds,
        shape=cell.shape,
        positions=contest.positions,
        notes=notes,
        on_the_gpu=on_the_gpu,
    )


def _check(contest: Contest, cell: GpuCell) -> str:
    """How far ours is from the reference. No speed is reported of what is wrong."""
    if contest.reference is None:
        return "not compared"
    ours, expected = contest.calls["ours"]().double(), contest.calls[contest.reference]().double()
    error = float((ours - expected).abs().max() / expected.abs().max())
    tolerance = _TOLERANCES[cell.shape.dtype]
    if not error <= tolerance:
        raise Unmeasurable(f"ours differs from {contest.reference} by {error:.2g} of its largest number")
    return f"differs from {contest.reference} by {error:.1e} of its largest number"


def _kernels(ours: Call, cell: GpuCell, device: torch.device) -> dict[str, str]:
    """Which kernels of ours a call launched, as the profiler saw it."""
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key(_OPS[cell.mode], device.type.upper())
    if not has_kernel:
        return {"kernels": "none of ours for this mode yet: the module takes PyTorch's own path"}
    if device.type != "cuda":
        return {}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        ours()
        torch.cuda.synchronize(device)
    names = {event.name for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA}
    own = sorted(name for name in names if "textclf_fast" in name)
    if own:
        return {"kernels": "; ".join(own)}
    none = "none of ours was launched: the module took PyTorch's own path"
    return {"kernels": none if names else "not known: the profiler saw no kernel at all"}


def _peak(call: Call) -> float:
    """MiB that a call adds to what is allocated, at its peak."""
    call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


if __name__ == "__main__":
    main()
