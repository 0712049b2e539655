"""What every text classifier has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


class Classifier(nn.Module):
    """Scores the classes of texts, given as token ids.

    Attributes:
        kind: its name in the files of a model.
        config: the arguments that made it, ``vocab_size`` (V) and ``output_dim`` (C) among them; JSON can hold them.
        embedding: (V, I), the words' vectors; a classifier of several inputs has none.
        fc: the last layer, whose output are the logits.
    """

    kind: ClassVar[str]
    config: dict[str, Any]
    embedding: nn.Embedding
    fc: nn.Linear

    def forward(self, ids: Tensor | PackedSequence, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Ids (T, B) with lengths (B,), or a PackedSequence of (N,) ids -> logits (B, C)."""
        raise NotImplementedError

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (T,) -> their vectors (T, I)."""
        raise NotImplementedError

    def forward_vectors(self, ids: Tensor, vectors: Tensor) -> Tensor:
        """One text, ids (T,), with these vectors (T, I) in the place of :meth:`embed`'s -> logits (C,).

        For gradients with regard to the vectors: forward never has one for each position.
        """
        raise NotImplementedError

    def prepare_inference(self, weights: Literal["int8"] | None = None) -> None:
        """Makes what inference keeps now.

        Raises:
            ValueError: ``weights`` that this classifier does not have.
        """
        if weights is not None:
            raise ValueError(f"weights: expected None for a {type(self).__name__}, got {weights!r}")

    def with_bfloat16_encoder(self) -> Classifier:
        """A copy whose vectors and recurrent layers are in bfloat16; itself, where that is not faster.

        Raises:
            ValueError: there are no such layers.
        """
        raise ValueError(f"weights: expected None for a {type(self).__name__}, got 'bfloat16'")


def scale_embedding(embedding: nn.Embedding, embedding_std: float) -> None:
    """Makes initial vectors, drawn from N(0, 1) as nn.Embedding does, some from N(0, embedding_std ** 2).

    A word that is hardly ever seen keeps its initial vector: at 1 that is as loud as any other word's and says nothing.
    One seed on rt, a validation part: 73 % at 1, 75 % at 0.1.

    Raises:
        ValueError: no finite number above 0.
    """
    if not (math.isfinite(embedding_std) and embedding_std > 0):
        raise ValueError(f"embedding_std: expected a finite number above 0, got {embedding_std}")
    if embedding_std != 1:
        with torch.no_grad():
            embedding.weight.mul_(embedding_std)
