"""Bugs planted in a copy of the kernels, to see whether a run on the emulator makes them known."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import emulated
from emulated_problem import EmulatedProblem

# By name: the file in csrc/, what stands there, what the bug makes of it; BUG is whether it is at work.
Bugs = Mapping[str, tuple[str, str, str]]
OPTIONS = ("-include", str(emulated.ROOT / "tests" / "emulator" / "planted.h"))


def plant(folder: Path, bugs: Bugs) -> Path:
    """A copy of csrc/ with all bugs in it; PLANTED in the environment is the number of the one at work."""
    copy = folder / "csrc"
    shutil.copytree(emulated.ROOT / "csrc", copy)
    for number, (file, place, changed) in enumerate(bugs.values(), start=1):
        text = (copy / file).read_text(encoding="utf-8")
        assert text.count(place) == 1, place
        (copy / file).write_text(text.replace(place, changed.replace("BUG", f"planted({number})")), encoding="utf-8")
    return copy


def seen(
    problem: EmulatedProblem,
    csrc: Path,
    bugs: Bugs,
    bug: str | None,
    flavour: str,
    family: str,
    team: int,
    schedules: tuple[int, ...],
) -> str | None:
    """What a run on this copy makes known of the bug; None if nothing."""
    number = str(list(bugs).index(bug) + 1 if bug else 0)
    said, results = problem.run(flavour, family, team, 1, schedules, OPTIONS, csrc, PLANTED=number)
    if not results:
        return said
    return None if problem.is_right(results) else "wrong numbers"
