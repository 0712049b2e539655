"""Programs made of csrc/cuda/ by g++ on the emulator (docs/emulator.md), with sanitizers or without."""

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
    if shutil.which(_COMPILER[0]) is None:
        pytest.skip(f"{_COMPILER[0]} is not installed")
    files = [csrc.parent / s if s.startswith("csrc/") else ROOT / s for s in sources]
    target = _folder() / f"program-{len(list(_folder().iterdir()))}"
    command = [*_COMPILER, *_FLAGS, *FLAVOURS[flavour], f"-I{csrc}", f"-I{ROOT / 'tests'}", *options]
    done = subprocess.run([*command, "-x", "c++", *map(str, files), "-o", str(target)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def run(program: Path, arguments: Sequence[object], **environ: str) -> subprocess.CompletedProcess[str]:
    """Its output, stdout and stderr; a sanitizer's complaint ends it with another code than 0."""
    environment = os.environ | environ | {"ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "halt_on_error=1"}
    # Without address randomization: TSan knows only the usual places of memory.
    command = ["setarch", "-R"] if shutil.which("setarch") else []
    return subprocess.run(
        [*command, str(program), *map(str, arguments)], capture_output=True, text=True, env=environment
    )
