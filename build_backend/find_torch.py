"""Finds the headers and libraries of an installed torch, without importing it.

An isolated build hides the environment that it installs into. Asking for torch there would download several GB that are
already on the disk, so we look where pip installs, too. Any torch from MINIMUM on will do: the compiled
libraries use nothing but LibTorch's stable ABI, and do not care which torch they meet later.
"""

from __future__ import annotations

import importlib.util
import re
import site
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from .errors import BuildError

MINIMUM = (2, 11)
REQUIREMENT = "torch>=2.11"


@dataclass(frozen=True)
class Torch:
    root: Path
    version: str

    @property
    def include(self) -> Path:
        return self.root / "include"

    @property
    def library(self) -> Path:
        return self.root / "lib"

    def problem(self) -> str | None:
        """Why it cannot be built against; None if it can."""
        match = re.match(r"(\d+)\.(\d+)", self.version)
        if match is None or (int(match[1]), int(match[2])) < MINIMUM:
            return f"torch {self.version} in {self.root} is too old"
        if not (self.include / "torch/csrc/stable/library.h").is_file():
            return f"torch {self.version} in {self.root} has no C++ headers"
        return None


def install_directories() -> list[str]:
    """Where pip installs for this interpreter, whether or not these directories are on sys.path now."""
    return [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), site.getusersitepackages()]


def _from_spec(spec: ModuleSpec | None) -> Torch | None:
    if spec is None or not spec.submodule_search_locations:
        return None
    root = Path(next(iter(spec.submodule_search_locations)))
    version_file = root / "version.py"
    text = version_file.read_text(encoding="utf-8") if version_file.is_file() else ""
    match = re.search(r"^__version__\s*(?::.*?)?=\s*['\"]([^'\"]+)", text, re.MULTILINE)
    return Torch(root, match[1]) if match else None


def _candidates(directories: Sequence[str]) -> Iterator[Torch]:
    # The interpreter's own way first: it also sees a torch that is installed in editable mode.
    specs = [importlib.util.find_spec("torch"), *(PathFinder.find_spec("torch", [d]) for d in directories)]
    yield from (torch for torch in map(_from_spec, specs) if torch is not None)


def find_torch(directories: Sequence[str] | None = None) -> Torch | None:
    """The first torch that can be built against: what `import torch` would give, then `directories`.

    `directories` is where pip installs, unless given.
    """
    candidates = _candidates(install_directories() if directories is None else directories)
    return next((torch for torch in candidates if torch.problem() is None), None)


def require_torch(directories: Sequence[str] | None = None) -> Torch:
    """As find_torch, but finding none is an error that says what to do."""
    directories = install_directories() if directories is None else directories
    torch = find_torch(directories)
    if torch is None:
        problem = next((problem for found in _candidates(directories) if (problem := found.problem())), None)
        raise BuildError(
            f"{problem or 'torch is not installed'}: building textclf_fast needs {REQUIREMENT}; install it with "
            f"`{Path(sys.executable).name} -m pip install '{REQUIREMENT}'`, or build without --no-build-isolation"
        )
    return torch
