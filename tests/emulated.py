"""Programs made of csrc/cuda/: by g++ on the emulator (docs/emulator.md), with sanitizers or without, or by nvcc."""

from __future__ import annotations

import atexit
import functools
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCHEDULES = (0, 1, 2, 3)  # in order, reversed, two by chance
FLAVOURS = {
    "plain": [],
    "asan": ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "tsan": ["-g", "-fsanitize=thread"],
}
# On a GPU, by itself and under the tools of compute-sanitizer.
GPU_FLAVOURS = {"gpu": []} | {
    tool: ["compute-sanitizer", "--tool", tool, "--error-exitcode", "99"]
    for tool in ("memcheck", "racecheck", "synccheck")
}
# For tests of right results, and for those with sanitizers.
ON_BOTH = ["plain", pytest.param("gpu", marks=pytest.mark.gpu)]
SANITIZERS = ["asan", "tsan", *(pytest.param(name, marks=pytest.mark.gpu) for name in GPU_FLAVOURS if name != "gpu")]
NOT_ON_THIS_GPU = 3  # a program's exit code
_COMPILER = shlex.split(os.environ.get("CXX", "")) or ["g++"]
_FLAGS = ["-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]


@functools.cache
def _folder() -> Path:
    folder = tempfile.mkdtemp(prefix="emulated-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@functools.cache
def program(sources: tuple[str, ...], flavour: str, options: tuple[str, ...] = (), csrc: Path = ROOT / "csrc") -> Path:
    """The program that these files make (paths from the project's folder; .cu as C++), compiled once a session.

    csrc: where the kernels' headers and the .cu files are, for tests that change them.
    """
    if flavour in GPU_FLAVOURS:
        if flavour != "gpu":
            return program(sources, "gpu", options, csrc)
        command = gpu_compiler("native")
    else:
        _need(_COMPILER[0])
        command = [*_COMPILER, *_FLAGS, *FLAVOURS[flavour]]
    files = [csrc.parent / s if s.startswith("csrc/") else ROOT / s for s in sources]
    target = _folder() / f"program-{len(list(_folder().iterdir()))}"
    command += [f"-I{csrc}", f"-I{ROOT / 'tests'}", *options, "-x", "cu" if flavour == "gpu" else "c++"]
    done = subprocess.run([*command, *map(str, files), "-o", str(target)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def run(
    program: Path, arguments: Sequence[object], flavour: str = "plain", **environ: str
) -> subprocess.CompletedProcess[str]:
    """Its output, stdout and stderr; a sanitizer's complaint ends it with another code than 0.

    On a GPU that cannot run it the test is skipped.
    """
    environment = os.environ | environ | {"ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "halt_on_error=1"}
    if flavour in GPU_FLAVOURS:
        command = GPU_FLAVOURS[flavour]
        _need(*command[:1])
    else:  # without address randomization: TSan knows only the usual places of memory
        command = ["setarch", "-R"] if shutil.which("setarch") else []
    done = subprocess.run(
        [*command, str(program), *map(str, arguments)], capture_output=True, text=True, env=environment
    )
    if flavour in GPU_FLAVOURS and done.returncode == NOT_ON_THIS_GPU:
        pytest.skip("this GPU has no such teams of blocks")
    return done


def gpu_compiler(architecture: str) -> list[str]:
    """nvcc for it; "native" is that of the GPU that is there."""
    _need("nvcc")
    return ["nvcc", "-std=c++20", "-O3", f"-arch={architecture}"]


def _need(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
