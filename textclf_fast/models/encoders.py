"""Encoders of single inputs for :class:`textclf_fast.models.MultiInputClassifier`: each makes one vector a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from textclf_fast.models.padding import known_lengths
from textclf_fast.models.pooling import Pooling, check_pooling, pooled_width, run_pooled
from textclf_fast.nn import FusedEmbeddingLSTM, FusedLSTM

Input = Tensor | PackedSequence | tuple[Tensor, Tensor | Sequence[int] | None]


class Encoder(nn.Module):
    """One input -> vectors (B, W).

    Attributes:
        kind: its name in a configuration.
        width: W.
    """

    kind: ClassVar[str]
    width: int

    def forward(self, input: Any) -> Tensor:
        """The input, alone or with lengths, as it was given to the classifier -> (B, W)."""
        raise NotImplementedError


class TextEncoder(Encoder):
    """Token ids -> FusedEmbeddingLSTM -> its hidden states pooled.

    Args:
        vocab_size: V.
        embedding_dim, hidden_dim, num_layers, bidirectional, dropout, padding_idx, batch_first, sparse, pooling: as of
            :class:`textclf_fast.TextClassifier`.
        lstm_options: others of :class:`textclf_fast.FusedEmbeddingLSTM`, by keyword.
    """

    kind = "text"

    def __init__(
        self,
        vocab_size: int,
        embedding_dim: int,
        hidden_dim: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        padding_idx: int | None = 0,
        batch_first: bool = False,
        sparse: bool = False,
        pooling: Pooling = "last",
        **lstm_options: Any,
    ) -> None:
        super().__init__()
        check_pooling(pooling)
        self.pooling = pooling
        self.padding_idx = padding_idx
        self.encoder = FusedEmbeddingLSTM(
            vocab_size,
            embedding_dim,
            hidden_dim,
            num_layers,
            batch_first=batch_first,
            dropout=dropout if num_layers > 1 else 0.0,
            bidirectional=bidirectional,
            sparse=sparse,
            **lstm_options,
        )
        self.width = pooled_width(self.encoder.lstm, pooling)

    def forward(self, input: Input) -> Tensor:
        """Ids (T, B), with lengths or their padding counted, or a PackedSequence of (N,) ids."""
        ids, lengths = _with_lengths(input)
        lengths = known_lengths(ids, lengths, self.padding_idx, self.encoder.lstm.batch_first)
        return run_pooled(self.encoder, ids, lengths, self.pooling)

    def forward_vectors(self, vectors: Tensor) -> Tensor:
        """One text's vectors (T, I) instead of its ids -> (1, W)."""
        lstm = self.encoder.lstm
        return run_pooled(lstm, vectors.unsqueeze(0 if lstm.batch_first else 1), None, self.pooling)


class SequenceEncoder(Encoder):
    """Vectors of numbers in a row, such as frames of speech or rows of an image -> FusedLSTM -> pooled.

    Args:
        size: F, numbers per step.
        hidden_dim, num_layers, bidirectional, dropout, batch_first, pooling: as of :class:`TextEncoder`.
        lstm_options: others of :class:`textclf_fast.FusedLSTM`, by keyword.
    """

    kind = "sequence"

    def __init__(
        self,
        size: int,
        hidden_dim: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        batch_first: bool = False,
        pooling: Pooling = "last",
        **lstm_options: Any,
    ) -> None:
        super().__init__()
        check_pooling(pooling)
        self.pooling = pooling
        self.lstm = FusedLSTM(
            size,
            hidden_dim,
            num_layers,
            batch_first=batch_first,
            dropout=dropout if num_layers > 1 else 0.0,
            bidirectional=bidirectional,
            **lstm_options,
        )
        self.width = pooled_width(self.lstm, pooling)

    def forward(self, input: Input) -> Tensor:
        """(T, B, F), with lengths or every step counting, or a PackedSequence of (N, F)."""
        x, lengths = _with_lengths(input)
        if isinstance(x, Tensor) and x.dim() != 3:
            raise ValueError(f"input: expected shape (T, B, F), got {tuple(x.shape)}")
        return run_pooled(self.lstm, x, lengths, self.pooling)


class ColumnsEncoder(Encoder):
    """Columns of numbers -> linear layer -> ReLU. They are best about as large as 1, or standardised.

    Args:
        size: F columns.
        hidden_dim: the units.
    """

    kind = "columns"

    def __init__(self, size: int, hidden_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, hidden_dim)
        self.width = hidden_dim

    def forward(self, input: Tensor) -> Tensor:
        """(B, F)"""
        if not isinstance(input, Tensor):
            raise TypeError(f"input: expected a tensor, got {type(input).__name__}")
        if input.dim() != 2 or input.size(1) != self.linear.in_features:
            raise ValueError(f"input: expected shape (B, {self.linear.in_features}), got {tuple(input.shape)}")
        return torch.relu(self.linear(input))


_KINDS: dict[str, type[Encoder]] = {kind.kind: kind for kind in (TextEncoder, SequenceEncoder, ColumnsEncoder)}


def make_encoder(config: Mapping[str, Any], vocab_size: int | None, batch_first: bool) -> Encoder:
    """An encoder from its ``kind`` and, beside that, its arguments, which JSON can hold.

    Args:
        config: all arguments but the two below.
        vocab_size: V, of texts.
        batch_first: of texts and sequences.

    Raises:
        ValueError: there is no such kind, no vocabulary for a text, or an argument is out of range.
        TypeError: arguments that it does not take, or lacks.
    """
    arguments = dict(config)
    kind = arguments.pop("kind", None)
    if kind not in _KINDS:
        raise ValueError(f"kind: expected one of {', '.join(_KINDS)}, got {kind!r}")
    if kind == "text":
        if vocab_size is None:
            raise ValueError("vocab_size: expected the number of tokens where there is a text, got None")
        arguments["vocab_size"] = vocab_size
    if kind != "columns":
        arguments["batch_first"] = batch_first
    return _KINDS[kind](**arguments)


def _with_lengths(input: Any) -> tuple[Any, Any]:
    if isinstance(input, PackedSequence):  # which is a tuple, too
        return input, None
    if isinstance(input, tuple | list):
        if len(input) != 2:
            raise ValueError(f"input: expected a pair of a tensor and lengths, got {len(input)} things")
        input, lengths = input
    else:
        lengths = None
    if not isinstance(input, Tensor):
        raise TypeError(
            f"input: expected a tensor, a pair of it and lengths, or a PackedSequence, got {type(input).__name__}"
        )
    return input, lengths
