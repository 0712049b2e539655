"""How each kind of library is compiled and linked, as statements of a build.ninja."""

from __future__ import annotations

import shlex
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

from .cuda_toolkit import CudaToolkit
from .errors import BuildError
from .find_torch import Torch
from .host_compiler import HostCompiler
from .ninja_file import NinjaFile

# Never -march=native: a binary runs on other machines too, and chooses its instruction set when it is loaded.
_CXX_FLAGS = ["-std=c++20", "-O3", "-ffp-contract=fast", "-fPIC", "-fvisibility=hidden", "-DNDEBUG", "-Wall", "-Wextra"]
NVCC_FLAGS = ["-std=c++20", "-O3", "-DNDEBUG", "-DUSE_CUDA", "-Xptxas=-warn-spills"]
NVCC_FLAGS += ["-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra"]


def torch_compile_flags(torch: Torch) -> list[str]:
    """For the stable ABI as it was in torch 2.11: what is compiled so runs with every torch from there on."""
    return ["-isystem", str(torch.include), "-DTORCH_TARGET_VERSION=0x020b000000000000"]


def torch_link_flags(torch: Torch) -> list[str]:
    """No rpath: `import torch` has loaded these before our libraries are."""
    return [f"-L{torch.library}", "-ltorch_cpu", "-lc10"]


def python_compile_flags() -> list[str]:
    """For the pybind11 module."""
    python = Path(sysconfig.get_path("include"))
    if not (python / "Python.h").is_file():
        raise BuildError(f"{python}/Python.h is missing: install Python's headers (Debian: apt install python3-dev)")
    try:
        import pybind11
    except ImportError:
        advice = "`pip install pybind11`, or build without --no-build-isolation"
        raise BuildError(f"pybind11 is not installed: {advice}") from None
    return ["-isystem", str(python), "-isystem", pybind11.get_include()]


def add_cpp_rules(ninja: NinjaFile, compiler: HostCompiler, environ: Mapping[str, str]) -> None:
    """The rules "cxx" and "link"; CXXFLAGS and LDFLAGS come last, so that they win."""
    cxx_flags, link_flags = (shlex.split(environ.get(variable, "")) for variable in ("CXXFLAGS", "LDFLAGS"))
    depfile = ["-MMD", "-MF", "$out.d"]
    compile_ = [*compiler.command, *_CXX_FLAGS, "$flags", *cxx_flags, *depfile, "-c", "$in", "-o", "$out"]
    ninja.rule("cxx", compile_, compiles=True)
    ninja.rule("link", [*compiler.command, "-shared", "$in", "-o", "$out", "$flags", *cxx_flags, *link_flags])


def add_cpp_library(
    ninja: NinjaFile, library: Path, sources: Sequence[str], compile_flags: Sequence[str], link_flags: Sequence[str]
) -> None:
    objects = [ninja.build(_object(library, source), "cxx", [Path(source)], compile_flags) for source in sources]
    ninja.build(library, "link", objects, link_flags)


def add_cuda_library(
    ninja: NinjaFile, library: Path, sources: Sequence[str], toolkit: CudaToolkit, torch: Torch, compiler: HostCompiler
) -> None:
    """Adds the CUDA library; nvcc alone compiles and links it, so a torch without CUDA will do.

    The library needs libtorch_cuda.so, which such a torch lacks. An empty stand-in with that soname makes it a NEEDED
    entry; at load time the real one, which `import torch` has loaded before, satisfies it.
    """
    nvcc = [*toolkit.command, *toolkit.gencode]
    ninja.rule("nvcc", [*nvcc, *NVCC_FLAGS, "$flags", "-MD", "-MF", "$out.d", "-c", "$in", "-o", "$out"], compiles=True)
    soname = ["-Wl,-soname,libtorch_cuda.so", "-x", "c++", "/dev/null"]
    ninja.rule("stub", [*compiler.command, "-shared", "-fPIC", *soname, "-o", "$out"])
    stub = ninja.build(library.parent / "stub" / "libtorch_cuda.so", "stub")
    # The static cudart stays inside: nothing of it is exported to the rest of the process. --no-as-needed keeps the
    # stand-in, of which no symbol is used; it goes to the linker by -Xlinker because nvcc moves its own inputs forward.
    link = ["-shared", "-cudart=static", "-Xlinker=--exclude-libs=ALL", f"-Xlinker=--no-as-needed,{stub},--as-needed"]
    ninja.rule("nvlink", [*nvcc, *link, "$in", "-o", "$out", "$flags"])
    flags = torch_compile_flags(torch)
    objects = [ninja.build(_object(library, source), "nvcc", [Path(source)], flags) for source in sources]
    ninja.build(library, "nvlink", objects, torch_link_flags(torch), needs=[stub])


def _object(library: Path, source: str) -> Path:
    return library.parent / f"{source}.o"
