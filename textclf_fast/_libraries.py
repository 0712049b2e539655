"""Finds and loads the compiled libraries that stand beside this file.

`_C.so` holds the ops for the CPU and is always there. `_C_cuda.so` holds those for CUDA: it is built wherever nvcc was,
and loaded only where torch has CUDA, for it needs libtorch_cuda. Both are plain libraries without Python symbols;
loading them registers the ops with torch. Neither is bound to one torch version: they use LibTorch's stable ABI alone.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import warnings
from pathlib import Path
from typing import Any

import torch

_FOLDER = Path(__file__).parent
_CPU_LIBRARY = _FOLDER / "_C.so"
_CUDA_LIBRARY = _FOLDER / "_C_cuda.so"
_BUILD_RECORD = _FOLDER / "_build.txt"
_MINIMUM_TORCH = (2, 11)
# From the plainest on: the names in csrc/cpu/dispatch.cpp.
CPU_ISAS = ("generic", "avx2", "avx512", "avx512_bf16", "amx")
BFLOAT16_ISAS = CPU_ISAS[3:]  # that multiply bfloat16
INT8_ISAS = ("generic", "avx2", "avx512", "avx512vnni")  # of the int8 kernels; those in csrc/cpu/int8_dispatch.cpp


def tf32_is_allowed() -> bool:
    """Whether float32 layers may be rounded to tf32 on a GPU: as in nn.LSTM, by PyTorch's switch for cuDNN's RNNs.

    That is ``torch.backends.cudnn.allow_tf32`` or, by its newer name, ``torch.backends.cudnn.rnn.fp32_precision``; this
    reads it without the 6 us that the attribute takes.
    """
    return bool(torch._C._get_fp32_precision_getter("cuda", "rnn") == "tf32")


_ask_tf32 = ctypes.CFUNCTYPE(ctypes.c_int)(tf32_is_allowed)  # lives as long as the library that calls it


@functools.cache
def cuda_has(op: str) -> bool:
    """Whether an op has a kernel for CUDA tensors here."""
    load()
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"textclf_fast::{op}", "CUDA")


@functools.cache
def _load_cuda() -> str | None:
    """Loads `_C_cuda.so` where there is one and torch has CUDA. Returns why it was not loaded, None if it was."""
    if not _CUDA_LIBRARY.is_file():
        return build_record().get("cuda", "not built: this build left no record")
    if torch.version.cuda is None:
        return f"not loaded: torch {torch.__version__} has no CUDA"
    try:
        torch.ops.load_library(str(_CUDA_LIBRARY))
    except OSError as error:
        # The CPU's ops are good without it.
        warnings.warn(f"textclf_fast: the CUDA library could not be loaded: {error}", RuntimeWarning, stacklevel=2)
        return f"not loaded: {error}"
    ctypes.CDLL(str(_CUDA_LIBRARY)).textclf_fast_cuda_ask_tf32(_ask_tf32)
    return None


@functools.cache
def load() -> None:
    """Registers the ops with torch; a second call does nothing.

    Raises:
        ImportError: torch is too old, TEXTCLF_FAST_ISA names no instruction set, or the compiled library is missing or
            does not load.
    """
    version = re.match(r"(\d+)\.(\d+)", torch.__version__)
    if version is not None and (int(version[1]), int(version[2])) < _MINIMUM_TORCH:
        raise ImportError(f"textclf_fast needs torch >= 2.11, and this is torch {torch.__version__}: upgrade torch")
    cap = os.environ.get("TEXTCLF_FAST_ISA")
    if cap not in (None, "", *CPU_ISAS):
        raise ImportError(f"TEXTCLF_FAST_ISA: got {cap!r}, expected one of {', '.join(CPU_ISAS)}")
    if not _CPU_LIBRARY.is_file():
        raise ImportError(
            f"textclf_fast's compiled library {_CPU_LIBRARY} is missing: run `pip install .` (or `pip install -e .`) "
            "in the project's folder; if that was done, the source folder is imported instead of the installed "
            "package: run Python from elsewhere"
        )
    try:
        torch.ops.load_library(str(_CPU_LIBRARY))
    except OSError as error:
        raise ImportError(
            f"textclf_fast's compiled library {_CPU_LIBRARY} does not load with torch {torch.__version__} ({error}): "
            "build it again with `pip install --force-reinstall --no-deps .` in the project's folder"
        ) from error
    _load_cuda()


def library_path() -> str:
    """The file of the CPU's ops: ``torch.ops.load_library`` of it, or ``dlopen``, is all that an exported model needs.

    It holds no Python symbols and is bound to no Python version; torch has to be 2.11 or later.
    """
    return str(_CPU_LIBRARY)


def cpu_isa() -> str:
    """The instruction set that the CPU kernels use here: one of CPU_ISAS."""
    return str(_isa_function()().decode())


@functools.cache
def _isa_function() -> Any:
    load()
    isa = ctypes.CDLL(str(_CPU_LIBRARY)).textclf_fast_cpu_isa
    isa.restype = ctypes.c_char_p
    return isa


def cuda_status() -> str:
    """Whether the CUDA library was built and loaded, or why not."""
    load()
    reason = _load_cuda()
    if not _CUDA_LIBRARY.is_file():
        return str(reason)
    return f"{build_record().get('cuda', 'built')}; {reason or 'loaded'}"


def build_record() -> dict[str, str]:
    """What the build noted: "compiler", "torch" (whose headers were used) and "cuda" (built for what, or why not)."""
    if not _BUILD_RECORD.is_file():
        return {}
    lines = _BUILD_RECORD.read_text(encoding="utf-8").splitlines()
    return {key: value for key, _, value in (line.partition(": ") for line in lines)}


def learn_threads(on: bool) -> None:
    """Whether calls of few rows learn how many threads they had better take, from now on (csrc/cpu/thread_choice.h)."""
    load()
    ctypes.CDLL(str(_CPU_LIBRARY)).textclf_fast_learn_threads(int(on))


def poison(on: bool) -> None:
    """Has the CPU ops fill memory that they have not written yet with NaN, for tests."""
    load()
    ctypes.CDLL(str(_CPU_LIBRARY)).textclf_fast_poison(int(on))


def use_cpu_isa(name: str) -> None:
    """Switches the CPU kernels to another instruction set, for tests and comparisons.

    Raises:
        ValueError: the name is unknown or this machine lacks the set.
    """
    load()
    if not ctypes.CDLL(str(_CPU_LIBRARY)).textclf_fast_use_cpu_isa(name.encode()):
        raise ValueError(f"name: instruction set {name!r} is unknown or not on this machine")


def int8_isa() -> str:
    """The instruction set that the int8 kernels use here: "generic", "avx2", "avx512" or "avx512vnni"."""
    load()
    isa = ctypes.CDLL(str(_CPU_LIBRARY)).textclf_fast_int8_isa
    isa.restype = ctypes.c_char_p
    return str(isa().decode())


def use_int8_isa(name: str) -> None:
    """Switches the CPU kernels to the instruction set that these int8 kernels belong to, for tests and comparisons.

    Raises:
        ValueError: the name is unknown or this machine lacks the set.
    """
    with_vnni = name == "avx512vnni"
    use_cpu_isa("avx512" if with_vnni else name)
    if not ctypes.CDLL(str(_CPU_LIBRARY)).textclf_fast_use_vnni(int(with_vnni)):
        raise ValueError(f"name: instruction set {name!r} is not on this machine")
