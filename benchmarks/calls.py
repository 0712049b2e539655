"""The calls that are timed: ours and PyTorch's ways of computing a cell, on the same weights and the same input."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from benchmarks.cells import Cell, draw_ids, draw_lengths
from benchmarks.peer_process import PeerProcess
from benchmarks.timing import Call
from textclf_fast import FusedEmbeddingLSTM, FusedLSTM

Forward = Callable[[], tuple[object, tuple[Tensor, Tensor]]]


@dataclass
class Contest:
    """Who is timed in a cell.

    Attributes:
        ours: one inference, or one training step: output, h_n and c_n, in training also every gradient.
        peers: the same by others in this process, by name.
        others: peers in a process of their own, if there are any; to be closed.
        positions: N, the sum of the lengths.
        distinct: how many tokens of the vocabulary the batch has; 0 where the input is not tokens.
    """

    ours: Call
    peers: dict[str, Call]
    positions: int
    distinct: int
    others: PeerProcess | None = None


def make_contest(cell: Cell, training: bool, others: bool = True) -> Contest:
    """Builds the modules and the input of a cell; ``others``: with the peers that are not PyTorch, in inference."""
    return _on_tokens(cell, training, others) if cell.form == "tokens" else _on_floats(cell, training)


def _options(cell: Cell) -> dict[str, Any]:
    return {"num_layers": cell.layers, "bidirectional": cell.bidirectional}


def _on_tokens(cell: Cell, training: bool, others: bool) -> Contest:
    generator = np.random.default_rng(0)
    torch.manual_seed(0)
    lengths, ids = draw_lengths(cell, generator), draw_ids(cell, generator)
    dtype = getattr(torch, cell.dtype)
    dense = cell.fill == 1
    embedding = nn.Embedding(cell.vocabulary, cell.embedding)
    lstm = nn.LSTM(cell.embedding, cell.hidden, **_options(cell))

    def fused(to: torch.dtype, int8: bool = False) -> Call:
        module = FusedEmbeddingLSTM(cell.vocabulary, cell.embedding, cell.hidden, **_options(cell))
        module.embedding.load_state_dict(embedding.state_dict())
        module.lstm.load_state_dict(lstm.state_dict())
        module.to(to)
        if not training:
            module.prepare_inference("int8" if int8 else None)
        return _timed(lambda: module(ids, None if dense else lengths), module, None, training)

    ours = fused(dtype, cell.int8)
    contest = Contest(ours, {}, int(lengths.sum()), _distinct(ids, lengths))
    if dtype != torch.float32 or cell.int8:
        contest.peers["our float32"] = fused(torch.float32)
    if cell.int8:
        quantized = _dynamic_int8(lstm)
        contest.peers["PyTorch int8"] = _timed(lambda: quantized(embedding(ids)), quantized, None, training)
    if others and not training and not cell.int8:
        contest.others = PeerProcess(embedding, lstm, ids, None if dense else lengths, cell.dtype)
    # The other peers have taken their copies of the float32 weights by now.
    plain = nn.ModuleList([embedding, lstm]).to(dtype)
    contest.peers["padded"] = _timed(lambda: lstm(embedding(ids)), plain, None, training)
    if not dense:
        contest.peers["packed"] = _timed(
            lambda: lstm(pack_padded_sequence(embedding(ids), lengths, enforce_sorted=False)), plain, None, training
        )
    return contest


def _dynamic_int8(lstm: nn.LSTM) -> nn.Module:
    """PyTorch's own int8 LSTM: both weights in int8, the activations quantised in every step by their range."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated in favour of torchao, which has no LSTM
        whole = torch.ao.quantization.quantize_dynamic(nn.Sequential(lstm), {nn.LSTM}, dtype=torch.qint8)
    return whole[0]


def _on_floats(cell: Cell, training: bool) -> Contest:
    generator = np.random.default_rng(0)
    torch.manual_seed(0)
    lengths = draw_lengths(cell, generator)
    lstm = nn.LSTM(cell.embedding, cell.hidden, **_options(cell))
    fused = FusedLSTM(cell.embedding, cell.hidden, **_options(cell))
    fused.load_state_dict(lstm.state_dict())
    x = torch.randn(cell.steps, cell.rows, cell.embedding)
    data: Tensor
    given: Tensor | PackedSequence
    if cell.form == "packed":
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        data = packed.data.requires_grad_(training)
        given, name = PackedSequence(data, *packed[1:]), "packed"
    else:
        given, name = (data := x.requires_grad_(training)), "padded"
    return Contest(
        _timed(lambda: fused(given), fused, data, training),
        {name: _timed(lambda: lstm(given), lstm, data, training)},
        int(lengths.sum()),
        0,
    )


def _distinct(ids: Tensor, lengths: Tensor) -> int:
    inside = torch.arange(ids.size(0)).unsqueeze(1) < lengths
    return int(ids[inside].unique().numel())


def _timed(forward: Forward, module: nn.Module, data: Tensor | None, training: bool) -> Call:
    if not training:
        module.eval()

        def infer() -> object:
            with torch.inference_mode():
                return forward()

        return infer

    def step() -> None:
        module.zero_grad()
        if data is not None:
            data.grad = None
        _, (h_n, _) = forward()
        h_n.sum().backward()

    return step
