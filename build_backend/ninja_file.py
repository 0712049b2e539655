"""Writes and runs a build.ninja: parallel and incremental, knowing the headers that each source reads."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import BuildError


class NinjaFile:
    """Collects rules and build statements. A command is a list of words; $in, $out and $flags stand for themselves."""

    def __init__(self) -> None:
        self._lines = ["ninja_required_version = 1.5"]

    def rule(self, name: str, command: Sequence[str], *, compiles: bool = False) -> None:
        """A rule; one that `compiles` leaves a list of the headers it read in $out.d."""
        words = [word if word.startswith("$") else _variable(shlex.quote(word)) for word in command]
        self._lines += ["", f"rule {name}", f"  command = {' '.join(words)}", f"  description = {name} $out"]
        if compiles:
            self._lines += ["  depfile = $out.d", "  deps = gcc"]

    def build(
        self,
        output: Path,
        rule: str,
        inputs: Sequence[Path] = (),
        flags: Sequence[str] = (),
        needs: Sequence[Path] = (),
    ) -> Path:
        """A build statement; `needs` are inputs that the command names by itself."""
        paths = " ".join([*map(_path, inputs), "|", *map(_path, needs)])
        self._lines += ["", f"build {_path(output)}: {rule} {paths}", f"  flags = {_variable(shlex.join(flags))}"]
        return output

    def write(self, path: Path) -> None:
        builddir = f"builddir = {_variable(str(path.parent))}"  # where ninja keeps its log
        path.write_text("\n".join([builddir, *self._lines]) + "\n", encoding="utf-8")


def _variable(text: str) -> str:
    return text.replace("$", "$$")


def _path(path: Path) -> str:
    return re.sub(r"([$: ])", r"$\1", str(path))


def find_ninja(environ: Mapping[str, str]) -> str:
    scripts = sysconfig.get_path("scripts")  # an environment may be used without having been activated
    ninja = shutil.which("ninja", path=environ.get("PATH")) or shutil.which("ninja", path=scripts)
    if ninja is None:
        raise BuildError("ninja is not installed: `pip install ninja`, or build without --no-build-isolation")
    return ninja


def run_ninja(ninja: str, folder: Path, jobs: int | None) -> None:
    """Builds everything in folder/build.ninja."""
    command = [ninja, "-f", str(folder / "build.ninja"), *([f"-j{jobs}"] if jobs else [])]
    if subprocess.run(command).returncode:
        raise BuildError("compiling textclf_fast failed: the compiler's own message is above")
