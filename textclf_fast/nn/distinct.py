"""An embedding looked up once for each distinct token of a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from textclf_fast import ops


def looks_up_alone(embedding: nn.Embedding) -> bool:
    """Whether all that a call of it does is to look rows up, with a dense gradient."""
    return (
        type(embedding) is nn.Embedding
        and not embedding.sparse
        and embedding.max_norm is None
        and not (embedding._forward_pre_hooks or embedding._forward_hooks)
        and not (embedding._backward_pre_hooks or embedding._backward_hooks)
    )


def padding_row(embedding: nn.Embedding) -> int:
    """The row that gets no gradient; -1 for none."""
    return -1 if embedding.padding_idx is None else embedding.padding_idx


def embed_distinct(embedding: nn.Embedding, tokens: Tensor) -> Tensor:
    """``embedding(tokens)`` of distinct tokens."""
    if not (looks_up_alone(embedding) and ops.transforms_are_off()):
        return embedding(tokens)
    return ops.gather_rows(embedding.weight, tokens, padding_row(embedding))


def embed_with_dropout(embedding: nn.Embedding, ids: Tensor, rate: float) -> tuple[Tensor, Tensor | None]:
    """Vectors of the tokens among (N,) ids, those of a dropped token zero, and which of them each position is.

    Args:
        embedding: the table.
        ids: integers on the device of its weight, on the CPU in ``0 .. V - 1``.
        rate: with which a token is dropped.

    Returns:
        (U, I) of the distinct tokens, and (N,); or (N, I), and None.
    """
    if ids.is_cuda:  # finding the distinct ones would have the host wait
        vectors = embedding(ids)
        if rate:
            keep = functional.dropout(vectors.new_ones(embedding.num_embeddings, 1), rate)
            vectors = vectors * keep.index_select(0, ids)
        return vectors, None
    if ids.is_cpu and ops.transforms_are_off():
        tokens, index = ops.distinct_tokens(ids.to(torch.int64), embedding.num_embeddings)
    else:
        tokens, index = torch.unique(ids, return_inverse=True)
    # Its gradient counts how often the batch looks a token up: that must see every position.
    each_position = embedding.scale_grad_by_freq
    vectors = embedding(ids) if each_position else embed_distinct(embedding, tokens)
    if rate:
        keep = functional.dropout(vectors.new_ones(tokens.size(0), 1), rate)
        vectors = vectors * (keep.index_select(0, index) if each_position else keep)
    return vectors, None if each_position else index
