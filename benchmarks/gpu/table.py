"""Writes textclf_fast/nn/beside_cudnn.py, which on_cuda.py asks, from the GPU script's records.

python -m benchmarks.gpu.table [FOLDER [TABLE.py]]: FOLDER holds gpu-*.json, by default benchmarks/results.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.page import RESULTS, read_reports
from benchmarks.gpu.record import GpuRow, read_row

TABLE = Path(__file__).parents[2] / "textclf_fast" / "nn" / "beside_cudnn.py"

# capability, dtype, tf32, directions, B, H: but for the speed, what on_cuda.Measured has.
Key = tuple[int, str, bool, int, int, int]

_HEAD = '''\
"""How many times as fast as cuDNN our kernels were on a dense batch of float input, one layer.

Written by `python -m benchmarks.gpu.table`; do not edit by hand. From:
{sources}
"""

from __future__ import annotations

import torch

# capability of the GPU (90 for 9.0), dtype, tf32, directions, B, H, speed: the fields of on_cuda.Measured
Cells = tuple[tuple[int, torch.dtype, bool, int, int, int, float], ...]

'''


def write_table(reports: Sequence[dict[str, Any]]) -> str:
    """The module, from reports; those of dry runs do not count."""
    real = [report for report in reports if not report["dry_run"]]
    sources = [f"- gpu-{report['name']}.json, {report['date'][:10]}, commit {report['commit']}" for report in real]
    parts = [_HEAD.format(sources="\n".join(sources or ["- nothing: no GPU has been measured"]))]
    for name, mode in (("FORWARD", "inference"), ("TRAINING", "training")):
        lines = [f"    {_line(key, speed)},\n" for key, speed in sorted(_slowest(real, mode).items())]
        parts.append(f"{name}: Cells = (" + ("\n" + "".join(lines) if lines else "") + ")\n")
    return "".join(parts)


def _slowest(reports: Iterable[dict[str, Any]], mode: str) -> dict[Key, float]:
    """The least speed of each cell: of GPUs with one capability none shall be slower than by cuDNN."""
    speeds: dict[Key, float] = {}
    for report in reports:
        for row in map(read_row, report["rows"]):
            speed = _speed(row)
            if row.mode == mode and speed is not None:
                key = _key(row, report["machine"]["compute capability"])
                speeds[key] = min(speed, speeds.get(key, speed))
    return speeds


def _speed(row: GpuRow) -> float | None:
    """Of our kernels beside nn.LSTM by cuDNN; None of what is no dense batch of floats, or where none was launched."""
    if row.shape is None or row.shape.form != "float" or row.shape.layers != 1 or "padded" not in row.peers:
        return None
    if "our kernels" in row.peers:  # "ours" is the module, which may have left the layer to cuDNN
        return row.peers["padded"] / row.peers["our kernels"]
    return row.ratios["padded"] if "textclf_fast" in row.notes.get("kernels", "") else None


def _key(row: GpuRow, capability: str) -> Key:
    shape = row.shape
    assert shape is not None
    tf32 = row.cell.endswith(", tf32")
    directions = 2 if shape.bidirectional else 1
    return int(capability.replace(".", "")), shape.dtype, tf32, directions, shape.rows, shape.hidden


def _line(key: Key, speed: float) -> str:
    capability, dtype, *sizes = key
    return f"({', '.join(map(str, [capability, f'torch.{dtype}', *sizes]))}, {speed:.3f})"


def main(arguments: Sequence[str]) -> None:
    folder = Path(arguments[0]) if arguments else RESULTS
    table = Path(arguments[1]) if len(arguments) > 1 else TABLE
    table.write_text(write_table(read_reports(folder)), encoding="utf-8")
    print(f"written: {table}")


if __name__ == "__main__":
    main(sys.argv[1:])
