"""One vector for each row of a batch, from the LSTM's hidden states at the row's own steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from textclf_fast.nn import FusedEmbeddingLSTM, FusedLSTM
from textclf_fast.nn.extended import unpack_form

Pooling = Literal["last", "max", "mean", "concat"]
"""How: the state after the last step (of the reverse direction, its own last, the first); for each unit the largest, or
the mean, over the steps; or these three one after the other, as in J. Howard and S. Ruder, Universal Language Model
Fine-tuning for Text Classification, 2018."""


def check_pooling(pooling: str) -> None:
    """Refuses what is not one."""
    if pooling not in get_args(Pooling):
        raise ValueError(f"pooling: expected one of {', '.join(map(repr, get_args(Pooling)))}, got {pooling!r}")


def pooled_width(lstm: FusedLSTM, pooling: Pooling) -> int:
    """The numbers of a row's vector: D * H, or three times as many."""
    return lstm.hidden_size * (2 if lstm.bidirectional else 1) * (3 if pooling == "concat" else 1)


def run_pooled(
    module: FusedEmbeddingLSTM | FusedLSTM,
    batch: Tensor | PackedSequence,
    lengths: Tensor | Sequence[int] | None,
    pooling: Pooling,
) -> Tensor:
    """Runs the module and pools its output.

    Args:
        module: in its own layout, batch-first or not.
        batch: (T, B) ids or (T, B, I) numbers, or as a PackedSequence.
        lengths: (B,), or None where every step counts.

    Returns:
        (B, W), W as of :func:`pooled_width`.

    Raises:
        IndexError, TypeError, ValueError, RuntimeError: as the module's forward.
    """
    if isinstance(module, FusedEmbeddingLSTM):
        lstm, row_dim, last_alone = module.lstm, 1, {"need_output": False}
    else:
        lstm, row_dim, last_alone = module, 2, {}
    if pooling == "last":
        _, (h_n, _) = module(batch, lengths=lengths, **last_alone)
        return _last(lstm, h_n)
    if isinstance(batch, Tensor) and batch.dim() != row_dim + 1:
        raise ValueError(f"batch: expected {row_dim + 1} dimensions, got shape {tuple(batch.shape)}")
    # Padded inference is one op, and a graph cannot make a PackedSequence. In training the padded way back is many
    # times slower: at B = 32, T = 256, H = 128, 42 % of it filled, 26 ms were seen against 1 to 3.
    if isinstance(batch, Tensor) and (torch.compiler.is_compiling() or not torch.is_grad_enabled()):
        output, (h_n, _) = module(batch, lengths=lengths)
        parts = _pool_padded(output, lengths, pooling, 1 if lstm.batch_first else 0)
    else:
        output, h_n = _run_packed(module, batch, lengths, lstm.batch_first, row_dim)
        parts = _pool_packed(output, pooling)
    return torch.cat((_last(lstm, h_n), *parts), dim=1) if pooling == "concat" else parts[0]


def _last(lstm: FusedLSTM, h_n: Tensor) -> Tensor:
    return torch.cat((h_n[-2], h_n[-1]), dim=-1) if lstm.bidirectional else h_n[-1]


def _run_packed(
    module: FusedEmbeddingLSTM | FusedLSTM, batch: Any, lengths: Any, batch_first: bool, row_dim: int
) -> tuple[PackedSequence, Tensor]:
    if isinstance(batch, PackedSequence):
        output, (h_n, _) = module(batch, lengths=lengths)
        return output, h_n
    data, (layout, *_), _ = unpack_form(batch, lengths, None, batch_first, row_dim)
    packed = PackedSequence(data, layout.batch_sizes, layout.sorted_indices, layout.unsorted_indices)
    try:
        output, (h_n, _) = module(packed)
    except IndexError:
        module(batch, lengths=lengths)  # says where in the caller's batch
        raise
    return output, h_n


# ---- Padded --------------------------------------------------------------------------------------


def _pool_padded(output: Tensor, lengths: Any, pooling: Pooling, step_dim: int) -> list[Tensor]:
    """(T, B, C), zero past the lengths, -> the largest (B, C) and the mean (B, C), or one of them."""
    parts = []
    steps = output.size(step_dim)
    if lengths is not None:
        lengths = torch.as_tensor(lengths).to(output.device).unsqueeze(1)
    if pooling != "max":
        parts.append(output.sum(step_dim) / (steps if lengths is None else lengths))
    if pooling != "mean":
        if lengths is not None:
            past = torch.arange(steps, device=output.device) >= lengths  # (B, T)
            past = (past if step_dim else past.T).unsqueeze(2)
            # Nobody else has the output, unless autograd has: no second one of its size.
            fill = Tensor.masked_fill if torch.is_grad_enabled() else Tensor.masked_fill_
            output = fill(output, past, float("-inf"))
        parts.insert(0, output.amax(step_dim))
    return parts


# ---- Packed --------------------------------------------------------------------------------------


class PackedRows(NamedTuple):
    """Where the rows of a batch in packed order are; on the CPU, int64, rows numbered in that order.

    Attributes:
        row: (N,) the row of each position.
        places: (N,) the positions in the order of the rows, each row's in the order of its steps.
        offsets: (B,) where each row begins in ``places``.
        lengths: (B,).
    """

    row: Tensor
    places: Tensor
    offsets: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, batch_sizes: Tensor, rows: int, positions: int) -> PackedRows:
        """From the batch sizes (T,) of B rows, N positions in all."""
        step = torch.arange(batch_sizes.numel()).repeat_interleave(batch_sizes, output_size=positions)
        position = torch.arange(positions)
        row = position - (batch_sizes.cumsum(0) - batch_sizes).index_select(0, step)
        lengths = torch.zeros(rows, dtype=torch.int64).index_add(0, row, torch.ones_like(row))
        offsets = lengths.cumsum(0) - lengths
        places = torch.empty_like(position).scatter(0, offsets.index_select(0, row) + step, position)
        return cls(row, places, offsets, lengths)


def _pool_packed(output: PackedSequence, pooling: Pooling) -> list[Tensor]:
    data = output.data
    rows = PackedRows.of(output.batch_sizes, int(output.batch_sizes[0]), data.size(0))
    rows = PackedRows(*(part.to(data.device) for part in rows))
    parts = [] if pooling == "mean" else [_max_of_rows(data, rows)]
    if pooling != "max":
        parts.append(_mean_of_rows(data, rows))
    order = output.unsorted_indices
    return parts if order is None else [part.index_select(0, order) for part in parts]


def _max_of_rows(data: Tensor, rows: PackedRows) -> Tensor:
    """(N, C) -> (B, C); the gradient goes to the first of several that are the largest."""
    if not torch.is_grad_enabled():
        largest = data.new_empty(rows.lengths.numel(), data.size(1))
        row = rows.row.unsqueeze(1).expand_as(data)
        return largest.scatter_reduce_(0, row, data, "amax", include_self=False)
    # As bags of positions: that op finds where the largest are. Its own gradient cannot be differentiated.
    _, _, _, where = torch.embedding_bag(data.detach(), rows.places, rows.offsets, mode=2)
    return data.gather(0, where)


def _mean_of_rows(data: Tensor, rows: PackedRows) -> Tensor:
    """(N, C) -> (B, C), summed in float32 at least."""
    dtype = torch.promote_types(data.dtype, torch.float32)
    total = torch.zeros(rows.lengths.numel(), data.size(1), dtype=dtype, device=data.device)
    return (total.index_add(0, rows.row, data.to(dtype)) / rows.lengths.unsqueeze(1)).to(data.dtype)
