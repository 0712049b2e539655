"""What a measurement was made on."""

from __future__ import annotations

import platform
from pathlib import Path


def describe_machine() -> dict[str, str]:
    """CPU, threads, kernels and versions, by name."""
    import torch

    from textclf_fast import __version__, _libraries

    return {
        "CPU": _cpu_model(),
        "kernels": _libraries.cpu_isa(),
        "threads": str(torch.get_num_threads()),
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "textclf_fast": __version__,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
