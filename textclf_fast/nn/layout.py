"""How the rows of a batch lie in packed order, and the way there and back.

Packed order is that of ``torch.nn.utils.rnn.PackedSequence``: rows sorted by length, longest first, stored time-major.
Letters: T steps, B rows, N positions = sum of lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from textclf_fast import ops


class PackedLayout(NamedTuple):
    """Where the positions of a batch are; all int64.

    Attributes:
        batch_sizes: (T',) on the CPU: rows alive at each step, non-increasing; T' is the longest length.
        rows: B, which is batch_sizes[0].
        sorted_indices: (B,) the caller's row at each place of the packed order, or None where they agree.
        unsorted_indices: (B,) the inverse, or None.
        positions: (N,) the place of each packed position in the flattened padded batch, or None where every position
            counts.
    """

    batch_sizes: Tensor
    rows: int
    sorted_indices: Tensor | None = None
    unsorted_indices: Tensor | None = None
    positions: Tensor | None = None


def padded_layout(lengths: Tensor | Sequence[int] | None, steps: int, rows: int, batch_first: bool) -> PackedLayout:
    """The layout of a padded batch whose row b is ``lengths[b]`` steps long, or every row T where there are no lengths.

    Raises:
        TypeError: lengths that are not integers.
        ValueError: not one length a row.
        RuntimeError: a length outside ``1 .. steps``, or lengths that vmap maps over.
    """
    if lengths is not None:
        checked = _integer_vector(lengths)
        if checked.numel() != rows:
            raise ValueError(f"lengths: got {checked.numel()} lengths, expected {rows}, one for each row of the batch")
        step_stride, row_stride = (1, steps) if batch_first else (rows, 1)
        positions, batch_sizes, order, inverse = ops.packed_layout(checked, steps, step_stride, row_stride)
        # (A compiled graph cannot ask how many positions there are.)
        if torch.compiler.is_compiling() or positions.numel() < steps * rows:
            return PackedLayout(batch_sizes, rows, order, inverse, positions)
    return PackedLayout(torch.full((steps,), rows, dtype=torch.int64), rows)


def _integer_vector(lengths: Tensor | Sequence[int]) -> Tensor:
    given = lengths
    if not isinstance(given, Tensor):
        array = np.asarray(given)
        if array.dtype.kind not in "iu":
            raise TypeError(f"lengths: expected integers, got {_described(lengths)}")
        given = torch.from_numpy(array.astype(np.int64))
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise TypeError(f"lengths: expected integers, got a tensor of dtype {given.dtype}")
    if given.dim() != 1:
        raise ValueError(f"lengths: expected one dimension, got shape {tuple(given.shape)}")
    if ops.transformed():
        try:
            given.tolist()
        except RuntimeError as error:
            raise RuntimeError(
                "lengths: expected the same ones for every sample of vmap, whose layout they decide"
            ) from error
    return given.to("cpu", torch.int64)


def _described(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def packed_sequence_layout(packed: PackedSequence) -> PackedLayout:
    """The layout of a PackedSequence, checked against its data: one made by hand may not fit.

    Raises:
        RuntimeError: batch_sizes that are not a CPU int64 vector, are increasing or below 1, or do not add up to the
            rows of data; indices that are not one for each row.
    """
    sizes = packed.batch_sizes
    if sizes.dim() != 1 or sizes.dtype != torch.int64 or not sizes.is_cpu or sizes.numel() == 0:
        raise RuntimeError(
            "batch_sizes: expected a non-empty int64 vector on the CPU, "
            f"got shape {tuple(sizes.shape)}, dtype {sizes.dtype}, device {sizes.device}"
        )
    # (Tensors have no memory of their own under the transforms of torch.func.)
    array = np.array(sizes.tolist()) if ops.transformed() else sizes.numpy()
    if array[-1] < 1 or (array[1:] > array[:-1]).any():
        raise RuntimeError(
            f"batch_sizes: expected non-increasing numbers, at least 1, got {_described(array.tolist())}"
        )
    if packed.data.dim() == 0 or array.sum() != packed.data.size(0):
        raise RuntimeError(
            f"batch_sizes: they add up to {array.sum()}, expected the rows of data, of shape {tuple(packed.data.shape)}"
        )
    for name in ("sorted_indices", "unsorted_indices"):
        indices = getattr(packed, name)
        if indices is not None and indices.shape != (array[0],):
            raise RuntimeError(f"{name}: expected shape ({array[0]},), one for each row, got {tuple(indices.shape)}")
    return PackedLayout(sizes, int(array[0]), packed.sorted_indices, packed.unsorted_indices)


def to_packed(padded: Tensor, layout: PackedLayout, batch_first: bool) -> Tensor:
    """(T, B, ...) or, batch-first, (B, T, ...) -> (N, ...)."""
    if layout.positions is not None:
        return padded.flatten(0, 1).index_select(0, layout.positions.to(padded.device))
    return (padded.transpose(0, 1) if batch_first else padded).flatten(0, 1)


def to_padded(packed: Tensor, layout: PackedLayout, steps: int, rows: int, batch_first: bool) -> Tensor:
    """(N, C) -> (T, B, C) or, batch-first, (B, T, C); zero past the lengths."""
    if layout.positions is not None:
        shape = (rows, steps) if batch_first else (steps, rows)
        flat = packed.new_zeros(steps * rows, packed.size(1))
        return flat.index_copy_(0, layout.positions.to(packed.device), packed).view(*shape, packed.size(1))
    time_major = packed.view(steps, rows, packed.size(1))
    return time_major.transpose(0, 1) if batch_first else time_major


def permute_rows(state: Tensor, indices: Tensor | None) -> Tensor:
    """(L, B, H) with its rows in the order of ``indices``, or as it is."""
    return state if indices is None else state.index_select(1, indices.to(state.device))
