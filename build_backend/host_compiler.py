"""Finds the C++ compiler, and makes sure by a trial that it knows C++20 and comes with a standard library."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import BuildError
from .trial import first_complaint, run_tool

_ADVICE = (
    "install g++ 11 or clang++ 14 or newer (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++), or name one "
    "in the environment variable CXX"
)
_TRIAL = """\
#include <concepts>
#include <vector>
template <std::integral T> T f(T x) { return x; }
int g() { return f(1); }
"""


@dataclass(frozen=True)
class HostCompiler:
    command: list[str]  # as in CXX: it may hold a launcher, "ccache g++"
    version: str  # the first line that --version prints


def find_host_compiler(environ: Mapping[str, str]) -> HostCompiler:
    """The compiler named in CXX, else c++, g++ or clang++, whichever comes first."""
    path = environ.get("PATH")
    named = shlex.split(environ.get("CXX") or "")
    if named:
        if shutil.which(named[0], path=path) is None:
            raise BuildError(f"the C++ compiler named in CXX={environ['CXX']!r} is not there: {_ADVICE}")
        command = named
    else:
        found = next((name for name in ("c++", "g++", "clang++") if shutil.which(name, path=path)), None)
        if found is None:
            raise BuildError(f"no C++ compiler found: {_ADVICE}")
        command = [found]

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "trial.cpp"
        source.write_text(_TRIAL)
        works, output = run_tool([*command, "-std=c++20", "-shared", "-fPIC", str(source), "-o", f"{folder}/trial.so"])
    if not works:
        complaint = first_complaint(output)
        raise BuildError(f"the C++ compiler {shlex.join(command)} cannot build C++20 ({complaint}): {_ADVICE}")
    _, version = run_tool([*command, "--version"])
    return HostCompiler(command, (version.splitlines() or ["unknown"])[0])
