"""Layers in the packed layout, and what the plain-PyTorch reference makes of them, forward and backward.

For the kernels' ways of cutting up their work, which depend on the sizes: how many threads share a step, how many
positions the backward sums at a time.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from textclf_fast import ops
from textclf_fast.reference import lstm_reference

RESULTS = ("output", "h_n", "c_n")
_V = 11  # few gate rows, so that each is read, and its gradient added to, many times
_Layer = Callable[..., tuple[Tensor, Tensor, Tensor]]  # the arguments of lstm_reference


@dataclass(frozen=True)
class Layer:
    """A layer with numbers that its sizes determine.

    Attributes:
        hidden: H.
        lengths: of the rows, longest first.
        directions: 1 or 2.
        with_index: whether positions read a table, of gates or of input, by index.
        projected: P where h is projected.
        input: I where the layer projects its input itself (lstm_layer), of the positions or, with an index, of a table
            that they read; its gates are given otherwise.
        from_zero: whether h0 is zero, and neither its gradient nor that of c0 is asked for.
        seed: of the numbers.
    """

    hidden: int
    lengths: tuple[int, ...]
    directions: int
    with_index: bool
    projected: int = 0
    input: int = 0
    from_zero: bool = False
    seed: int = 1

    def __str__(self) -> str:
        index = "index" if self.with_index else "rows"
        projected = f"P{self.projected}" if self.projected else ""
        input = f"-I{self.input}" if self.input else ""
        zero = "-zero" if self.from_zero else ""
        return f"H{self.hidden}{projected}-{'_'.join(map(str, self.lengths))}-D{self.directions}-{index}{input}{zero}"

    @property
    def positions(self) -> int:
        """N."""
        return sum(self.lengths)

    def run(self, layer: _Layer, dtype: torch.dtype, gates_dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Results and gradients, in ``dtype``; of another dtype the gates."""
        generator = torch.Generator().manual_seed(self.seed)

        def numbers(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        D, H, N, B = self.directions, self.hidden, self.positions, len(self.lengths)
        P = self.projected or H
        lengths = torch.tensor(self.lengths)
        batch_sizes = (lengths.unsqueeze(1) > torch.arange(self.lengths[0])).sum(0)
        index = torch.randint(0, _V, (N,), generator=generator) if self.with_index else None
        if self.input:
            # Gates of variance 1, as those that are given otherwise.
            inputs = {
                "x": numbers(_V if self.with_index else N, self.input),
                "w_ih": numbers(D, 4 * H, self.input) * (2 * self.input) ** -0.5,
                "bias": numbers(D, 4 * H) * 0.5**0.5,
            }
        else:
            inputs = {"gates": numbers(D, _V if self.with_index else N, 4 * H)}
        inputs |= {
            "w_hh": numbers(D, 4 * H, P) * P**-0.5,
            "h0": numbers(D, B, P),
            "c0": numbers(D, B, H),
        }
        if self.projected:
            inputs["w_hr"] = numbers(D, P, H) * H**-0.5
        if self.from_zero:
            inputs["h0"] = torch.zeros_like(inputs["h0"])
        constants = {"h0", "c0"} if self.from_zero else set()
        grads = [numbers(N, D * P), numbers(D, B, P), numbers(D, B, H)]
        dtypes = dict.fromkeys(("gates", "bias"), gates_dtype or dtype)
        leaves = {
            name: t.to(dtypes.get(name, dtype)).requires_grad_(name not in constants) for name, t in inputs.items()
        }
        results = layer(batch_sizes=batch_sizes, index=index, **leaves)
        torch.autograd.backward(results, [g.to(dtype) for g in grads])
        found = dict(zip(RESULTS, results, strict=True)) | {f"grad {name}": t.grad for name, t in leaves.items()}
        return {name: t.detach() for name, t in found.items() if t is not None}

    def run_ours(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Results and gradients of our kernels."""
        layer = ops.lstm_layer if self.input else ops.lstm
        return self.run(layer, dtype, torch.float32 if dtype == torch.bfloat16 else None)

    def check(self, ours: dict[str, Tensor]) -> None:
        """Fails where results and gradients are not those of the reference.

        In float64 they agree to rounding; in others our root mean square error may be 1.5 times the reference's in the
        same dtype, plus four units in the last place of the tensor's magnitude. A single row of few units is one chain,
        whose first roundings reach all that follows, and so one draw of its numbers says little of the mean: where it
        is beyond that, the mean is taken over more draws.
        """
        dtype = ours["output"].dtype
        if dtype == torch.float64:
            exact = _reference(self, dtype)
            assert ours.keys() == exact.keys()
            for name, got in ours.items():
                torch.testing.assert_close(got, exact[name], rtol=1e-10, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")
            return
        errors = [self._errors(ours)]
        if _beyond(errors):
            others = [replace(self, seed=seed) for seed in range(self.seed + 1, self.seed + _DRAWS)]
            errors += [other._errors(other.run_ours(dtype)) for other in others]
        assert not (found := _beyond(errors)), found

    def _errors(self, ours: dict[str, Tensor]) -> dict[str, tuple[float, float, float]]:
        """Mean squares by name: of our error, of the reference's in the same dtype, of the tensor itself."""
        dtype = ours["output"].dtype
        exact, reference = _reference(self, torch.float64), _reference(self, dtype)
        assert ours.keys() == exact.keys()
        for name, got in ours.items():
            assert got.isfinite().all(), name
        return {
            name: (_mean_square(ours[name] - t), _mean_square(reference[name] - t), _mean_square(t) * _eps(dtype) ** 2)
            for name, t in exact.items()
        }


_DRAWS = 9


def _beyond(draws: list[dict[str, tuple[float, float, float]]]) -> list[str]:
    """What is further off than it may be, over all draws together."""
    found = []
    for name in draws[0]:
        ours, reference, ulp = (
            math.sqrt(sum(squares) / len(draws)) for squares in zip(*(d[name] for d in draws), strict=True)
        )
        if ours > 1.5 * reference + 4 * ulp:
            found.append(f"{name}: {ours:.3g}, allowed {1.5 * reference + 4 * ulp:.3g}, over {len(draws)} draws")
    return found


def _eps(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps


def _mean_square(t: Tensor) -> float:
    return t.double().square().mean().item()


@functools.cache  # the same layer on every instruction set; of all tests' layers together some 200 MB
def _reference(layer: Layer, dtype: torch.dtype) -> dict[str, Tensor]:
    return layer.run(_layer_in_its_dtype if layer.input else lstm_reference, dtype)


def _layer_in_its_dtype(x: Tensor, w_ih: Tensor, bias: Tensor, **others: Any) -> tuple[Tensor, Tensor, Tensor]:
    """lstm_layer_reference, which would compute the gates of bfloat16, and all that follows, in float32."""
    gates = x @ w_ih.transpose(1, 2) + bias.unsqueeze(1)
    return lstm_reference(gates, **others)


def equal_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether all results and gradients are the same bits."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Runs its body on so many of PyTorch's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
