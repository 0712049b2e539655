"""`textclf-fast info`: what is installed here, and which kernels it will run."""

from __future__ import annotations

import json
import platform
from importlib import metadata

import numpy as np
import torch

from textclf_fast import _libraries


def _gpus() -> str:
    if torch.version.cuda is None:
        return "none that torch can use"
    count = torch.cuda.device_count()
    return ", ".join(torch.cuda.get_device_name(i) for i in range(count)) if count else "none found"


def rows() -> list[tuple[str, str]]:
    """Label and text of every line."""
    record = _libraries.build_record()
    return [
        ("textclf_fast", metadata.version("textclf_fast")),
        ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("torch", f"{torch.__version__} (CUDA {torch.version.cuda or 'none'})"),
        ("numpy", np.__version__),
        ("built with", f"{record.get('compiler', 'unknown')}, headers of torch {record.get('torch', 'unknown')}"),
        ("CPU kernels", _libraries.cpu_isa()),
        ("CUDA kernels", _libraries.cuda_status()),
        ("GPUs", _gpus()),
        ("threads", str(torch.get_num_threads())),
    ]


def info(as_json: bool = False) -> None:
    """Prints versions, the instruction set chosen, whether CUDA was built and loaded or why not, and threads."""
    lines = rows()
    if as_json:
        print(json.dumps(dict(lines)))
        return
    width = max(len(label) for label, _ in lines)
    for label, text in lines:
        print(f"{label:<{width}}  {text}")
