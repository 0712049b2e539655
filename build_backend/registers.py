"""Registers and spills of every CUDA kernel, as ptxas counts them: `python -m build_backend.registers` writes the page.

No GPU is needed. From the project's folder; arguments are architectures, such as 8.0 9.0a, instead of the usual ones.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from .compile_rules import NVCC_FLAGS
from .cuda_toolkit import CudaToolkit, find_cuda_toolkit
from .errors import BuildError
from .switches import cuda_architectures, max_jobs

PAGE = Path("docs") / "cuda-registers.md"
ARCHITECTURES = ("8.0", "9.0", "9.0a", "10.0", "12.0")

_KERNEL = re.compile(r"Compiling entry function '(\w+)' for '(sm_\w+)'")
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")

_HEAD = """\
# Registers of the CUDA kernels

What `ptxas -v` says ({version}), written by `python -m build_backend.registers`: registers of a thread; where there are
any, spilled bytes, stored and loaded, and shared memory that the kernel declares (what a launch asks for besides is the
plan's, `csrc/cuda/lstm_plan.h`). A block of 512 threads leaves 128 registers a thread. This is what the compiler says,
not what a GPU measured.

"""


@dataclass(frozen=True)
class KernelUse:
    """One kernel on one architecture; amounts in bytes but for registers (a thread)."""

    kernel: str
    architecture: str  # such as sm_90
    registers: int
    shared: int
    spill_stores: int
    spill_loads: int

    def __str__(self) -> str:
        parts = [str(self.registers)]
        if self.shared:
            parts.append(f"{self.shared} B shared")
        if self.spill_stores or self.spill_loads:
            parts.append(f"**{self.spill_stores} + {self.spill_loads} B spilled**")
        return ", ".join(parts)


def parse_ptxas(output: str) -> list[KernelUse]:
    """The kernels in what `ptxas -v` printed, by their mangled names, in its order.

    Raises:
        ValueError: a kernel's lines are not all there: ptxas prints something else than it did.
    """
    pieces = re.split(r"(?=ptxas info\s*: Compiling entry function)", output)
    uses = []
    for piece in pieces:
        kernel = _KERNEL.search(piece)
        if kernel is None:
            continue
        used, spills, shared = _USED.search(piece), _SPILLS.search(piece), _SHARED.search(piece)
        if used is None or spills is None:
            raise ValueError(f"ptxas: no line 'Used N registers' or 'N bytes spill stores' for {kernel[1]}")
        amounts = int(used[1]), int(shared[1]) if shared else 0, int(spills[1]), int(spills[2])
        uses.append(KernelUse(kernel[1], kernel[2], *amounts))
    return uses


def short_name(demangled: str) -> str:
    """A kernel's own name and template arguments, without namespaces, result and parameters."""
    name = re.sub(r"\(anonymous namespace\)::|\b\w+::", "", demangled.removeprefix("void "))
    depth = 0
    for at, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0 and at > 0:
            name = name[:at]
            break
    return re.sub(r"\((?:int|bool|unsigned int)\)", "", name)


def write_page(uses: Sequence[KernelUse], version: str) -> str:
    """The page: a line a kernel, a column an architecture."""
    architectures = list(dict.fromkeys(use.architecture for use in uses))
    lines = [f"| kernel | {' | '.join(architectures)} |", f"|---|{'---|' * len(architectures)}"]
    cells = {(use.kernel, use.architecture): str(use) for use in uses}
    for kernel in sorted({use.kernel for use in uses}):
        lines.append(f"| `{kernel}` | {' | '.join(cells.get((kernel, a), '') for a in architectures)} |")
    return _HEAD.format(version=f"nvcc {version}") + "\n".join(lines) + "\n"


def kernel_sources(folder: Path) -> list[Path]:
    """The .cu files that hold kernels: those without torch's headers."""
    return [path for path in sorted(folder.glob("*.cu")) if "<torch/" not in path.read_text(encoding="utf-8")]


def _compile(toolkit: CudaToolkit, source: Path, architecture: str) -> str:
    flags = [flag for flag in NVCC_FLAGS if "warn-spills" not in flag]  # reported here, not complained of
    target = ["-cubin", f"-arch=sm_{architecture.replace('.', '')}", "-Xptxas=-v", "-o", os.devnull]
    done = subprocess.run([*toolkit.command, *flags, *target, str(source)], capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"{source} was not compiled for {architecture}:\n{done.stderr}")
    return done.stderr


def _demangled(names: Iterable[str]) -> dict[str, str]:
    names = sorted(set(names))
    if shutil.which("c++filt") is None:
        raise BuildError("c++filt is not installed: it comes with binutils")
    done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return dict(zip(names, map(short_name, done.stdout.splitlines()), strict=True))


def collect(toolkit: CudaToolkit, sources: Sequence[Path], architectures: Sequence[str]) -> list[KernelUse]:
    """Compiles every source for every architecture, MAX_JOBS at a time; architecture by architecture in the result."""

    def compiled(work: tuple[str, Path]) -> list[KernelUse]:
        architecture, source = work
        uses = parse_ptxas(_compile(toolkit, source, architecture))
        print(f"{source} for {architecture}", flush=True)
        return uses

    with ThreadPoolExecutor(max_jobs(os.environ) or os.cpu_count()) as pool:
        uses = [use for part in pool.map(compiled, itertools.product(architectures, sources)) for use in part]
    names = _demangled(use.kernel for use in uses)
    return [replace(use, kernel=names[use.kernel]) for use in uses]


def main(arguments: Sequence[str]) -> None:
    asked = cuda_architectures({"TORCH_CUDA_ARCH_LIST": " ".join(arguments)}) or list(ARCHITECTURES)
    toolkit, line = find_cuda_toolkit({**os.environ, "TORCH_CUDA_ARCH_LIST": ""})
    if toolkit is None:
        raise BuildError(line)
    uses = collect(toolkit, kernel_sources(Path("csrc") / "cuda"), asked)
    PAGE.write_text(write_page(uses, toolkit.version), encoding="utf-8")
    print(f"written: {PAGE}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BuildError as error:
        sys.exit(str(error))
