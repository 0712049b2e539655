"""Python face of the int8 ops, for inference on the CPU: W_hh in int8, all else float32.

The schemas are in csrc/ops.cpp, the layout of the numbers in csrc/cpu/int8_kernels.h.  Letters as in ops.py.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from textclf_fast import _libraries, fake_kernels  # noqa: F401 (registers them)

_libraries.load()
_ops = torch.ops.textclf_fast


class Int8Recurrent(NamedTuple):
    """W_hh in int8, as the CPU kernels read it: units in blocks of 16, H columns padded to K, a multiple of 8.

    ``w = number * scale * 127``: a scale says what one of a sum of products of W_hh's numbers and h's is worth, and
    h's, in -1 .. 1, are 127 times h.

    Attributes:
        numbers: (D, blocks, K / 4, 4 gates, 16 units, 4 columns) int8, in -127 .. 127; zero where it is padding.
        scales: (D, blocks, 4 gates, 16 units) float32: the largest |w| of a row of W_hh / 127^2.
        offsets: (D, blocks, 4 gates, 16 units) int32: 128 times the sum of a row's numbers.
    """

    numbers: Tensor
    scales: Tensor
    offsets: Tensor


def quantize_recurrent(w_hh: Tensor) -> Int8Recurrent:
    """W_hh in int8 for inference, symmetrically, each row with a scale of its own.

    Args:
        w_hh: (D, 4H, H) float32 on the CPU. A row that is not finite gives gates that are NaN, as in float32.

    Raises:
        RuntimeError: another shape or dtype, or H above 65536; the message names the argument.
    """
    return Int8Recurrent(*_ops.quantize_recurrent(w_hh))


def lstm_int8_inference(
    gates: Tensor, index: Tensor | None, batch_sizes: Tensor, w_hh: Int8Recurrent, need_output: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """One LSTM layer in the packed layout, from zero states, with W_hh in int8.

    h is rounded to a multiple of 1 / 127 in every step; c, the gates' input half and the cell are float32.

    Args:
        gates, index, batch_sizes, need_output: as in :func:`textclf_fast.ops.lstm`, gates float32.
        w_hh: what :func:`quantize_recurrent` made.

    Returns:
        output (N, D * H), or (0, D * H) unless needed; h_n and c_n (D, B, H).

    Raises:
        RuntimeError: a shape, dtype, device, batch size or index that does not fit; the message names the argument.
    """
    return _ops.lstm_int8_inference(gates, index, batch_sizes, *w_hh, need_output)


def embedding_lstm_int8_inference(
    table: Tensor,
    ids: Tensor,
    lengths: Tensor | None,
    batch_first: bool,
    w_hh: Int8Recurrent,
    need_output: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`textclf_fast.ops.embedding_lstm_inference` with W_hh in int8.

    Args:
        table: (D, V, 4H) float32.
        w_hh: what :func:`quantize_recurrent` made.
        ids, lengths, batch_first, need_output: as there, as are the results.

    Raises:
        RuntimeError: a shape, dtype, id or length that does not fit; the message names the argument.
    """
    return _ops.embedding_lstm_int8_inference(table, ids, lengths, batch_first, *w_hh, need_output)
