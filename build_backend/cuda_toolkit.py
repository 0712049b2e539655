"""Finds nvcc and decides whether the CUDA library is built: by the toolchain alone, never by what GPU is visible.

So a machine without a GPU builds the very library that a machine with one runs.
"""

from __future__ import annotations

import re
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import BuildError
from .switches import cuda_architectures, cuda_mode, gencode_flags
from .trial import first_complaint, run_tool

MINIMUM = (12, 0)  # the first nvcc that knows C++20, which LibTorch's stable ABI is written in

# Machine code for these where the toolkit knows them (sm_80 code runs on 8.6 and 8.9 too), and PTX of the last one,
# from which the driver makes code for every later GPU.
_DEFAULT_ARCHITECTURES = ("8.0", "9.0")

_TRIAL = """\
#include <cuda_runtime.h>
#include <vector>
__global__ void kernel(int* p) { *p = 1; }
void launch(int* p) { kernel<<<1, 1>>>(p); std::vector<int> v(1); }
"""


@dataclass(frozen=True)
class CudaToolkit:
    command: list[str]
    version: str
    architectures: list[str]  # as in TORCH_CUDA_ARCH_LIST

    @property
    def gencode(self) -> list[str]:
        return gencode_flags(self.architectures)


class Unfit(Exception):
    """Why CUDA cannot be built here, in one line."""


def _find_nvcc(environ: Mapping[str, str]) -> str:
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if folder := environ.get(variable):
            nvcc = Path(folder) / "bin" / "nvcc"
            if not nvcc.is_file():
                raise Unfit(f"{variable}={folder} holds no bin/nvcc")
            return str(nvcc)
    usual = Path("/usr/local/cuda/bin/nvcc")
    nvcc_found = shutil.which("nvcc", path=environ.get("PATH")) or (str(usual) if usual.is_file() else None)
    if nvcc_found is None:
        raise Unfit("no nvcc found on PATH, in CUDA_HOME or in /usr/local/cuda")
    return nvcc_found


def _version(nvcc: str) -> str:
    works, output = run_tool([nvcc, "--version"])
    match = re.search(r"release (\d+)\.(\d+), V([\d.]+)", output)
    if not works or match is None:
        raise Unfit(f"{nvcc} --version failed ({first_complaint(output)})")
    if (int(match[1]), int(match[2])) < MINIMUM:
        raise Unfit(f"nvcc {match[3]} ({nvcc}) is too old: {MINIMUM[0]}.{MINIMUM[1]} or newer is needed for C++20")
    return match[3]


def _supported(nvcc: str) -> str:
    works, output = run_tool([nvcc, "--list-gpu-code"])
    if not works:
        raise Unfit(f"{nvcc} --list-gpu-code failed ({first_complaint(output)})")
    return output


def default_architectures(supported: str) -> list[str]:
    """The default list, cut down to what `nvcc --list-gpu-code` names in `supported`."""
    known = [a for a in _DEFAULT_ARCHITECTURES if f"sm_{a.replace('.', '')}" in supported.split()]
    return [*known[:-1], f"{known[-1]}+PTX"] if known else []


def probe_toolkit(environ: Mapping[str, str]) -> CudaToolkit:
    """The toolkit, after a trial compile and link for the architectures asked for. Raises Unfit."""
    wanted = cuda_architectures(environ)
    nvcc = _find_nvcc(environ)
    version = _version(nvcc)
    command = [nvcc]
    if compiler := shlex.split(environ.get("CXX") or ""):
        command += ["-ccbin", compiler[-1]]  # the last word: a launcher such as ccache stays out
    architectures = wanted or default_architectures(_supported(nvcc))
    if not architectures:
        raise Unfit(f"nvcc {version} knows none of {', '.join(_DEFAULT_ARCHITECTURES)}: set TORCH_CUDA_ARCH_LIST")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "trial.cu"
        source.write_text(_TRIAL)
        target = ["-std=c++20", "-shared", "-cudart=static", "-Xcompiler=-fPIC", *gencode_flags(architectures)]
        works, output = run_tool([*command, *target, str(source), "-o", f"{folder}/trial.so"])
    if not works:
        raise Unfit(f"nvcc {version} ({nvcc}) fails a trial compile: {first_complaint(output)}")
    return CudaToolkit(command, version, architectures)


def find_cuda_toolkit(environ: Mapping[str, str]) -> tuple[CudaToolkit | None, str]:
    """The toolkit to build with, or None; and the line about it that is kept beside the libraries.

    Raises:
        BuildError: TEXTCLF_FAST_CUDA=1 asks for CUDA and it cannot be built, or a switch is not understood.
    """
    mode = cuda_mode(environ)
    if mode == "0":
        return None, "not built: TEXTCLF_FAST_CUDA=0 was set"
    try:
        toolkit = probe_toolkit(environ)
    except Unfit as reason:
        if mode == "1":
            raise BuildError(
                f"TEXTCLF_FAST_CUDA=1 asks for CUDA, but {reason}; install a fitting CUDA toolkit or point CUDA_HOME "
                "to one, or set TEXTCLF_FAST_CUDA=0 to build for the CPU alone"
            ) from None
        return None, f"not built: {reason}"
    return toolkit, f"built for {';'.join(toolkit.architectures)} by nvcc {toolkit.version}"
