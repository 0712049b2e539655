"""What a GPU measurement was made on."""

from __future__ import annotations

import subprocess

import torch

from textclf_fast import _libraries
from textclf_fast.cli.machine import describe_machine

_ASKED = {
    "driver": "driver_version",
    "SM clock": "clocks.sm",
    "memory clock": "clocks.mem",
    "largest SM clock": "clocks.max.sm",
    "power limit": "power.limit",
    "temperature": "temperature.gpu",
}


def describe_gpu(device: torch.device) -> dict[str, str]:
    """The machine, the GPU, its clocks at this moment, and versions, by name."""
    described = describe_machine() | {"CUDA library": _libraries.cuda_status()}
    if device.type != "cuda":
        return described | {"GPU": "none: a dry run on the CPU"}
    properties = torch.cuda.get_device_properties(device)
    described |= {
        "GPU": properties.name,
        "compute capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": str(properties.multi_processor_count),
        "memory": f"{properties.total_memory / 2**30:.1f} GiB",
        "second-level cache": f"{properties.L2_cache_size / 2**20:.0f} MiB",
        "CUDA": str(torch.version.cuda),
        "cuDNN": str(torch.backends.cudnn.version()),
    }
    return described | _asked_of_the_driver()


def _asked_of_the_driver() -> dict[str, str]:
    command = ["nvidia-smi", f"--query-gpu={','.join(_ASKED.values())}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    values = [value.strip() for value in done.stdout.splitlines()[0].split(",")] if done.stdout else []
    return dict(zip(_ASKED, values, strict=False))
