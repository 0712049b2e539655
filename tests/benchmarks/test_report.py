"""Targets beside made-up measurements; from rows to JSON, to the page and to the picture."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import machine_peaks, plot, roofline
from benchmarks.cells import BF16, DENSE, FLOAT_CELLS, INT8_CELLS, PACKED_CELLS, RAGGED, TEXT_CELLS
from benchmarks.machine_peaks import Peaks, fastest
from benchmarks.report import Row, make_report, print_table, read_rows, write_report
from benchmarks.targets import EPOCH_LOOP, IMDB, MEMORY, TARGETS, Target, geometric_mean, judge
from textclf_fast._libraries import BFLOAT16_ISAS, CPU_ISAS, cpu_isa

PEAKS = Peaks(2, {"float32": 2e11, "bfloat16": 4e11}, {2**18: 2e11, 2**24: 1e11}, 3e10, "2026-01-02T03:04:05+00:00")


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
    write_report(make_report(rows, {"a cell": "a reason"}, "a command", PEAKS), path)
    report = json.loads(path.read_text(encoding="utf-8"))
    assert read_rows(report) == rows
    assert report["command"] == "a command"
    assert report["machine"]["torch"]
    assert report["rows"][0]["ratios"] == {"padded": pytest.approx(2.2)}
    assert list(tmp_path.iterdir()) == [path]


def test_page(rows: list[Row]) -> None:
    report = json.loads(json.dumps(make_report(rows, {"a cell": "a reason"}, "a command", PEAKS)))
    report["machine"]["kernels"] = "avx2"
    page = roofline.render(report, PEAKS, "performance.png")
    assert "- a cell: not measured: a reason" in page
    assert f"| {DENSE} | inference | padded | 2.20x | >= 2.2x | yes |" in page
    assert "| functions of the gates, a position and unit | 2 * 89 | 2 * (89 + 4 + 38) |" in page
    # 8,192 positions of 2 * 512 * 128 + 2 * 89 * 128 operations are 1,260.4 million: 6.302 ms at 200 G a second.
    assert f"| {DENSE} | inference | 1260.4 | 67.1 | 21.0 | 1.000 ms | 6.302 ms, operations | 630% |" in page
    assert "| FusedLSTM on float input, least of 24 cells | inference | padded | 1.50x | >= 0.97x | yes |" in page
    assert f"| {EPOCH_LOOP} | training |  | 1.50 s | < 1.6 s | yes |" in page
    assert "published: elsewhere" in page
    assert "On 2 threads together, measured 2026-01-02T03:04:05+00:00, each the best of many tries." in page
    for line in page.splitlines():  # every row of a table has the columns of its head
        if line.startswith("|"):
            assert line.endswith("|")


@pytest.fixture
def measured_now(monkeypatch: pytest.MonkeyPatch) -> Peaks:
    """What a measurement of the peaks would give."""
    peaks = dataclasses.replace(PEAKS, memory=1e10)
    monkeypatch.setattr(roofline, "measure_peaks", lambda: peaks)
    return peaks


def _without_peaks(rows: list[Row], kernels: str, unmeasured: dict[str, str]) -> dict[str, Any]:
    report = make_report(rows, unmeasured, "a command", PEAKS)
    del report["peaks"]
    report["machine"]["kernels"] = kernels
    return report


def test_peaks_are_those_of_the_record(rows: list[Row], measured_now: Peaks) -> None:
    report = json.loads(json.dumps(make_report(rows, {}, "a command", PEAKS)))
    assert roofline.find_peaks(report) == PEAKS


def test_an_older_record_has_peaks_measured_on_its_machine_alone(rows: list[Row], measured_now: Peaks) -> None:
    assert roofline.find_peaks(_without_peaks(rows, cpu_isa(), {})) == measured_now
    another = next(isa for isa in CPU_ISAS if isa != cpu_isa())
    assert roofline.find_peaks(_without_peaks(rows, another, {})) is None
    assert roofline.find_peaks(_without_peaks(rows, cpu_isa(), {roofline.PEAKS: "a reason"})) is None


def test_a_page_without_peaks_has_nothing_that_follows_from_them(rows: list[Row]) -> None:
    page = roofline.render(_without_peaks(rows, "avx2", {roofline.PEAKS: "disturbed"}), None, "performance.png")
    assert "- the machine's peaks: not measured: disturbed" in page
    assert f"| {DENSE} | inference | 1260.4 | 67.1 | 21.0 | 1.000 ms |\n" in page
    assert "quotient" not in page
    assert "time that follows" not in page


def test_fastest_gives_each_call_turns_until_the_end() -> None:
    """A call that is disturbed at first has its fastest try later, and each has several tries in a turn."""
    order = []
    start = time.perf_counter()

    def disturbed() -> None:
        order.append("disturbed")
        time.sleep(5e-3 if time.perf_counter() < start + 0.05 else 5e-4)

    best = fastest({"disturbed": disturbed, "other": lambda: order.append("other")}, 0.3, 2e-3)
    assert 5e-4 <= best["disturbed"] < 5e-3
    assert best["other"] < 5e-4
    turns = [name for name, before in zip(order[1:], order, strict=False) if name != before]
    assert len(turns) > 10
    assert len(order) > 2 * len(turns)


def test_peaks_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rate is a number above zero, and as it was after a way through JSON."""
    monkeypatch.setattr(machine_peaks, "_ALL_TURNS", 1e-3)
    monkeypatch.setattr(machine_peaks, "_TURN", 1e-3)
    peaks = machine_peaks.measure_peaks()
    assert set(peaks.operations) == {"float32", "bfloat16"} if cpu_isa() in BFLOAT16_ISAS else {"float32"}
    assert set(peaks.cache) == set(machine_peaks.CACHE_SIZES)
    for rate in [*peaks.operations.values(), *peaks.cache.values(), peaks.memory]:
        assert 0 < rate < math.inf
    assert machine_peaks.read_peaks(json.loads(json.dumps(machine_peaks.write_peaks(peaks)))) == peaks


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
    plot.draw(make_report(rows, {}, "a command", PEAKS), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
