"""The backward of a layer with random saved numbers, in float64 and on the emulated kernels (lstm_backward.inl)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from emulated_problem import NUMBERS, PRECISIONS, EmulatedProblem, rounded
from torch import Tensor

GRADIENTS = ("grad_output", "grad_h_n", "grad_c_n", "grad_cells")
NAMES = ("grad_gates", "grad_h0", "grad_c0")


@dataclass
class BackwardProblem(EmulatedProblem):
    """Sizes as in csrc/lstm_problem.h; lengths of the rows, longest first; which gradients come in."""

    program: ClassVar[str] = "run_backward.cpp"
    kernels: ClassVar[str] = "lstm_backward"
    stepwise_program: ClassVar[str] = "run_backward_stepwise.cpp"
    stepwise_kernels: ClassVar[str] = "lstm_backward_stepwise.cu"
    # What is multiplied is rounded in each step; where it lies between two roundings, ours may take the other one.
    tolerances: ClassVar[dict[str, float]] = {
        "float64": 1e-14,
        "float32": 1e-6,
        "tf32": 2e-4,
        "bfloat16": 1e-2,
        "half": 1e-3,
    }
    relative: ClassVar[bool] = True

    precision: str
    lengths: list[int]
    hidden: int
    directions: int = 1
    given: tuple[str, ...] = GRADIENTS
    states: bool = True
    gates: bool = True  # whether their gradients are asked for
    arrays: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(7)
        d, rows, h, n = self.directions, len(self.lengths), self.hidden, sum(self.lengths)

        def normal(*shape: int, scale: float = 1.0) -> Tensor:
            return (torch.randn(*shape, generator=generator) * scale).to(NUMBERS[self.precision])

        i, f, g, o = normal(d, n, 4 * h).float().chunk(4, dim=2)
        activations = torch.cat([i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()], dim=2)
        self.arrays = {
            "w_hh": normal(d, 4 * h, h, scale=1.5 / h**0.5),
            "activations": activations.to(NUMBERS[self.precision]),
            "cells": normal(d, n, h),
            "c0": normal(d, rows, h),
            "grad_output": normal(n, d * h),
            "grad_h_n": normal(d, rows, h),
            "grad_c_n": normal(d, rows, h),
            "grad_cells": normal(d, n, h),
        }
        left_out = {*GRADIENTS} - {*self.given} | (set() if self.states else {"c0"})
        self.arrays |= {name: torch.zeros_like(self.arrays[name]) for name in left_out}

    @property
    def batch_sizes(self) -> list[int]:
        return [sum(length > t for length in self.lengths) for t in range(self.lengths[0])]

    def write(self, path: Path) -> None:
        sizes = self.batch_sizes
        ragged = len(set(sizes)) > 1
        header = [PRECISIONS.index(self.precision), len(self.lengths), self.hidden, self.directions, len(sizes)]
        header += [sum(sizes), ragged, self.states, *(name in self.given for name in GRADIENTS), self.gates]
        arrays = [torch.tensor(header), *([torch.tensor(sizes)] if ragged else [])]
        arrays += [self.arrays[name] for name in ("w_hh", "activations", "cells")]
        arrays += [self.arrays["c0"]] if self.states else []
        arrays += [self.arrays[name] for name in GRADIENTS if name in self.given]
        path.write_bytes(b"".join(bytes(a.contiguous().view(torch.uint8).numpy()) for a in arrays))

    def read(self, path: Path, schedules: int) -> list[dict[str, Tensor]]:
        """One set of results a schedule."""
        d, rows, h, n = self.directions, len(self.lengths), self.hidden, sum(self.lengths)
        shapes = [torch.Size((d, n, 4 * h))] * self.gates + [torch.Size((d, rows, h))] * 2
        names, count = NAMES[-len(shapes) :], len(shapes)
        numbers = torch.frombuffer(bytearray(path.read_bytes()), dtype=NUMBERS[self.precision])
        pieces = numbers.split([shape.numel() for shape in shapes] * schedules)
        views = [piece.view(shapes[k % count]) for k, piece in enumerate(pieces)]
        return [dict(zip(names, views[k : k + count], strict=True)) for k in range(0, len(views), count)]

    def expected(self) -> dict[str, Tensor]:
        """In float64, but for W_hh and the gates' gradients that it is multiplied by, which are rounded alike."""
        sizes, h = self.batch_sizes, self.hidden
        given = {name: array.double() for name, array in self.arrays.items()}
        starts = [sum(sizes[:t]) for t in range(len(sizes))]
        results: dict[str, list[Tensor]] = {name: [] for name in NAMES}
        for d in range(self.directions):
            w = rounded(self.precision, self.arrays["w_hh"][d].float())
            grad_h, grad_c = given["grad_h_n"][d].clone(), given["grad_c_n"][d].clone()
            grad_gates = torch.full_like(given["activations"][d], torch.nan)
            for t in reversed(range(len(sizes))) if d == 0 else range(len(sizes)):
                alive, at = sizes[t], slice(starts[t], starts[t] + sizes[t])
                i, f, g, o = given["activations"][d, at].chunk(4, dim=1)
                before, last = given["c0"][d, :alive].clone(), t - 1 if d == 0 else t + 1
                if 0 <= last < len(sizes):
                    both = min(alive, sizes[last])
                    before[:both] = given["cells"][d, starts[last] : starts[last] + both]
                tanh_c = given["cells"][d, at].tanh()
                dh = grad_h[:alive] + given["grad_output"][at, d * h : (d + 1) * h]
                dc = grad_c[:alive] + given["grad_cells"][d, at] + dh * o * (1 - tanh_c**2)
                by_i, by_f = dc * g * i * (1 - i), dc * before * f * (1 - f)
                by_g, by_o = dc * i * (1 - g**2), dh * tanh_c * o * (1 - o)
                grad_gates[at] = torch.cat([by_i, by_f, by_g, by_o], dim=1)
                grad_c[:alive] = dc * f
                grad_h[:alive] = rounded(self.precision, grad_gates[at]) @ w
            for name, value in zip(NAMES, (grad_gates, grad_h, grad_c), strict=True):
                results[name].append(value)
        return {name: torch.stack(values) for name, values in results.items()}
