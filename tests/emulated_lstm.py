"""A layer of random numbers, in float64 and on the emulated kernels: for tests of the forward in csrc/cuda/."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from emulated_problem import NUMBERS, PRECISIONS, EmulatedProblem, rounded
from torch import Tensor

NAMES = ("output", "h_n", "c_n", "activations", "cells")


@dataclass
class Problem(EmulatedProblem):
    """Sizes as in csrc/lstm_problem.h; lengths of the rows, longest first."""

    program: ClassVar[str] = "run_lstm.cpp"
    kernels: ClassVar[str] = "lstm_persistent"
    stepwise_program: ClassVar[str] = "run_stepwise.cpp"
    stepwise_kernels: ClassVar[str] = "lstm_stepwise.cu"
    # What h is rounded to in each step. Where a sum lies between two roundings, ours may take the other one.
    tolerances: ClassVar[dict[str, float]] = {
        "float64": 1e-14,
        "float32": 1e-6,
        "tf32": 2e-4,
        "bfloat16": 2e-2,
        "half": 2e-3,
    }

    precision: str
    lengths: list[int]
    hidden: int
    directions: int = 1
    vocabulary: int | None = None  # R of a table read by index; None: gates of each position
    states: bool = True
    output: bool = True
    saved: bool = True
    spare: int = 0  # positions, and steps, that no row has, as where only the device knows the lengths
    arrays: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(7)
        number = NUMBERS[self.precision]
        d, rows, h, n = self.directions, len(self.lengths), self.hidden, sum(self.lengths) + self.spare

        def normal(*shape: int, scale: float = 1.0) -> Tensor:
            return torch.randn(*shape, generator=generator) * scale

        self.arrays = {
            "gates": normal(d, self.vocabulary or n, 4 * h).to(torch.promote_types(number, torch.float32)),
            "w_hh": normal(d, 4 * h, h, scale=1.5 / h**0.5).to(number),
            "h0": normal(d, rows, h, scale=0.5).to(number) if self.states else torch.zeros(d, rows, h, dtype=number),
            "c0": normal(d, rows, h).to(number) if self.states else torch.zeros(d, rows, h, dtype=number),
        }
        if self.vocabulary:
            self.arrays["index"] = torch.randint(self.vocabulary, (n,), generator=generator)
            self.arrays["index"][n - self.spare :] = -1

    @property
    def batch_sizes(self) -> list[int]:
        return [sum(length > t for length in self.lengths) for t in range(self.lengths[0] + self.spare)]

    def write(self, path: Path) -> None:
        sizes = self.batch_sizes
        ragged = len(set(sizes)) > 1
        gate_rows = self.arrays["gates"].size(1)
        header = [PRECISIONS.index(self.precision), len(self.lengths), self.hidden, self.directions, len(sizes)]
        header += [
            sum(sizes) + self.spare,
            gate_rows,
            ragged,
            bool(self.vocabulary),
            self.states,
            self.output,
            self.saved,
        ]
        arrays = [torch.tensor(header), *([torch.tensor(sizes)] if ragged else []), self.arrays["gates"]]
        arrays += [self.arrays["index"]] if self.vocabulary else []
        arrays += [self.arrays["w_hh"], *([self.arrays["h0"], self.arrays["c0"]] if self.states else [])]
        path.write_bytes(b"".join(bytes(a.contiguous().view(torch.uint8).numpy()) for a in arrays))

    def read(self, path: Path, schedules: int) -> list[dict[str, Tensor]]:
        """One set of results a schedule."""
        d, rows, h, n = self.directions, len(self.lengths), self.hidden, sum(self.lengths) + self.spare
        shapes = {"output": (n, d * h), "h_n": (d, rows, h), "c_n": (d, rows, h)}
        shapes |= {"activations": (d, n, 4 * h), "cells": (d, n, h)}
        if not self.output:
            del shapes["output"]
        if not self.saved:
            del shapes["activations"], shapes["cells"]
        numbers = torch.frombuffer(bytearray(path.read_bytes()), dtype=NUMBERS[self.precision])
        counts = [torch.Size(shape).numel() for shape in shapes.values()]
        pieces = numbers.split(counts * schedules)
        sets = [pieces[i : i + len(counts)] for i in range(0, len(pieces), len(counts))]
        named = [{name: p.view(shapes[name]) for name, p in zip(shapes, s, strict=True)} for s in sets]
        positions = {"output": 0, "activations": 1, "cells": 1}  # their dimension; the spare ones are nobody's
        return [
            {k: v.narrow(positions[k], 0, n - self.spare) if k in positions else v for k, v in s.items()} for s in named
        ]

    def expected(self) -> dict[str, Tensor]:
        """In float64, but for W_hh and the h that it is multiplied by, which are rounded as the kernels round them."""
        gates, index = self.arrays["gates"].double(), self.arrays.get("index")
        sizes, h, n = self.batch_sizes, self.hidden, sum(self.lengths)
        results: dict[str, list[Tensor]] = {name: [] for name in NAMES}
        for d in range(self.directions):
            w = rounded(self.precision, self.arrays["w_hh"][d].float())
            state, cell = self.arrays["h0"][d].double(), self.arrays["c0"][d].double()
            saved = {name: torch.zeros(n, k * h, dtype=torch.float64) for name, k in (("a", 4), ("c", 1), ("o", 1))}
            for t in range(len(sizes)) if d == 0 else reversed(range(len(sizes))):
                at = slice(sum(sizes[:t]), sum(sizes[: t + 1]))
                rows = gates[d, at] if index is None else gates[d, index[at]]
                i, f, g, o = (rows + rounded(self.precision, state[: sizes[t]]) @ w.T).chunk(4, dim=1)
                i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
                cell[: sizes[t]] = f * cell[: sizes[t]] + i * g
                state[: sizes[t]] = o * cell[: sizes[t]].tanh()
                saved["a"][at] = torch.cat([i, f, g, o], dim=1)
                saved["c"][at], saved["o"][at] = cell[: sizes[t]], state[: sizes[t]]
            for name, value in zip(NAMES, (saved["o"], state, cell, saved["a"], saved["c"]), strict=True):
                results[name].append(value)
        expected = {name: torch.stack(values) for name, values in results.items()}
        expected["output"] = torch.cat(results["output"], dim=1)
        return expected
