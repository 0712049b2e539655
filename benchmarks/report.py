"""The rows that the benchmarks record: as a table on the terminal, and as JSON."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.cells import Cell
from benchmarks.machine_peaks import Peaks, write_peaks
from benchmarks.peers import versions
from benchmarks.targets import IMDB, Verdict, judge, target_of
from textclf_fast._libraries import cpu_isa

# One record, page and picture for each instruction set: machines without AVX-512 have other peaks, and other peers.
RESULTS = Path(__file__).parent / "results" / f"cpu-{cpu_isa()}.json"


@dataclass(frozen=True)
class Row:
    """One cell in one mode: ours beside its peers.

    Attributes:
        section: "text", "bf16", "int8", "float", "packed", "epoch", "imdb" or "memory".
        cell: its name.
        mode: "inference" or "training".
        unit: of the amounts: "s" (medians) or "MiB".
        ours, peers: the amounts.
        rounds: how often each was measured.
        shape, positions, distinct: see `cells.Cell` and `calls.Contest`; where the cell is a shape.
        notes: of a peer or of the cell, by name.
    """

    section: str
    cell: str
    mode: str
    unit: str
    ours: float
    peers: dict[str, float]
    rounds: int
    shape: Cell | None = None
    positions: int = 0
    distinct: int = 0
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def ratios(self) -> dict[str, float]:
        """Peer / ours by name: above 1, ours is faster or smaller."""
        return {name: amount / self.ours for name, amount in self.peers.items()}


Record = Callable[[Row], None]


def make_report(rows: Sequence[Row], unmeasured: dict[str, str], command: str, peaks: Peaks) -> dict[str, Any]:
    """Everything that a reader of the numbers has to know, for JSON.

    Args:
        rows: what was measured.
        unmeasured: why a cell was not, by name.
        command: what was run.
        peaks: of the machine, measured with the rows: another hour's are those of another load.
    """
    from textclf_fast.cli.machine import describe_machine

    return {
        "machine": describe_machine() | versions(),
        "cores": os.cpu_count(),
        "commit": git_commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "peaks": write_peaks(peaks),
        "rows": [asdict(row) | {"ratios": row.ratios} for row in rows],
        "unmeasured": unmeasured,
        "targets": [asdict(v.target) | {"measured": v.measured, "met": v.met, "cells": v.cells} for v in judge(rows)],
    }


def read_rows(report: dict[str, Any]) -> list[Row]:
    """The rows of a report."""
    rows = []
    for entry in report["rows"]:
        fields = {key: value for key, value in entry.items() if key != "ratios"}
        shape = fields["shape"]
        rows.append(Row(**(fields | {"shape": None if shape is None else Cell(**shape)})))
    return rows


def write_report(report: dict[str, Any], path: Path) -> None:
    """As JSON, whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def print_table(rows: Sequence[Row], unmeasured: dict[str, str]) -> None:
    """A line for each peer of each row, with the target where there is one; then the targets over several cells."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=160)
    for section in dict.fromkeys(row.section for row in rows):
        table = Table(title=f"{section}: peer / ours (above 1: ours is faster or smaller); medians of rounds in turns")
        for column in ("cell", "mode", "peer", "ours", "peer's", "ratio", "target", ""):
            table.add_column(column, justify="left" if column in ("cell", "mode", "peer") else "right")
        for row in (row for row in rows if row.section == section):
            for line in table_lines(row):
                table.add_row(*line)
        console.print(table)
        for name, note in cell_notes(rows, section).items():
            console.print(f"  {name}: {note}")
    verdicts = judge(rows)
    for v in (v for v in verdicts if v.target.cell is None):
        end = "" if v.met else "  (not reached)"
        console.print(f"{describe(v)}, {v.target.mode}: {v.measured:.2f}x, target {v.target}{end}")
    for cell, why in unmeasured.items():
        console.print(f"{cell}: not measured: {why}")
    if verdicts:
        console.print(f"targets reached: {sum(v.met for v in verdicts)} of the {len(verdicts)} that were measured")


def table_lines(row: Row) -> list[list[str]]:
    """cell, mode, peer, ours, peer's, ratio, target, whether it is reached: for each peer, and for our own amount."""
    lines = []
    own = target_of(row, None)
    if own is not None:
        mark = "yes" if row.ours < own.bound else "no"
        lines.append([row.cell, row.mode, "", show(row.ours, row.unit), "", "", f"{own} {row.unit}", mark])
    for name, amount in row.peers.items():
        target, ratio = target_of(row, name), row.ratios[name]
        end = ["", ""] if target is None else [str(target), "yes" if ratio >= target.bound else "no"]
        lines.append(
            [row.cell, row.mode, name, show(row.ours, row.unit), show(amount, row.unit), f"{ratio:.2f}x", *end]
        )
    for name, note in row.notes.items():
        if note.startswith("not installed"):
            lines.append([row.cell, row.mode, name, show(row.ours, row.unit), note, "", "", ""])
    return lines


def describe(verdict: Verdict) -> str:
    """What a target over several cells is about, and how many of them were measured."""
    target = verdict.target
    inputs = {"float": "FusedLSTM on float input", "packed": "FusedLSTM on a PackedSequence"}
    over = f"geometric mean of {verdict.cells} cells" if target.over == "mean" else f"least of {verdict.cells} cells"
    return f"{inputs.get(target.section, target.section)}, {over}"


def show(amount: float, unit: str) -> str:
    """An amount with its unit, such as 3.217 ms."""
    if unit == "s":
        return f"{amount * 1e3:.3f} ms" if amount < 1 else f"{amount:.2f} s"
    return f"{amount:.1f} {unit}"


def cell_notes(rows: Sequence[Row], section: str) -> dict[str, str]:
    """What is said of a section's cells themselves, by a name for it; the settings of peers are in the JSON alone."""
    of_cells = (row for row in rows if row.section == section and row.cell == IMDB)
    return {name: note for row in of_cells for name, note in row.notes.items()}


def document(source: Path, suffix: str) -> Path:
    """Where the page (".md") or the picture (".png") of a record goes."""
    return Path(__file__).parents[1] / "docs" / f"performance-{source.stem.removeprefix('cpu-')}{suffix}"


def git_commit() -> str:
    run = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=RESULTS.parent)
    return run.stdout.strip() or "unknown"
