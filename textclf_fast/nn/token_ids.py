"""What can be wrong with token ids, said by their place in the caller's batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from textclf_fast import ops
from textclf_fast.nn.layout import PackedLayout


def is_padded_batch(ids: Tensor, lengths: Tensor | Sequence[int] | None, batch_first: bool) -> bool:
    """Whether ops for padded batches take these: int64 on the CPU, (T, B) or (B, T), and (B,) lengths or none."""
    return (
        ids.dtype is torch.int64
        and ids.dim() == 2
        and ids.is_cpu
        and ids.numel() > 0
        and (
            lengths is None
            or (
                isinstance(lengths, Tensor)
                and lengths.dtype is torch.int64
                and lengths.is_cpu
                and lengths.shape == (ids.size(0 if batch_first else 1),)
            )
        )
    )


def check_ids_dtype(ids: Tensor) -> None:
    """Raises TypeError for ids that are not int64 or int32."""
    if ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"ids: expected dtype int64 or int32, got {ids.dtype}")


def refuse_bad_ids(vocab_size: int, ids: Tensor, layout: PackedLayout, steps: int, batch_first: bool) -> None:
    """Called when a run has failed: says which id was out of range, if that was why.

    Args:
        vocab_size: V.
        ids: (N,) in packed order.
        layout: where the positions are.
        steps: T of the padded batch, 0 where it was packed.
        batch_first: the form of the padded batch.

    Raises:
        IndexError: there is one; names it and its place.
    """
    if ids.is_cuda or not ops.transforms_are_off():
        return  # on a GPU it was something else; some transforms cannot look at numbers: PyTorch's message will do
    bad = ((ids < 0) | (ids >= vocab_size)).nonzero()
    if not bad.numel():
        return
    first = int(bad[0])
    if layout.positions is not None:
        place = divmod(int(layout.positions[first]), steps if batch_first else layout.rows)
        where = f"({place[0]}, {place[1]})"
    elif steps:
        step, row = divmod(first, layout.rows)
        where = f"({row}, {step})" if batch_first else f"({step}, {row})"
    else:
        where = f"({first},)"
    raise IndexError(
        f"ids: token id {int(ids[first])} at {where}, expected 0 <= id < {vocab_size} (num_embeddings)"
    ) from None
