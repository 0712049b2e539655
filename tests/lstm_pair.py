"""nn.LSTM and FusedLSTM with the same weights, and their results side by side."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from textclf_fast import FusedLSTM


def pair(*args: int, **options: object) -> tuple[nn.LSTM, FusedLSTM]:
    """Both, made of the same arguments."""
    plain, fused = nn.LSTM(*args, **options), FusedLSTM(*args, **options)  # type: ignore[arg-type]
    fused.load_state_dict(plain.state_dict())
    return plain, fused


def flat(result: tuple[Tensor | PackedSequence, tuple[Tensor, Tensor]]) -> list[Tensor]:
    """output, h_n and c_n."""
    output = result[0]
    return [output.data if isinstance(output, PackedSequence) else output, *result[1]]


def assert_same(got: object, want: object) -> None:
    """Of two results: up to rounding."""
    for a, b in zip(flat(got), flat(want), strict=True):  # type: ignore[arg-type]
        torch.testing.assert_close(a, b)
        assert a.shape == b.shape
