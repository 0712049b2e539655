"""Prints the table of ratios and targets after `pytest benchmarks`, and writes it as JSON to benchmarks/results/."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.machine_peaks import measure_peaks
from benchmarks.report import RESULTS, Record, Row, make_report, print_table, write_report
from benchmarks.timing import flush_denormals

# pytest leaves sys.path alone here, and a process of the peers' own (peer_process.py) has to find this package. At the
# end: textclf_fast is the installed one.
sys.path.append(str(Path(__file__).parents[1]))

_ROWS = pytest.StashKey[list[Row]]()
_UNMEASURED = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    flush_denormals()
    config.stash[_ROWS] = []
    config.stash[_UNMEASURED] = {}


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Adds a row to the table."""
    return request.config.stash[_ROWS].append


@pytest.fixture
def unmeasured(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Says why a cell cannot be measured here: unmeasured(cell, reason)."""
    return request.config.stash[_UNMEASURED].__setitem__


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(config: pytest.Config) -> None:
    rows, unmeasured = config.stash[_ROWS], config.stash[_UNMEASURED]
    if not rows and not unmeasured:
        return
    print_table(rows, unmeasured)
    path, command = _path(config), shlex.join(["pytest", *config.invocation_params.args])
    write_report(make_report(rows, unmeasured, command, measure_peaks()), path)
    print(f"written: {path}")


def _path(config: pytest.Config) -> Path:
    """Where the numbers go; those of a part do not take the place of the whole."""
    if named := os.environ.get("TEXTCLF_FAST_RESULTS"):
        return Path(named)
    whole = not config.option.keyword and [Path(arg).resolve() for arg in config.args] == [Path(__file__).parent]
    return RESULTS if whole else RESULTS.with_name("part.json")
