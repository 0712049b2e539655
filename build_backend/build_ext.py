"""The setuptools command that builds the three libraries; docs/architecture.md says why there are three.

Library, sources, kind:
    _C: csrc/ops.cpp, csrc/cpu/, the C++ files of csrc/cuda/: a plain library on LibTorch's stable ABI, without Python
    _C_cuda: csrc/cuda/: the same for CUDA, compiled and linked by nvcc, whatever kind of torch is here
    _host: csrc/host/: a pybind11 module, without torch
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension
from setuptools.command.build_ext import build_ext as SetuptoolsBuildExt

from .compile_rules import (
    add_cpp_library,
    add_cpp_rules,
    add_cuda_library,
    python_compile_flags,
    torch_compile_flags,
    torch_link_flags,
)
from .cuda_toolkit import find_cuda_toolkit
from .errors import BuildError
from .find_torch import require_torch
from .host_compiler import find_host_compiler
from .ninja_file import NinjaFile, find_ninja, run_ninja
from .switches import max_jobs

PACKAGE = "textclf_fast"
CPU, CUDA, HOST = (f"{PACKAGE}.{name}" for name in ("_C", "_C_cuda", "_host"))
RECORD = "_build.txt"  # read by textclf_fast/_libraries.py


def extensions() -> list[Extension]:
    """The libraries and their sources; headers are no part of this: the compilers report those that they read."""
    globs = {
        CPU: ["csrc/ops.cpp", "csrc/cpu/*.cpp", "csrc/cuda/*.cpp"],
        CUDA: ["csrc/cuda/*.cu"],
        HOST: ["csrc/host/*.cpp"],
    }
    return [
        Extension(name, sorted(str(p) for g in patterns for p in Path().glob(g))) for name, patterns in globs.items()
    ]


class BuildExt(SetuptoolsBuildExt):
    """Compiles by ninja, in build/ninja-*, which is kept: the next build compiles only what changed."""

    extensions: list[Extension]

    def get_ext_filename(self, fullname: str) -> str:
        # setuptools asks by the full name and by its last part alone. Plain libraries carry no tag of a Python version.
        if fullname.rpartition(".")[2] in ("_C", "_C_cuda"):
            return fullname.replace(".", "/") + ".so"
        return str(super().get_ext_filename(fullname))

    def run(self) -> None:
        if not sys.platform.startswith("linux"):
            raise BuildError(f"textclf_fast is built on Linux only so far, and this is {sys.platform}")
        self._toolkit, cuda_line = find_cuda_toolkit(os.environ)
        print(f"{PACKAGE}: CUDA library {cuda_line}")
        self._record = {"cuda": cuda_line}
        # Where the libraries go: what becomes the wheel and, in an editable build, the source folder too.
        folders = [Path(self.build_lib) / PACKAGE, *([Path(PACKAGE)] if self.inplace else [])]
        if self._toolkit is None:
            self.extensions = [extension for extension in self.extensions if extension.name != CUDA]
            for folder in folders:
                (folder / "_C_cuda.so").unlink(missing_ok=True)  # of an earlier build
        super().run()
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / RECORD).write_text("".join(f"{k}: {v}\n" for k, v in self._record.items()), encoding="utf-8")

    def build_extensions(self) -> None:
        folder = Path("build") / f"ninja-{self.plat_name}-{sysconfig.get_config_var('SOABI')}"
        folder.mkdir(parents=True, exist_ok=True)
        built = {ext.name: folder / Path(self.get_ext_filename(ext.name)).name for ext in self.extensions}
        self._ninja_file(built).write(folder / "build.ninja")
        run_ninja(find_ninja(os.environ), folder, max_jobs(os.environ))
        for name, library in built.items():
            target = Path(self.get_ext_fullpath(name))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(library, target)

    def _ninja_file(self, libraries: dict[str, Path]) -> NinjaFile:
        compiler = find_host_compiler(os.environ)
        torch = require_torch()
        self._record |= {"compiler": compiler.version, "torch": torch.version}
        sources = {extension.name: extension.sources for extension in self.extensions}
        ninja = NinjaFile()
        add_cpp_rules(ninja, compiler, os.environ)
        add_cpp_library(ninja, libraries[CPU], sources[CPU], torch_compile_flags(torch), torch_link_flags(torch))
        add_cpp_library(ninja, libraries[HOST], sources[HOST], python_compile_flags(), [])
        if self._toolkit is not None:
            add_cuda_library(ninja, libraries[CUDA], sources[CUDA], self._toolkit, torch, compiler)
        return ninja
