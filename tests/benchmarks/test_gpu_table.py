"""From a GPU's made-up record to the table that modules ask where our kernels win, and to what they choose."""

from __future__ import annotations

import json
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.cells import DENSE, Cell
from benchmarks.gpu.cells import FLOAT_GRID, FORWARD_GRID, PACKED_GRID, PERSISTENT, GpuCell
from benchmarks.gpu.page import RESULTS, read_reports
from benchmarks.gpu.record import GpuRow, write_row
from benchmarks.gpu.table import TABLE, main, write_table
from textclf_fast.nn import beside_cudnn, on_cuda

OURS = "void textclf_fast::cuda::lstm_persistent"
NONE = "none of ours was launched: the module took PyTorch's own path"


def _row(cell: GpuCell, ours: float, kernels: str = OURS, **peers: float) -> dict[str, Any]:
    named = {name.replace("_", " "): amount for name, amount in peers.items()}
    notes = {"kernels": kernels}
    return write_row(GpuRow(cell.section, cell.name, cell.mode, "s", ours, named, 9, cell.shape, 1, 0, notes, {}))


def _record(
    folder: Path, name: str, rows: list[dict[str, Any]], dry_run: bool = False, capability: str = "9.0"
) -> None:
    report = {"name": name, "dry_run": dry_run, "date": "2030-01-02T03:04:05+00:00", "commit": "abc", "rows": rows}
    report["machine"] = {"compute capability": capability}
    (folder / f"gpu-{name}.json").write_text(json.dumps(report), encoding="utf-8")


def _table(folder: Path) -> types.ModuleType:
    """What the command writes of the records, loaded."""
    written = folder / "table.py"
    main([str(folder), str(written)])
    module = types.ModuleType("table")
    exec(compile(written.read_text(encoding="utf-8"), str(written), "exec"), module.__dict__)
    return module


GRID, FLOAT = FORWARD_GRID[1], FLOAT_GRID[4]  # B=1, H=256, bidirectional; B=32, H=128


def test_the_table_that_is_there_is_what_is_recorded() -> None:
    assert TABLE.read_text(encoding="utf-8") == write_table(read_reports(RESULTS))
    assert (len(beside_cudnn.FORWARD), len(beside_cudnn.TRAINING)) == (len(on_cuda.FORWARD), len(on_cuda.TRAINING))


def test_cells_of_a_record(tmp_path: Path) -> None:
    rows = [
        _row(GpuCell("grid", GRID, "inference"), 1.0, padded=1.5),
        # The module left it to cuDNN: our kernels are a peer.
        _row(GpuCell("float", FLOAT, "training"), 1.0, NONE, padded=1.0, our_kernels=0.8),
        _row(GpuCell("float", FLOAT, "training", strict=True), 1.0, NONE, padded=1.0, our_kernels=4.0),
        _row(GpuCell("persistent", PERSISTENT, "inference"), 1.0, padded=0.9),
    ]
    _record(tmp_path, "x", rows)
    table = _table(tmp_path)
    forward, training = table.FORWARD, table.TRAINING
    assert forward == (
        (90, torch.bfloat16, False, 2, 1, 256, 1.5),
        (90, torch.float16, False, 1, 16, 768, 0.9),
    )
    assert training == (
        (90, torch.float32, False, 1, 32, 128, 0.25),
        (90, torch.float32, True, 1, 32, 128, 1.25),
    )
    assert "- gpu-x.json, 2030-01-02, commit abc" in table.__doc__


@pytest.mark.parametrize(
    ("cell", "kernels", "peers"),
    [
        (GpuCell("text", DENSE, "inference"), OURS, {"padded": 2.0}),
        (GpuCell("packed", PACKED_GRID[0], "inference"), OURS, {"packed": 2.0}),
        (GpuCell("flashrnn", GRID, "inference"), OURS, {"FlashRNN": 2.0}),
        (GpuCell("grid", GRID, "inference"), NONE, {"padded": 2.0}),
        (GpuCell("grid", replace(GRID, layers=2), "inference"), OURS, {"padded": 2.0}),
    ],
)
def test_what_says_nothing_of_our_kernels_on_dense_floats_is_left_out(
    cell: GpuCell, kernels: str, peers: dict[str, float], tmp_path: Path
) -> None:
    _record(tmp_path, "x", [_row(cell, 1.0, kernels, **peers)])
    assert _table(tmp_path).FORWARD == ()


def test_of_gpus_of_one_capability_the_slower_counts_and_no_dry_run_does(tmp_path: Path) -> None:
    cell = GpuCell("grid", GRID, "inference")
    _record(tmp_path, "a", [_row(cell, 1.0, padded=1.5)])
    _record(tmp_path, "b", [_row(cell, 1.0, padded=1.2)])
    _record(tmp_path, "c", [_row(cell, 1.0, padded=0.5)], capability="12.0")
    _record(tmp_path, "dry-run", [_row(cell, 1.0, padded=0.1)], dry_run=True)
    assert [(cell[0], cell[-1]) for cell in _table(tmp_path).FORWARD] == [(90, 1.2), (120, 0.5)]


@pytest.mark.parametrize(("padded", "chosen"), [(1.5, True), (1.04, True), (1.02, False), (1.0, False), (0.8, False)])
def test_ours_are_chosen_where_they_won_by_a_margin(padded: float, chosen: bool, tmp_path: Path) -> None:
    _record(tmp_path, "x", [_row(GpuCell("grid", GRID, "inference"), 1.0, padded=padded)])
    measured = tuple(map(on_cuda.Measured._make, _table(tmp_path).FORWARD))
    layer = on_cuda.Measured(90, torch.bfloat16, False, 2, 1, 256, 0.0)
    assert on_cuda.faster_than_cudnn(measured, layer) is chosen


def test_the_cells_that_are_timed_fill_the_table(tmp_path: Path) -> None:
    """Every dense batch of floats in the script's lists that is no peer's."""
    shapes: list[tuple[Any, Cell]] = [("grid", s) for s in FORWARD_GRID] + [("float", s) for s in FLOAT_GRID]
    _record(tmp_path, "x", [_row(GpuCell(section, s, "inference"), 1.0, padded=2.0) for section, s in shapes])
    assert len(_table(tmp_path).FORWARD) == len(shapes)
