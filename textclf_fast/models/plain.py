"""The same classifier in plain PyTorch: the peer that TextClassifier is compared with, in tests and in benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence


class PlainTextClassifier(nn.Module):
    """nn.Embedding -> nn.LSTM -> nn.Linear.

    Args:
        vocab_size: V.
        embedding_dim: I.
        hidden_dim: H.
        output_dim: C.
        layout: ``"padded"`` runs over the padding too and reads the last step, as such classifiers are often written:
            right only where all rows have one length. ``"packed"`` goes through pack_padded_sequence: right, slower.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_dim: int,
        hidden_dim: int,
        output_dim: int,
        *,
        layout: Literal["padded", "packed"] = "padded",
    ) -> None:
        super().__init__()
        if layout not in ("padded", "packed"):
            raise ValueError(f"layout: got {layout!r}, expected 'padded' or 'packed'")
        self.layout = layout
        self.embedding = nn.Embedding(vocab_size, embedding_dim)
        self.lstm = nn.LSTM(embedding_dim, hidden_dim)
        self.fc = nn.Linear(hidden_dim, output_dim)

    def forward(self, ids: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """ids (T, B) int64, lengths (B,) (needed by ``"packed"``) -> logits (B, C)."""
        embedded = self.embedding(ids)
        if self.layout == "packed":
            if lengths is None:
                raise ValueError("lengths: expected one length a row for layout='packed', got None")
            packed = pack_padded_sequence(embedded, torch.as_tensor(lengths), enforce_sorted=False)
            _, (h_n, _) = self.lstm(packed)
            return self.fc(h_n[-1])
        output, _ = self.lstm(embedded)
        return self.fc(output[-1])
