"""The layers of an LSTM on token ids in packed order, by our kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from textclf_fast import int8, ops
from textclf_fast.nn.distinct import embed_distinct
from textclf_fast.nn.layout import PackedLayout, permute_rows
from textclf_fast.nn.on_cuda import cuda_kernels_pay, project_tokens
from textclf_fast.nn.projected_table import ProjectedTable
from textclf_fast.nn.stack import kernels_apply, run_layers
from textclf_fast.nn.trained import train_in_one_op, trains_in_one_op

if TYPE_CHECKING:
    from textclf_fast.nn.lstm import FusedLSTM, States


def kernels_can(embedding: nn.Embedding, lstm: FusedLSTM) -> bool:
    """Whether they compute vectors of the LSTM's dtype, or of float32 that autocast has it round."""
    if not kernels_apply(lstm):
        return False
    weight = embedding.weight
    like: Tensor = lstm._flat_weights[0]  # type: ignore[assignment]
    return weight.is_cuda == like.is_cuda and weight.dtype in (like.dtype, ops.gates_dtype(like.dtype))


def kernels_pay(embedding: nn.Embedding, lstm: FusedLSTM, ids: Tensor, rows: int, steps: int) -> bool:
    """Whether they can, with these ids; on a GPU whether that is the better way, too."""
    if ids.is_cpu:
        return kernels_can(embedding, lstm) and embedding.weight.is_cpu
    same_device = ids.device == embedding.weight.device
    return same_device and kernels_can(embedding, lstm) and cuda_kernels_pay(lstm, rows, steps)


def run_tokens(
    embedding: nn.Embedding,
    lstm: FusedLSTM,
    kept: ProjectedTable,
    ids: Tensor,
    layout: PackedLayout,
    hx: States | None,
    need_output: bool,
) -> tuple[Tensor, States]:
    """(N,) ids in packed order and states in the caller's -> (N, D * P) and states in the caller's order.

    Args:
        embedding, lstm: as :func:`kernels_can` has them; the LSTM's ``_flat_weights`` are up to date.
        kept: what inference keeps of them.
        ids, layout: of the batch.
        hx: initial states (L * D, B, P) and (L * D, B, H), or None for zeros.
        need_output: False where the final states are enough.
    """
    ids = ids.to(torch.int64)
    table = None
    if torch.is_grad_enabled():
        kept.clear()
        if hx is None and ids.is_cpu and trains_in_one_op(embedding, lstm, lstm._flat_weights):  # type: ignore[arg-type]
            return train_in_one_op(embedding, lstm, ids, layout)
    elif not torch.compiler.is_compiling() and embedding.weight.dtype == lstm._flat_weights[0].dtype:  # type: ignore[union-attr]
        # (Weights that autocast lowers live for one call: what is kept is not theirs, and stays.)
        table = kept.get(embedding, lstm, ids.numel())
    gates: Tensor | None = None
    index: Tensor | None
    rows = None
    if table is not None:
        gates, index = table, ids
    elif ids.is_cuda:
        gates, index = project_tokens(embedding, lstm, ids)
    elif embedding.scale_grad_by_freq:
        # Its gradient counts how often the batch looks a token up: that must see every position.
        return lstm._run(embedding(ids), layout, hx)
    else:
        tokens, index = ops.distinct_tokens(ids, embedding.num_embeddings)
        rows = embed_distinct(embedding, tokens)
    layer = None
    if table is not None and lstm.num_layers == 1:
        layer = kept.frozen.keep(embedding, lstm, table)
    if layer is not None and layer.w_int8 is not None and hx is None:
        assert gates is not None
        output, h_n, c_n = int8.lstm_int8_inference(gates, index, layout.batch_sizes, layer.w_int8, need_output)
        return output, (permute_rows(h_n, layout.unsorted_indices), permute_rows(c_n, layout.unsorted_indices))
    h0, c0 = lstm._initial_states(lstm._flat_weights[0], layout, hx)  # type: ignore[arg-type]
    output, h_n, c_n = run_layers(lstm, gates, index, layout.batch_sizes, h0, c0, lstm._panels, need_output, rows)
    return output, (permute_rows(h_n, layout.unsorted_indices), permute_rows(c_n, layout.unsorted_indices))
