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
        batch_sizes: (T',) on the CPU: rows alive at each step, non-increasing; T' is the longest length. On the GPU
            where the lengths are: (T,), with zeros at the end.
        rows: B, which is batch_sizes[0].
        sorted_indices: (B,) the caller's row at each place of the packed order, or None where they agree.
        unsorted_indices: (B,) the inverse, or None.
        positions: (N,) the place of each packed position in the flattened padded batch, or None where every position
            counts. Of a layout on the GPU N is T * B: -1 past what there is, and for rows whose length is none.
        places: (T * B,), of a layout on the GPU alone: the packed position of each place in the flattened padded batch,
            -1 past the lengths.
    """

    batch_sizes: Tensor
    rows: int
    sorted_indices: Tensor | None = None
    unsorted_indices: Tensor | None = None
    positions: Tensor | None = None
    places: Tensor | None = None


def padded_layout(
    lengths: Tensor | Sequence[int] | None,
    steps: int,
    rows: int,
    batch_first: bool,
    device: torch.device | None = None,
) -> PackedLayout:
    """The layout of a padded batch whose row b is ``lengths[b]`` steps long, or every row T where there are no lengths.

    ``device``: a GPU's, where our kernels compute there: the indices are on it then, and in inference lengths on a GPU
    stay there.

    Raises:
        TypeError: lengths that are not integers.
        ValueError: not one length a row.
        RuntimeError: a length outside ``1 .. steps``, or lengths that vmap maps over.
    """
    if lengths is not None:
        # (Not in training: numbers that no kernel wrote would get into sums, and zero times NaN is NaN.)
        stay = device is not None and isinstance(lengths, Tensor) and lengths.is_cuda and not torch.is_grad_enabled()
        checked = _integer_vector(lengths, device if stay else torch.device("cpu"))
        if checked.numel() != rows:
            raise ValueError(f"lengths: got {checked.numel()} lengths, expected {rows}, one for each row of the batch")
        step_stride, row_stride = (1, steps) if batch_first else (rows, 1)
        if stay:
            return layout_in_place(checked, steps, step_stride, row_stride)
        positions, batch_sizes, order, inverse = ops.packed_layout(checked, steps, step_stride, row_stride)
        # (A compiled graph cannot ask how many positions there are.)
        if torch.compiler.is_compiling() or positions.numel() < steps * rows:
            if device is not None:
                indices = torch.cat([order, inverse, positions]).to(device, non_blocking=True)
                order, inverse, positions = indices.split([rows, rows, positions.numel()])
            return PackedLayout(batch_sizes, rows, order, inverse, positions)
    return PackedLayout(torch.full((steps,), rows, dtype=torch.int64), rows)


def layout_in_place(lengths: Tensor, steps: int, step_stride: int, row_stride: int) -> PackedLayout:
    """The layout of a padded batch on the device where its lengths are, without a look at them from the host.

    So nobody knows how many positions there are, and all tensors are as large as they may be; nor can a length outside
    of ``1 .. steps`` be refused: such rows have no positions but -1, which makes their results NaN.

    Args:
        lengths: (B,) int64.
        steps, step_stride, row_stride: as in :func:`textclf_fast.ops.layout_in_place`.
    """
    positions, places, batch_sizes, order, inverse = ops.layout_in_place(lengths, steps, step_stride, row_stride)
    return PackedLayout(batch_sizes, lengths.size(0), order, inverse, positions, places)


def _integer_vector(lengths: Tensor | Sequence[int], device: torch.device | None) -> Tensor:
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
    return given.to(device, torch.int64)


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
    """(T, B, ...) or, batch-first, (B, T, ...) -> (N, ...); -1 where a layout on the GPU has no place."""
    if layout.places is not None:
        assert layout.positions is not None
        found = padded.flatten(0, 1).index_select(0, layout.positions.clamp(min=0))
        return found.masked_fill_((layout.positions < 0).view(-1, *[1] * (found.dim() - 1)), -1)
    if layout.positions is not None:
        flat = padded.flatten(0, 1)
        if _rows_by_our_ops(padded):
            return ops.gather_rows(flat, layout.positions)
        return flat.index_select(0, layout.positions.to(padded.device))
    return (padded.transpose(0, 1) if batch_first else padded).flatten(0, 1)


def to_padded(packed: Tensor, layout: PackedLayout, steps: int, rows: int, batch_first: bool) -> Tensor:
    """(N, C) -> (T, B, C) or, batch-first, (B, T, C); zero past the lengths."""
    shape = (rows, steps) if batch_first else (steps, rows)
    if layout.places is not None:
        found = packed.index_select(0, layout.places.clamp(min=0))
        # (Not multiplied by zero: what nobody wrote may be NaN.)
        return found.masked_fill_((layout.places < 0).unsqueeze(1), 0).view(*shape, packed.size(1))
    if layout.positions is not None:
        if _rows_by_our_ops(packed):
            return ops.scatter_rows(packed, layout.positions, steps * rows).view(*shape, packed.size(1))
        flat = packed.new_zeros(steps * rows, packed.size(1))
        return flat.index_copy_(0, layout.positions.to(packed.device), packed).view(*shape, packed.size(1))
    time_major = packed.view(steps, rows, packed.size(1))
    return time_major.transpose(0, 1) if batch_first else time_major


def _rows_by_our_ops(values: Tensor) -> bool:
    """Whether ours move rows for a training step: on two threads, in memory that is kept, and their gradients likewise.

    32 rows of 256 steps, 42 % of them real, H = 128: putting them into zeros takes PyTorch 92 us and ours 46 us, taking
    them from there 20 us and 32 us, and the gradient of that 73 us and 46 us.
    """
    in_training = torch.is_grad_enabled() and values.requires_grad and not torch.compiler.is_compiling()
    return in_training and values.is_cpu and not ops.transformed()


def permute_rows(state: Tensor, indices: Tensor | None) -> Tensor:
    """(L, B, H) with its rows in the order of ``indices``, or as it is."""
    return state if indices is None else state.index_select(1, indices.to(state.device))
