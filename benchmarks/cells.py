"""What is timed: shapes of text batches, ours and PyTorch's ways of computing them.

Letters: V vocabulary, E embedding, H hidden, B rows, T steps; "fill" is mean length / T.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from textclf_fast import FusedEmbeddingLSTM, FusedLSTM

Call = Callable[[], object]


@dataclass(frozen=True)
class Cell:
    """One shape. ``tokens``: Embedding + LSTM on token ids; otherwise LSTM alone on float input of width E."""

    rows: int
    steps: int
    embedding: int = 100
    hidden: int = 128
    fill: float = 1.0
    layers: int = 1
    bidirectional: bool = False
    tokens: bool = True
    vocabulary: int = 10_000

    def __str__(self) -> str:
        parts = [f"B={self.rows}, T={self.steps}", f"E={self.embedding}, H={self.hidden}"]
        if self.layers > 1:
            parts.append(f"{self.layers} layers")
        if self.bidirectional:
            parts.append("bidirectional")
        parts.append("dense" if self.fill == 1 else f"fill {self.fill}")
        return ("" if self.tokens else "float input, ") + ", ".join(parts)


TEXT_CELLS = [
    Cell(1, 64),
    Cell(1, 256),
    Cell(32, 256),
    Cell(32, 256, fill=0.42),
    Cell(1, 128, 300, 512),
    Cell(32, 128, 300, 512),
    Cell(32, 128, 300, 512, fill=0.42),
    Cell(32, 128, fill=0.42, layers=2, bidirectional=True),
]
FLOAT_CELLS = [
    Cell(rows, steps, size, hidden, tokens=False)
    for rows, steps in ((1, 64), (8, 128), (32, 128), (128, 64))
    for size, hidden in ((32, 32), (64, 64), (100, 128), (256, 256), (300, 512), (128, 100))
]


def draw_lengths(cell: Cell, generator: np.random.Generator) -> Tensor:
    """Text-like (log-normal) lengths whose mean is fill * T, at least one row as long as T."""
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
    """Token ids as frequent as words are (Zipf), (T, B)."""
    weights = 1 / (np.arange(cell.vocabulary) + 2.7)
    ids = generator.choice(cell.vocabulary, size=(cell.steps, cell.rows), p=weights / weights.sum())
    return torch.from_numpy(ids)


def make_calls(cell: Cell, training: bool) -> tuple[Call, dict[str, Call]]:
    """Ours, and PyTorch's by name: each computes output, h_n and c_n, in training also every gradient."""
    generator = np.random.default_rng(0)
    torch.manual_seed(0)
    options = {"num_layers": cell.layers, "bidirectional": cell.bidirectional}
    lengths = draw_lengths(cell, generator)
    dense = cell.fill == 1
    lstm = nn.LSTM(cell.embedding, cell.hidden, **options)  # type: ignore[arg-type]
    if cell.tokens:
        x = draw_ids(cell, generator)
        embedding = nn.Embedding(cell.vocabulary, cell.embedding)
        embed: Callable[[Tensor], Tensor] = embedding
        fused = FusedEmbeddingLSTM(cell.vocabulary, cell.embedding, cell.hidden, **options)  # type: ignore[arg-type]
        fused.embedding.load_state_dict(embedding.state_dict())
        fused.lstm.load_state_dict(lstm.state_dict())
        peer_modules, our_module = nn.ModuleList([embedding, lstm]), fused

        if not training:
            fused.prepare_inference()

        def ours() -> object:
            return fused(x, None if dense else lengths)
    else:
        x = torch.randn(cell.steps, cell.rows, cell.embedding, requires_grad=training)
        embed = nn.Identity()
        fused_lstm = FusedLSTM(cell.embedding, cell.hidden, **options)  # type: ignore[arg-type]
        fused_lstm.load_state_dict(lstm.state_dict())
        peer_modules, our_module = nn.ModuleList([lstm]), fused_lstm  # type: ignore[assignment]

        def ours() -> object:
            return fused_lstm(x, lengths=None if dense else lengths)

    def padded() -> object:
        return lstm(embed(x))

    def packed() -> object:
        return lstm(pack_padded_sequence(embed(x), lengths, enforce_sorted=False))

    peers: dict[str, Call] = {"padded": padded} if dense else {"padded": padded, "packed": packed}
    return _timed(ours, our_module, x, training), {
        name: _timed(peer, peer_modules, x, training) for name, peer in peers.items()
    }


def _timed(call: Call, module: nn.Module, x: Tensor, training: bool) -> Call:
    if not training:
        module.eval()

        def infer() -> object:
            with torch.inference_mode():
                return call()

        return infer

    def step() -> None:
        module.zero_grad()
        x.grad = None
        _, (h_n, _) = call()  # type: ignore[misc]
        h_n.sum().backward()

    return step
