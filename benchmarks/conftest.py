"""Prints the table of ratios after `pytest benchmarks`, and writes it as JSON to benchmarks/results/."""

from __future__ import annotations

import json
import math
import os
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from textclf_fast.cli.machine import describe_machine

RESULTS = Path(__file__).parent / "results"


def _git_commit() -> str:
    run = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=RESULTS)
    return run.stdout.strip() or "unknown"


def _rows(benchmarks: list[Any]) -> list[dict[str, Any]]:
    return [
        {
            **{key: bench.extra_info[key] for key in ("kind", "cell", "mode", "rounds")},
            "ours_seconds": bench.stats.median,
            "peer_seconds": bench.extra_info["peers"],
            "ratios": {name: seconds / bench.stats.median for name, seconds in bench.extra_info["peers"].items()},
        }
        for bench in benchmarks
        if "cell" in bench.extra_info
    ]


def _print(rows: list[dict[str, Any]], console: Console) -> None:
    table = Table(title="nn.LSTM's time / ours (above 1: ours is faster); medians of interleaved rounds")
    for column in ("cell", "mode", "ours", "padded", "packed", "vs padded", "vs packed"):
        table.add_column(column, justify="left" if column in ("cell", "mode") else "right")
    for row in rows:
        peers, ratios = row["peer_seconds"], row["ratios"]
        cells = [f"{peers[name] * 1e3:.3f} ms" if name in peers else "" for name in ("padded", "packed")]
        cells += [f"{ratios[name]:.2f}x" if name in ratios else "" for name in ("padded", "packed")]
        table.add_row(row["cell"], row["mode"], f"{row['ours_seconds'] * 1e3:.3f} ms", *cells)
    console.print(table)
    for mode in ("inference", "training"):
        ratios = [row["ratios"]["padded"] for row in rows if row["kind"] == "float" and row["mode"] == mode]
        if ratios:
            mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
            console.print(
                f"float input, {mode}: geometric mean {mean:.2f}x, least {min(ratios):.2f}x, of {len(ratios)} shapes"
            )


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    rows = _rows(session.benchmarks) if session else []
    if not rows:
        return
    console = Console(width=150)
    _print(rows, console)
    report = {
        "machine": describe_machine(),
        "cores": os.cpu_count(),
        "commit": _git_commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": "make bench",
        "rows": rows,
    }
    path = Path(os.environ.get("TEXTCLF_FAST_RESULTS", RESULTS / "cpu.json"))
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    console.print(f"written: {path}")
