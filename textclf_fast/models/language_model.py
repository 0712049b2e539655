"""The language model: guesses the next word of a text from those before it, and so learns from texts without labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from textclf_fast.models.sampled_softmax import Candidates, sampled_cross_entropy
from textclf_fast.nn import FusedEmbeddingLSTM
from textclf_fast.nn.lstm import States


class LanguageModel(nn.Module):
    """Embedding -> LSTM -> a linear layer back to the embedding's width -> scores of V words, by the embedding itself.

    The softmax's weights are the embedding's: O. Press and L. Wolf, Using the Output Embedding to Improve Language
    Models, EACL 2017. The dropouts are those of AWD-LSTM: S. Merity, N. S. Keskar and R. Socher, Regularizing and
    Optimizing LSTM Language Models, ICLR 2018.

    A bidirectional model is two language models in one, of the next word and of the previous one, over the same
    embedding, each direction with a linear layer of its own. It has one layer: in a second one each direction would
    read what the other has seen, the word to be guessed.

    Args:
        vocab_size: V.
        embedding_dim: I, numbers per word.
        hidden_dim: H.
        num_layers, bidirectional: of the LSTM.
        dropout: of what the linear layers read, and between layers: one mask a row, the same at every step.
        input_dropout: the same of the embeddings; each position is then projected by itself.
        embedding_dropout, weight_dropout: of :class:`textclf_fast.FusedEmbeddingLSTM`.

    Raises:
        ValueError: bidirectional with several layers, or a number out of range.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_dim: int,
        hidden_dim: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        weight_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if bidirectional and num_layers != 1:
            raise ValueError(
                f"num_layers: expected 1 with bidirectional, so that no direction reads the word that it guesses, got "
                f"{num_layers}"
            )
        self.config: dict[str, Any] = {
            "vocab_size": vocab_size,
            "embedding_dim": embedding_dim,
            "hidden_dim": hidden_dim,
            "num_layers": num_layers,
            "bidirectional": bidirectional,
            "dropout": dropout,
            "input_dropout": input_dropout,
            "embedding_dropout": embedding_dropout,
            "weight_dropout": weight_dropout,
        }
        self.dropout = dropout
        self.encoder = FusedEmbeddingLSTM(
            vocab_size,
            embedding_dim,
            hidden_dim,
            num_layers=num_layers,
            bidirectional=bidirectional,
            embedding_dropout=embedding_dropout,
            weight_dropout=weight_dropout,
            variational_dropout=(input_dropout, dropout if num_layers > 1 else 0.0),
        )
        self.back = nn.ModuleList(nn.Linear(hidden_dim, embedding_dim) for _ in range(1 + bidirectional))
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        nn.init.uniform_(self.encoder.embedding.weight, -0.1, 0.1)  # N(0, 1) would make scores of many tens

    def forward(self, ids: Tensor, hx: States | None = None) -> tuple[Tensor, States]:
        """ids (T, B), states (L * D, B, H) each -> the last layer's output (T, B, D * H) and the states after it."""
        output, states = self.encoder(ids, None, hx)
        return output, states

    def vectors(self, output: Tensor) -> list[Tensor]:
        """forward's output -> for each direction what is compared with the words' vectors, (T, B, I)."""
        if self.training and self.dropout:
            output = output * functional.dropout(output.new_ones(1, *output.shape[1:]), self.dropout)
        parts = output.chunk(len(self.back), dim=-1)
        return [back(part) for back, part in zip(self.back, parts, strict=True)]

    def scores(self, output: Tensor) -> list[Tensor]:
        """forward's output -> for each direction the logits (T, B, V) of the next, and of the previous, word."""
        return [functional.linear(part, self.encoder.embedding.weight, self.bias) for part in self.vectors(output)]

    def loss(self, output: Tensor, ids: Tensor, next_ids: Tensor, candidates: Candidates | None = None) -> Tensor:
        """The mean cross-entropy of a guessed word.

        Args:
            output: forward's for ids, (T, B, D * H).
            ids, next_ids: (T, B), and what follows each. The backward direction guesses ids from their second step on.
            candidates: what the targets are compared with; None: all words, exactly.

        Returns:
            a scalar, the mean over positions and directions.
        """
        weight = self.encoder.embedding.weight
        vectors, *backward = self.vectors(output)
        targets = next_ids.flatten()
        vectors = vectors.flatten(0, 1)
        if backward:
            vectors = torch.cat((vectors, backward[0][1:].flatten(0, 1)))
            targets = torch.cat((targets, ids[:-1].flatten()))
        if candidates is None:
            return functional.cross_entropy(functional.linear(vectors, weight, self.bias), targets)
        return sampled_cross_entropy(vectors, targets, weight, self.bias, candidates)
