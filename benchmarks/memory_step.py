"""The peak memory of one training step, measured in a process of its own: see `peak_growth`."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.timing import Call

_ROOT = Path(__file__).parents[1]
# glibc hands blocks above its threshold back to the system when they are freed, but raises the threshold with each of
# them. Fixed at 64 KiB, what is resident is what is allocated, whoever allocates it.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}


def measure(name: str) -> float:
    """MiB that a training step of ``name`` ("ours", "padded", "packed") needs at its peak; in a fresh process.

    Raises:
        RuntimeError: the process failed; holds what it said.
    """
    # Appended, not put first: an installed package is measured where there is one, as elsewhere in the benchmarks.
    code = f"import sys; sys.path.append({str(_ROOT)!r}); from benchmarks.memory_step import main; main({name!r})"
    with tempfile.TemporaryDirectory() as elsewhere:  # Python looks for modules in the working directory first
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=elsewhere, env=os.environ | _MALLOC
        )
    if done.returncode:
        raise RuntimeError(f"measuring {name} failed:\n{done.stderr}")
    return float(done.stdout)


def main(name: str) -> None:
    """Prints the peak in MiB."""
    print(peak_of_a_step(name) / 2**20)


def peak_of_a_step(name: str) -> int:
    """Bytes that one forward and backward needs at its peak.

    A tiny step goes before: it loads the libraries, starts the threads and makes what PyTorch keeps for good.
    """
    from benchmarks.calls import make_contest
    from benchmarks.cells import RAGGED

    tiny = make_contest(replace(RAGGED, rows=2, steps=3), training=True)
    contest = make_contest(RAGGED, training=True)
    {"ours": tiny.ours, **tiny.peers}[name]()
    return peak_growth({"ours": contest.ours, **contest.peers}[name])


def peak_growth(call: Call) -> int:
    """Bytes by which the resident memory of this process grows, at its peak, while ``call`` runs.

    The kernel's record of the peak is set to what is resident now; its value afterwards, less that, is every allocation
    of the call, by whatever allocator: activations, gradients, scratch.
    """
    ctypes.CDLL(None).malloc_trim(0)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    call()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    found = re.search(
        rf"^{field}:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii", errors="replace"), re.MULTILINE
    )
    assert found is not None
    return int(found[1]) * 1024
