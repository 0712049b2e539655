"""A problem of random numbers, in float64 and on emulated kernels: what those of forward and backward share."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import ClassVar

import emulated
import torch
from torch import Tensor

PRECISIONS = ("float64", "float32", "tf32", "bfloat16", "half")  # Precision in csrc/cuda/lstm_plan.h
FAMILIES = ("block", "cluster", "grid")
PRODUCTS = {"float32": "Float32Product", "tf32": "Tf32Product", "bfloat16": "BFloat16Product", "half": "HalfProduct"}
STEPWISE = {"float64": "double", "float32": "float", "bfloat16": "BFloat16", "half": "Half"}
NUMBERS = {
    "float64": torch.float64,
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "half": torch.float16,
}
Results = dict[str, Tensor]


def rounded(precision: str, x: Tensor) -> Tensor:
    """As a number that is multiplied is, in float64."""
    if precision == "tf32":
        bits = x.float().view(torch.int32)
        return ((bits + 0x1000) & ~0x1FFF).view(torch.float32).double()
    return x.to(NUMBERS[precision]).double()


class EmulatedProblem:
    """What a kind of problem has to say of itself.

    Attributes:
        precision: of PRECISIONS.
        program, stepwise_program: of tests/emulator/.
        kernels: of csrc/cuda/, before the name of the precision; stepwise_kernels: the file.
        tolerances: of the largest error by precision.
        relative: whether errors are of the largest number, where that is above 1.
    """

    precision: str
    program: ClassVar[str]
    kernels: ClassVar[str]
    stepwise_program: ClassVar[str]
    stepwise_kernels: ClassVar[str]
    tolerances: ClassVar[dict[str, float]]
    relative: ClassVar[bool] = False

    def write(self, path: Path) -> None:
        """The problem, as the programs read it."""
        raise NotImplementedError

    def read(self, path: Path, schedules: int) -> list[Results]:
        """One set of results a schedule."""
        raise NotImplementedError

    def expected(self) -> Results:
        """In float64, but for what the kernels round before they multiply it."""
        raise NotImplementedError

    def run(
        self,
        flavour: str = "plain",
        family: str | None = None,
        team: int = 1,
        row_tiles: int = 1,
        schedules: tuple[int, ...] = emulated.SCHEDULES,
        options: tuple[str, ...] = (),
        csrc: Path = emulated.ROOT / "csrc",
        **environ: str,
    ) -> tuple[str, list[Results]]:
        """What the program says, and its results, one set a schedule; none where it fails.

        family: of FAMILIES or "stepwise"; None takes the plan for an H100, which has to be a persistent one. team,
        row_tiles: of FAMILIES.
        """
        if family == "stepwise":
            files: tuple[str, ...] = (f"tests/emulator/{self.stepwise_program}", f"csrc/cuda/{self.stepwise_kernels}")
            define, chosen = f"-DNUMBER={STEPWISE[self.precision]}", []
        else:
            kernels = (f"csrc/cuda/{self.kernels}_{self.precision}.cu", "csrc/cuda/lstm_offsets.cu")
            files = (f"tests/emulator/{self.program}", *kernels)
            define = f"-DPRODUCT={PRODUCTS[self.precision]}"
            chosen = [-1 if family is None else FAMILIES.index(family), team, row_tiles]
        program = emulated.program(files, flavour, (define, *options), csrc)
        with tempfile.TemporaryDirectory() as folder:
            problem, result = Path(folder) / "problem", Path(folder) / "result"
            self.write(problem)
            done = emulated.run(program, [problem, result, *chosen, *schedules], flavour, **environ)
            said = done.stdout + done.stderr
            return said, self.read(result, len(schedules)) if done.returncode == 0 else []

    def errors(self, results: list[Results]) -> dict[str, float]:
        """The largest of each name over all schedules; NaN counts as infinite."""
        expected = self.expected()

        def error(name: str) -> float:
            scale = float(expected[name].abs().max().clamp_min(1.0)) if self.relative else 1.0
            differences = [(r[name].double() - expected[name]).abs().nan_to_num(torch.inf) for r in results]
            return max(float(d.max()) for d in differences) / scale

        return {name: error(name) for name in results[0]}

    def is_right(self, results: list[Results]) -> bool:
        """Near enough, and with the same bits in every schedule."""
        same = all(torch.equal(r[name], results[0][name]) for r in results for name in r)
        return same and all(error <= self.tolerances[self.precision] for error in self.errors(results).values())
