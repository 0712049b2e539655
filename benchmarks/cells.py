"""What is timed: shapes of text batches, and token ids and lengths like those of texts.

Letters: V vocabulary, E embedding, H hidden, B rows, T steps, N positions = sum of lengths; "fill" is mean length / T.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Cell:
    """One shape.

    Attributes:
        rows, steps: B and T.
        embedding, hidden: E and H; E is the width of the input where that is not tokens.
        fill: mean length / T; 1 is a batch without padding.
        layers, bidirectional: as in nn.LSTM.
        form: "tokens": embedding + LSTM on ids (T, B). "float": the LSTM alone on (T, B, E), without lengths. "packed":
            the LSTM alone on a PackedSequence.
        vocabulary: V.
        dtype: of weights and activations.
        int8: inference with W_hh in int8; all else is float32.
    """

    rows: int
    steps: int
    embedding: int = 100
    hidden: int = 128
    fill: float = 1.0
    layers: int = 1
    bidirectional: bool = False
    form: Literal["tokens", "float", "packed"] = "tokens"
    vocabulary: int = 10_000
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    int8: bool = False

    def __str__(self) -> str:
        parts = [] if self.form == "tokens" else [f"{self.form} input"]
        parts += [f"B={self.rows}, T={self.steps}", f"E={self.embedding}, H={self.hidden}"]
        if self.layers > 1:
            parts.append(f"{self.layers} layers")
        if self.bidirectional:
            parts.append("bidirectional")
        parts.append("dense" if self.fill == 1 else f"fill {self.fill}")
        if self.dtype != "float32":
            parts.append(self.dtype)
        if self.int8:
            parts.append("int8")
        return ", ".join(parts)

    @property
    def id(self) -> str:
        """Its name for pytest's -k, such as text-B1-T64-E100-H128-dense."""
        words = str(self).removeprefix(f"{self.form} input, ").replace("=", "").replace(" ", "").split(",")
        return "-".join([self.section, *words])

    @property
    def section(self) -> str:
        """The part of the table that it belongs to."""
        if self.dtype != "float32":
            return "bf16"
        if self.int8:
            return "int8"
        return "text" if self.form == "tokens" else self.form


FILL = 0.42  # of a batch of reviews, whose lengths scatter as a log-normal distribution's
ONE_SHORT = Cell(1, 64)
ONE_LONG = Cell(1, 256)
DENSE = Cell(32, 256)
RAGGED = Cell(32, 256, fill=FILL)
WIDE_ONE = Cell(1, 128, 300, 512)
WIDE_DENSE = Cell(32, 128, 300, 512)
WIDE_RAGGED = Cell(32, 128, 300, 512, fill=FILL)
DEEP = Cell(32, 128, fill=FILL, layers=2, bidirectional=True)
BF16 = Cell(32, 256, dtype="bfloat16")

INT8_SHORT, INT8_LONG = Cell(1, 64, int8=True), Cell(1, 256, int8=True)
INT8_WIDE_SHORT, INT8_WIDE_LONG = Cell(1, 64, 300, 512, int8=True), Cell(1, 256, 300, 512, int8=True)

INT8_CELLS = [INT8_SHORT, INT8_LONG, INT8_WIDE_SHORT, INT8_WIDE_LONG]
TEXT_CELLS = [ONE_SHORT, ONE_LONG, DENSE, RAGGED, WIDE_ONE, WIDE_DENSE, WIDE_RAGGED, DEEP]
_GRID = [
    (rows, steps, size, hidden)
    for rows, steps in ((1, 64), (8, 128), (32, 128), (128, 64))
    for size, hidden in ((32, 32), (64, 64), (100, 128), (256, 256), (300, 512), (128, 100))
]
FLOAT_CELLS = [Cell(*shape, form="float") for shape in _GRID]
# A single row has no padding: there a PackedSequence is a dense batch.
PACKED_CELLS = [Cell(*shape, fill=FILL if shape[0] > 1 else 1.0, form="packed") for shape in _GRID]


def draw_lengths(cell: Cell, generator: np.random.Generator) -> Tensor:
    """Text-like (log-normal) lengths (B,) int64 whose mean is fill * T, at least one row as long as T."""
    if cell.fill == 1:
        return torch.full((cell.rows,), cell.steps)
    drawn = generator.lognormal(0, 0.6, cell.rows)
    for _ in range(50):  # scaled until the clipped mean fits
        clipped = np.clip(drawn, 1, cell.steps)
        drawn *= cell.fill * cell.steps / clipped.mean()
    lengths = np.clip(np.rint(drawn), 1, cell.steps).astype(np.int64)
    lengths[lengths.argmax()] = cell.steps
    return torch.from_numpy(lengths)


def draw_ids(cell: Cell, generator: np.random.Generator) -> Tensor:
    """Token ids as frequent as words are (Zipf), (T, B) int64."""
    weights = 1 / (np.arange(cell.vocabulary) + 2.7)
    ids = generator.choice(cell.vocabulary, size=(cell.steps, cell.rows), p=weights / weights.sum())
    return torch.from_numpy(ids)
