"""Training of an embedding and one layer in one op each way: the short way where nothing is special."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from textclf_fast import ops
from textclf_fast.nn.distinct import looks_up_alone, padding_row
from textclf_fast.nn.layout import PackedLayout, permute_rows
from textclf_fast.nn.stack import start_training

if TYPE_CHECKING:
    from textclf_fast.nn.lstm import FusedLSTM, States


def trains_in_one_op(embedding: nn.Embedding, lstm: FusedLSTM) -> bool:
    """Whether :func:`train_in_one_op` may run modules on the CPU that our kernels compute.

    It spares ten calls and as many nodes of autograd, and no arithmetic. Two cores with AVX-512, I = 100, H = 128, of
    the general way's training step: one row of 64 steps takes 0.85, of 256 0.94; 32 rows of 20 steps 0.95, of 256 0.98.
    """
    weight, weights = embedding.weight, lstm._flat_weights
    return (
        lstm.num_layers == 1
        and not lstm.bidirectional
        and lstm.proj_size == 0
        and weight.dtype in (torch.float32, torch.float64)
        and weight.dtype == weights[0].dtype  # type: ignore[union-attr]
        and looks_up_alone(embedding)
        and not embedding.scale_grad_by_freq  # which counts how often the batch looks a token up
        and (weight.requires_grad or any(w.requires_grad for w in weights))  # type: ignore[union-attr]
        and not torch.compiler.is_compiling()
    )


def train_in_one_op(
    embedding: nn.Embedding, lstm: FusedLSTM, ids: Tensor, layout: PackedLayout
) -> tuple[Tensor, States]:
    """From zero states: (N,) int64 ids in packed order -> (N, H), and states (1, B, H) in the caller's order."""
    start_training(lstm, lstm._panels)
    w_ih, w_hh, *biases = lstm._flat_weights
    b_ih, b_hh = biases or (None, None)
    output, h_n, c_n = ops.embedding_lstm(
        embedding.weight,
        ids,
        layout.batch_sizes,
        w_ih,  # type: ignore[arg-type]
        w_hh,  # type: ignore[arg-type]
        b_ih,
        b_hh,
        padding_row(embedding),
    )
    return output, (permute_rows(h_n, layout.unsorted_indices), permute_rows(c_n, layout.unsorted_indices))
