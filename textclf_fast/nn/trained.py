"""Training of an embedding and one layer in one op each way: the short way where nothing is special."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from textclf_fast import ops
from textclf_fast.nn.distinct import looks_up_alone, padding_row
from textclf_fast.nn.frozen import parameters
from textclf_fast.nn.layout import PackedLayout, permute_rows
from textclf_fast.nn.stack import start_training
from textclf_fast.nn.token_ids import is_padded_batch

if TYPE_CHECKING:
    from textclf_fast.nn.lstm import FusedLSTM, States


def trains_in_one_op(embedding: nn.Embedding, lstm: FusedLSTM, weights: list[Tensor]) -> bool:
    """Whether one op may train modules on the CPU that our kernels compute; ``weights``: the LSTM's.

    It spares ten calls and as many nodes of autograd, and no arithmetic. Two cores with AVX-512, I = 100, H = 128, of
    the general way's training step: one row of 64 steps takes 0.85, of 256 0.94; 32 rows of 20 steps 0.95, of 256 0.98.
    """
    weight = embedding.weight
    return (
        lstm.num_layers == 1
        and not lstm.bidirectional
        and lstm.proj_size == 0
        and weight.dtype in (torch.float32, torch.float64)
        and weight.dtype == weights[0].dtype
        and looks_up_alone(embedding)
        and not embedding.scale_grad_by_freq  # which counts how often the batch looks a token up
        and (weight.requires_grad or any(w.requires_grad for w in weights))
        and not torch.compiler.is_compiling()
    )


def train_in_one_op(
    embedding: nn.Embedding, lstm: FusedLSTM, ids: Tensor, layout: PackedLayout
) -> tuple[Tensor, States]:
    """From zero states: (N,) int64 ids in packed order -> (N, H), and states (1, B, H) in the caller's order."""
    start_training(lstm._flat_weights, lstm._panels)
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


def train_padded(
    embedding: nn.Embedding,
    lstm: FusedLSTM,
    ids: Tensor,
    lengths: Tensor | Sequence[int] | None,
    need_output: bool,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """output, h_n and c_n of zero initial states; None where the call has to go the general way.

    Beside :func:`train_in_one_op` the layout, too, is made in the op, and the output written where it belongs. Python
    that runs between kernels finds its code and data driven out of the caches: each line of it takes three to four
    times as long as in a loop of its own. Two threads on Zen 5, of the other's training step: 32 rows of 256 steps,
    42 % of them real, take 0.93; one row of 64 or of 256 steps 0.95.
    """
    if not is_padded_batch(ids, lengths, lstm.batch_first):
        return None
    assert lengths is None or isinstance(lengths, Tensor)
    weights = parameters(embedding, lstm)
    if weights is None or not (trains_in_one_op(embedding, lstm, weights[1:]) and ops.transforms_are_off()):
        return None
    table, w_ih, w_hh, *biases = weights
    b_ih, b_hh = biases or (None, None)
    # nn.LSTM's output is time-major in memory, but where it was padded by pad_packed_sequence.
    turned = lstm.batch_first and lengths is None
    start_training(weights[1:], lstm._panels)
    try:
        output, h_n, c_n = ops.embedding_lstm_padded(
            table,
            ids.t() if turned else ids,
            lengths,
            lstm.batch_first and not turned,
            need_output,
            w_ih,
            w_hh,
            b_ih,
            b_hh,
            padding_row(embedding),
        )
    except RuntimeError:  # an id or a length out of range, weights of two dtypes: the general way says which
        return None
    return output.transpose(0, 1) if turned and need_output else output, h_n, c_n
