"""Targets beside made-up measurements; from rows to JSON, to the page and to the picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import plot, roofline
from benchmarks.cells import BF16, DENSE, FLOAT_CELLS, INT8_CELLS, PACKED_CELLS, RAGGED, TEXT_CELLS
from benchmarks.machine_peaks import Peaks
from benchmarks.report import Row, make_report, print_table, read_rows, write_report
from benchmarks.targets import EPOCH_LOOP, IMDB, MEMORY, TARGETS, Target, geometric_mean, judge

PEAKS = Peaks(2, {"float32": 2e11, "bfloat16": 4e11}, {2**18: 2e11, 2**24: 1e11}, 3e10)


def _row(cell: Any, mode: str = "inference", ours: float = 1e-3, **peers: float) -> Row:
    return Row(cell.section, str(cell), mode, "s", ours, peers, 11, cell, cell.rows * cell.steps, 500)


@pytest.fixture
def rows() -> list[Row]:
    return [
        _row(DENSE, padded=2.2e-3),
        _row(RAGGED, padded=4.4e-3, packed=7e-3),
        _row(RAGGED, "training", padded=6e-3, packed=7e-3),
        _row(BF16, padded=2e-3),
        *(_row(cell, padded=1.5e-3 if cell is FLOAT_CELLS[0] else 2e-3) for cell in FLOAT_CELLS),
        Row("epoch", EPOCH_LOOP, "training", "s", 1.5, {"padded": 3.0}, 3),
        Row("imdb", IMDB, "training", "s", 100, {"padded": 400}, 20, notes={"published": "elsewhere"}),
        Row("memory", MEMORY, "training", "MiB", 30, {"padded": 60}, 3),
    ]


def test_every_target_is_of_something_that_is_measured() -> None:
    shapes = {(cell.section, str(cell)) for cell in [*TEXT_CELLS, BF16, *INT8_CELLS, *FLOAT_CELLS, *PACKED_CELLS]}
    for target in TARGETS:
        if target.cell is not None and target.section not in ("epoch", "memory"):
            assert (target.section, target.cell) in shapes
    assert len({(t.section, t.mode, t.cell, t.peer, t.over) for t in TARGETS}) == len(TARGETS)


def test_verdicts(rows: list[Row]) -> None:
    verdicts = {(v.target.section, v.target.cell, v.target.mode, v.target.peer, v.target.over): v for v in judge(rows)}
    dense = verdicts["text", str(DENSE), "inference", "padded", "cell"]
    assert (dense.target.bound, dense.measured, dense.met) == (2.2, pytest.approx(2.2), True)
    ragged = verdicts["text", str(RAGGED), "inference", "padded", "cell"]
    assert (ragged.measured, ragged.met) == (pytest.approx(4.4), False)
    each = verdicts["float", None, "inference", "padded", "cell"]
    assert (each.measured, each.met) == (pytest.approx(1.5), True)
    mean = verdicts["float", None, "inference", "padded", "mean"]
    assert mean.measured == pytest.approx((1.5 * 2**23) ** (1 / 24))
    epoch = verdicts["epoch", EPOCH_LOOP, "training", None, "cell"]
    assert (epoch.measured, epoch.met) == (1.5, True)
    assert verdicts["memory", MEMORY, "training", "padded", "cell"].measured == 2
    assert ("float", None, "training", "padded", "mean") not in verdicts  # nothing measured, nothing said


def test_an_amount_must_be_below_its_bound() -> None:
    target = Target("epoch", "training", EPOCH_LOOP, None, 1.6)
    row = Row("epoch", EPOCH_LOOP, "training", "s", 1.6, {}, 3)
    assert [v.met for v in judge([row], [target])] == [False]


def test_geometric_mean() -> None:
    assert geometric_mean([1, 4, 2]) == pytest.approx(2)


def test_rows_survive_json(rows: list[Row], tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_report(make_report(rows, {"a cell": "a reason"}, "a command"), path)
    report = json.loads(path.read_text(encoding="utf-8"))
    assert read_rows(report) == rows
    assert report["command"] == "a command"
    assert report["machine"]["torch"]
    assert report["rows"][0]["ratios"] == {"padded": pytest.approx(2.2)}
    assert list(tmp_path.iterdir()) == [path]


def test_page(rows: list[Row]) -> None:
    report = json.loads(json.dumps(make_report(rows, {"a cell": "a reason"}, "a command")))
    report["machine"]["kernels"] = "avx2"
    page = roofline.render(report, PEAKS, "performance.png")
    assert "- a cell: not measured: a reason" in page
    assert f"| {DENSE} | inference | padded | 2.20x | >= 2.2x | yes |" in page
    assert "| functions of the gates, a position and unit | 2 * 94 | 2 * (94 + 4 + 39) |" in page
    # 8,192 positions of 2 * 512 * 128 + 2 * 94 * 128 operations are 1,270.9 million: 6.354 ms at 200 G a second.
    assert f"| {DENSE} | inference | 1270.9 | 67.1 | 21.0 | 6.354 ms, operations | 1.000 ms | 635% |" in page
    assert "| FusedLSTM on float input, least of 24 cells | inference | padded | 1.50x | >= 0.97x | yes |" in page
    assert f"| {EPOCH_LOOP} | training |  | 1.50 s | < 1.6 s | yes |" in page
    assert "published: elsewhere" in page
    for line in page.splitlines():  # every row of a table has the columns of its head
        if line.startswith("|"):
            assert line.endswith("|")


def test_terminal_table(rows: list[Row], capsys: pytest.CaptureFixture[str]) -> None:
    print_table(rows, {"a cell": "a reason"})
    out = capsys.readouterr().out
    assert "targets reached: " in out
    assert "a cell: not measured: a reason" in out
    assert "FusedLSTM on float input, geometric mean of 24 cells, inference: 1.98x, target >= 1.3x" in out


def test_a_missing_peer_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    row = Row("text", str(DENSE), "inference", "s", 1, {}, 1, notes={"OpenVINO": "not installed: openvino"})
    print_table([row], {})
    assert "not installed: openvino" in capsys.readouterr().out


def test_picture(rows: list[Row], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot.draw(make_report(rows, {}, "a command"), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
