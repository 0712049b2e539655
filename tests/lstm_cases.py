"""LSTM problems, and their outputs and gradients from nn.LSTM in float64: what the kernels are compared with."""

from __future__ import annotations

import copy
import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

BATCHES = (1, 2, 5, 6, 7, 17, 32)
SIZES = (1, 3, 8, 16, 17, 50, 64, 100, 128, 129, 257)  # below, at and above the vector widths 2, 4, 8 and 16
LENGTHS = ("none", "sorted", "unsorted", "equal", "ones")


@dataclass(frozen=True)
class Case:
    input_size: int = 5
    hidden_size: int = 16
    rows: int = 5
    steps: int = 7
    num_layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    batch_first: bool = False
    states: bool = False
    lengths: str = "none"
    proj_size: int = 0

    @property
    def output_size(self) -> int:
        """P: the numbers of h."""
        return self.proj_size or self.hidden_size

    def __str__(self) -> str:
        flags = "".join(
            name[0]
            for name in ("bidirectional", "n_bias", "f_batch_first", "states")
            if (not self.bias if name == "n_bias" else getattr(self, name.removeprefix("f_")))
        )
        projected = f"-P{self.proj_size}" if self.proj_size else ""
        return (
            f"I{self.input_size}-H{self.hidden_size}{projected}-B{self.rows}-L{self.num_layers}-{flags}-{self.lengths}"
        )

    def options(self) -> dict[str, object]:
        return {
            "num_layers": self.num_layers,
            "bidirectional": self.bidirectional,
            "bias": self.bias,
            "batch_first": self.batch_first,
            "proj_size": self.proj_size,
        }

    def make_lengths(self) -> Tensor | None:
        if self.lengths == "none":
            return None
        if self.lengths == "ones":
            return torch.ones(self.rows, dtype=torch.int64)
        if self.lengths == "equal":
            return torch.full((self.rows,), max(1, self.steps - 2))
        drawn = torch.randint(1, self.steps + 1, (self.rows,))
        return drawn.sort(descending=True)[0] if self.lengths == "sorted" else drawn

    def make_states(self) -> tuple[Tensor, Tensor] | None:
        if not self.states:
            return None
        layers = self.num_layers * (1 + self.bidirectional)
        return (
            torch.randn(layers, self.rows, self.output_size, dtype=torch.float64),
            torch.randn(layers, self.rows, self.hidden_size, dtype=torch.float64),
        )


def size_cases() -> Iterator[Case]:
    """Every B with every H; every I in turn, and the other options mixed so that each meets each.

    Every H above 1 once more with a projection, of every size in turn.
    """
    for i, hidden in enumerate(SIZES):
        for j, rows in enumerate(BATCHES):
            k = i * len(BATCHES) + j
            yield Case(
                input_size=SIZES[(3 * i + 5 * j) % len(SIZES)],
                hidden_size=hidden,
                rows=rows,
                num_layers=1 + (k % 5 == 4),
                bidirectional=k % 2 == 1,
                bias=k % 3 != 2,
                batch_first=(k // 2) % 2 == 1,
                states=(k // 3) % 2 == 1,
                lengths=LENGTHS[k % len(LENGTHS)],
            )
    for i, hidden in enumerate(SIZES[1:]):
        yield Case(
            hidden_size=hidden,
            proj_size=SIZES[(4 * i + 1) % (i + 1)],  # below H
            rows=BATCHES[i % len(BATCHES)],
            num_layers=1 + (i % 3 == 2),
            bidirectional=i % 2 == 1,
            states=(i // 2) % 2 == 1,
            lengths=LENGTHS[i % len(LENGTHS)],
        )


def option_cases() -> Iterator[Case]:
    """Every combination of the options, at a size that fills no vector; a third of them again with a projection."""
    for layers in (1, 2, 3):
        for flags in range(16):
            for i, lengths in enumerate(LENGTHS):
                for proj_size in (0, 7) if (flags + i) % 3 == 0 else (0,):
                    yield Case(
                        hidden_size=11,
                        proj_size=proj_size,
                        num_layers=layers,
                        bidirectional=bool(flags & 1),
                        bias=bool(flags & 2),
                        batch_first=bool(flags & 4),
                        states=bool(flags & 8),
                        lengths=lengths,
                    )


Forward = Callable[[Tensor, tuple[Tensor, Tensor] | None, Tensor | None], tuple[Tensor, tuple[Tensor, Tensor]]]


def reference_forward(lstm: nn.LSTM) -> Forward:
    """nn.LSTM with lengths: packed, run, padded again."""

    def forward(
        x: Tensor, states: tuple[Tensor, Tensor] | None, lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if lengths is None:
            return lstm(x, states)
        steps = x.size(1 if lstm.batch_first else 0)
        packed = pack_padded_sequence(x, lengths, batch_first=lstm.batch_first, enforce_sorted=False)
        output, final = lstm(packed, states)
        return pad_packed_sequence(output, batch_first=lstm.batch_first, total_length=steps)[0], final

    return forward


def _leaf(t: Tensor, dtype: torch.dtype) -> Tensor:
    return t.to(dtype, copy=True).requires_grad_()


@dataclass
class Problem:
    """A case with its numbers, all float64."""

    case: Case
    lstm: nn.LSTM
    x: Tensor
    states: tuple[Tensor, Tensor] | None
    lengths: Tensor | None
    grads: list[Tensor]  # of output, h_n, c_n

    @classmethod
    def make(cls, case: Case) -> Problem:
        lstm = nn.LSTM(case.input_size, case.hidden_size, **case.options(), dtype=torch.float64)
        shape = (case.rows, case.steps) if case.batch_first else (case.steps, case.rows)
        x = torch.randn(*shape, case.input_size, dtype=torch.float64)
        directions = 1 + case.bidirectional
        grads = [torch.randn(*shape, directions * case.output_size, dtype=torch.float64)]
        for size in (case.output_size, case.hidden_size):
            grads.append(torch.randn(case.num_layers * directions, case.rows, size, dtype=torch.float64))
        return cls(case, lstm, x, case.make_states(), case.make_lengths(), grads)

    def rounded_to(self, dtype: torch.dtype) -> Problem:
        """The same with numbers that ``dtype`` holds exactly: errors are then those of the computation alone."""
        lstm = copy.deepcopy(self.lstm).to(dtype).double()
        states = None if self.states is None else (self.states[0].to(dtype).double(), self.states[1].to(dtype).double())
        grads = [grad.to(dtype).double() for grad in self.grads]
        return Problem(self.case, lstm, self.x.to(dtype).double(), states, self.lengths, grads)

    def run(self, module: nn.LSTM, forward: Forward, dtype: torch.dtype) -> dict[str, Tensor]:
        """Outputs and all gradients with these weights, in ``dtype``; returned in float64."""
        module = module.to(dtype)
        module.load_state_dict(self.lstm.state_dict())
        module.zero_grad()
        x = _leaf(self.x, dtype)
        states = None
        if self.states is not None:
            states = (_leaf(self.states[0], dtype), _leaf(self.states[1], dtype))
        output, (h_n, c_n) = forward(x, states, self.lengths)
        torch.autograd.backward([output, h_n, c_n], [g.to(dtype) for g in self.grads])
        results = {"output": output, "h_n": h_n, "c_n": c_n, "grad input": x.grad}
        if states is not None:
            results |= {"grad h_0": states[0].grad, "grad c_0": states[1].grad}
        results |= {f"grad {name}": p.grad for name, p in module.named_parameters()}
        return {name: value.detach().double() for name, value in results.items()}

    def reference(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The same from nn.LSTM."""
        module = nn.LSTM(self.case.input_size, self.case.hidden_size, **self.case.options())
        return self.run(module, reference_forward(module), dtype)


@functools.cache
def pytorch_lowers() -> bool:
    """Whether nn.LSTM can compute under CPU autocast here: oneDNN's in bfloat16 wants AVX-512, and PyTorch asks for it
    without a look at the machine.
    """
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        try:
            torch.nn.LSTM(1, 1)(torch.zeros(1, 1, 1))
        except RuntimeError:
            return False
    return True


def rms(t: Tensor) -> float:
    """Root mean square, 0 for an empty tensor."""
    return t.square().mean().sqrt().item() if t.numel() else 0.0


class ErrorComparison:
    """Our errors against nn.LSTM in float64 beside those of nn.LSTM in the same dtype, over several problems.

    Of each tensor the mean squares of both errors, and its own, are added up.
    """

    def __init__(self) -> None:
        self._squares: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])

    def add(self, ours: dict[str, Tensor], peer: dict[str, Tensor], exact: dict[str, Tensor]) -> None:
        assert ours.keys() == exact.keys()
        for name, want in exact.items():
            assert ours[name].isfinite().all(), name
            for i, number in enumerate((ours[name] - want, peer[name] - want, want)):
                self._squares[name][i] += rms(number) ** 2

    def check(self, chance: float = 0.0) -> None:
        """Fails where our root mean square error is above 1.5 times the peer's, plus ``chance`` times the magnitude."""
        for name, squares in self._squares.items():
            ours, peer, magnitude = (square**0.5 for square in squares)
            allowed = 1.5 * peer + chance * magnitude
            assert ours <= allowed, f"{name}: error {ours:.3g}, allowed {allowed:.3g}, magnitude {magnitude:.3g}"


class TypicalError:
    """The geometric mean of the ratios of our errors to nn.LSTM's, over problems of different sizes.

    A sum of squares would be decided by a few small problems: of four numbers that nearly cancel, as the biases'
    gradients where H is 1, whose relative error is 100 times the others' and luck.
    """

    def __init__(self) -> None:
        self._logs: dict[str, list[float]] = defaultdict(list)

    def add(self, ours: dict[str, Tensor], peer: dict[str, Tensor], exact: dict[str, Tensor]) -> None:
        assert ours.keys() == exact.keys()
        for name, want in exact.items():
            errors = rms(ours[name] - want), rms(peer[name] - want)
            assert math.isfinite(errors[0]), name
            if all(errors):
                self._logs[name].append(math.log(errors[0] / errors[1]))

    def check(self) -> None:
        """Fails where the mean is above 1.5."""
        for name, logs in self._logs.items():
            ratio = math.exp(sum(logs) / len(logs))
            assert ratio <= 1.5, f"{name}: {ratio:.3g} times nn.LSTM's error, over {len(logs)} problems"
