"""Where texts end in a padded batch."""

from __future__ import annotations

import torch
from torch import Tensor


def lengths_before_padding(ids: Tensor, padding_idx: int, batch_first: bool) -> Tensor:
    """The number of steps before each row's trailing padding, (B,) int64.

    Raises:
        ValueError: a row that is padding alone.
    """
    step_dim = 1 if batch_first else 0
    steps = torch.arange(1, ids.size(step_dim) + 1, device=ids.device)
    lengths = ((ids != padding_idx) * (steps if batch_first else steps.unsqueeze(1))).amax(step_dim)
    lengths = lengths.cpu()  # the layout of the batch is made on the CPU
    # (A compiled graph cannot look at numbers: the layout's op refuses a length of 0, too.)
    if not torch.compiler.is_compiling() and lengths.numel() and int(lengths.min()) == 0:
        row = int(lengths.argmin())
        raise ValueError(
            f"ids: row {row} holds padding alone (padding_idx = {padding_idx}), expected at least one token"
        )
    return lengths
