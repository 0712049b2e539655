"""A multilayer perceptron on the bag of a text's words: no order, many times faster than an LSTM, often as good."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from textclf_fast.models.classifier import Classifier, scale_embedding
from textclf_fast.models.padding import known_lengths
from textclf_fast.models.pooling import PackedRows
from textclf_fast.nn.distinct import embed_with_dropout
from textclf_fast.nn.extended import unpack_form
from textclf_fast.nn.options import check_rate

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": functional.relu, "sigmoid": torch.sigmoid}
_MODES = ("mean", "sum")


class MLPClassifier(Classifier):
    """Classifies texts by their words whatever the order: bag of embeddings -> hidden layers -> linear layer.

    With an ``embedding_dim`` a hidden layer is a linear layer and the activation, the first on the mean (or sum) of the
    words' vectors. With None the first hidden layer is on the bag of words itself: its weights are the embedding's, a
    vector of ``hidden_dim`` numbers a word, so that a text costs the words it has and not the vocabulary;
    :meth:`wide` has the sizes of L. Galke and A. Scherp, Bag-of-Words vs. Graph vs. Sequence in Text Classification:
    Questioning the Necessity of Text-Graphs and the Surprising Strength of a Wide MLP, 2022.

    Padding never matters, and each distinct word of a batch is looked up once. The results are those of nn.EmbeddingBag
    with the same weight.

    Args:
        vocab_size: V.
        embedding_dim: I, numbers per token, or None.
        hidden_dim: H, units of each hidden layer.
        output_dim: C, the classes.
        num_layers: the hidden layers.
        activation: ``"sigmoid"`` or ``"relu"``.
        mode: the bag is the ``"mean"`` or the ``"sum"`` of its vectors, each weighted where there are token weights.
        dropout: after each hidden layer, in training.
        embedding_dropout: of words, as of :class:`textclf_fast.FusedEmbeddingLSTM`.
        token_weights: there is a buffer ``token_weights`` (V,), ones at first and not trained, for
            :func:`inverse_document_frequency` and the like: see :meth:`set_token_weights`.
        padding_idx, batch_first, sparse, embedding_std: as of :class:`textclf_fast.TextClassifier`.

    Raises:
        ValueError: an argument out of range.
    """

    kind = "mlp"
    token_weights: Tensor | None

    def __init__(
        self,
        vocab_size: int,
        embedding_dim: int | None,
        hidden_dim: int,
        output_dim: int,
        *,
        num_layers: int = 1,
        activation: Literal["sigmoid", "relu"] = "sigmoid",
        mode: Literal["mean", "sum"] = "mean",
        dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        token_weights: bool = False,
        padding_idx: int | None = 0,
        batch_first: bool = False,
        sparse: bool = False,
        embedding_std: float = 1.0,
    ) -> None:
        super().__init__()
        self.config = {
            "vocab_size": vocab_size,
            "embedding_dim": embedding_dim,
            "hidden_dim": hidden_dim,
            "output_dim": output_dim,
            "num_layers": num_layers,
            "activation": activation,
            "mode": mode,
            "dropout": dropout,
            "embedding_dropout": embedding_dropout,
            "token_weights": token_weights,
            "padding_idx": padding_idx,
            "batch_first": batch_first,
            "sparse": sparse,
            "embedding_std": embedding_std,
        }
        for name, value, choices in (("activation", activation, _ACTIVATIONS), ("mode", mode, _MODES)):
            if value not in choices:
                raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")
        if num_layers < 1:
            raise ValueError(f"num_layers: expected at least 1, got {num_layers}")
        for name, rate in (("dropout", dropout), ("embedding_dropout", embedding_dropout)):
            check_rate(name, rate)
        self.activation = activation
        self.mode = mode
        self.dropout = dropout
        self.embedding_dropout = embedding_dropout
        self.padding_idx = padding_idx
        self.batch_first = batch_first
        width = hidden_dim if embedding_dim is None else embedding_dim
        self.embedding = nn.Embedding(vocab_size, width, sparse=sparse)
        scale_embedding(self.embedding, embedding_std)
        # Of the layer whose weights are the embedding's.
        self.bias = nn.Parameter(torch.zeros(hidden_dim)) if embedding_dim is None else None
        inputs = [width] + [hidden_dim] * (num_layers - 1)
        self.hidden = nn.ModuleList(
            nn.Linear(size, hidden_dim) for size in (inputs[1:] if embedding_dim is None else inputs)
        )
        self.fc = nn.Linear(hidden_dim, output_dim)
        self.register_buffer("token_weights", torch.ones(vocab_size) if token_weights else None)

    @classmethod
    def wide(cls, vocab_size: int, output_dim: int, **options: Any) -> MLPClassifier:
        """WideMLP: one hidden layer of 1024 ReLU units on the bag of words, dropout 0.5.

        Args:
            vocab_size, output_dim: V and C.
            options: others of the constructor, or other values of these.
        """
        preset = {"embedding_dim": None, "hidden_dim": 1024, "activation": "relu", "dropout": 0.5}
        return cls(vocab_size, output_dim=output_dim, **{**preset, **options})

    def set_token_weights(self, weights: Tensor | NDArray[np.floating] | Sequence[float]) -> None:
        """Weights each token of a bag.

        Args:
            weights: (V,) numbers above 0.

        Raises:
            ValueError: another shape or other numbers; or the classifier was made without ``token_weights``.
        """
        if self.token_weights is None:
            raise ValueError("weights: expected a classifier made with token_weights=True")
        weights = torch.as_tensor(weights).to(self.token_weights)
        if weights.shape != self.token_weights.shape:
            raise ValueError(
                f"weights: expected shape {tuple(self.token_weights.shape)}, one for each token, "
                f"got {tuple(weights.shape)}"
            )
        if not (weights.isfinite() & (weights > 0)).all():
            raise ValueError("weights: expected finite numbers above 0")
        self.token_weights.copy_(weights)

    def forward(self, ids: Tensor | PackedSequence, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Scores the classes.

        Args:
            ids, lengths: as of :meth:`textclf_fast.TextClassifier.forward`.

        Returns:
            logits (B, C), rows in the caller's order.

        Raises:
            IndexError: an id out of range.
            TypeError: ids or lengths that are not integers.
            ValueError, RuntimeError: sizes that do not fit, a length out of range, a row of padding alone.
        """
        if isinstance(ids, Tensor) and ids.dim() != 2:
            raise ValueError(f"ids: expected shape (T, B), got {tuple(ids.shape)}")
        lengths = known_lengths(ids, lengths, self.padding_idx, self.batch_first)
        data, (layout, *_), _ = unpack_form(ids, lengths, None, self.batch_first, row_dim=1)
        self._check_ids(data)
        bags = self._bags(data, PackedRows.of(layout.batch_sizes, layout.rows, data.size(0)))
        if layout.unsorted_indices is not None:
            bags = bags.index_select(0, layout.unsorted_indices.to(bags.device))
        return self.fc(self._hidden_layers(bags))

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (T,) -> their vectors (T, I), or (T, H) where the first layer is the embedding."""
        return self.embedding(ids)

    def forward_vectors(self, ids: Tensor, vectors: Tensor) -> Tensor:
        """See :meth:`Classifier.forward_vectors`."""
        weights = vectors.new_ones(len(ids)) if self.token_weights is None else self.token_weights.index_select(0, ids)
        bag = weights @ vectors
        if self.mode == "mean":
            bag = bag / weights.sum()
        return self.fc(self._hidden_layers(bag.unsqueeze(0)))[0]

    def _hidden_layers(self, bags: Tensor) -> Tensor:
        """(B, I), or (B, H) where the first layer is the embedding, -> (B, H)."""
        activation = _ACTIVATIONS[self.activation]
        units = bags
        if self.bias is not None:
            units = functional.dropout(activation(bags + self.bias), self.dropout, self.training)
        for layer in self.hidden:
            units = functional.dropout(activation(layer(units)), self.dropout, self.training)
        return units

    def _bags(self, data: Tensor, rows: PackedRows) -> Tensor:
        """(N,) ids in packed order -> the mean or sum (B, I) of each row's vectors."""
        vectors, index = embed_with_dropout(self.embedding, data, self.embedding_dropout if self.training else 0.0)
        assert index is not None  # None is for an embedding that scales gradients by frequency
        rows = PackedRows(*(part.to(data.device) for part in rows))
        index = index.index_select(0, rows.places)
        if self.token_weights is None:
            return functional.embedding_bag(index, vectors, rows.offsets, mode=self.mode)
        weights = self.token_weights.index_select(0, data)
        bags = functional.embedding_bag(
            index, vectors, rows.offsets, mode="sum", per_sample_weights=weights.index_select(0, rows.places)
        )
        if self.mode == "sum":
            return bags
        totals = weights.new_zeros(bags.size(0)).index_add(0, rows.row, weights)
        return bags / totals.unsqueeze(1)

    def _check_ids(self, data: Tensor) -> None:
        if data.dim() != 1:
            raise ValueError(f"ids: expected a PackedSequence of shape (N,), got data of shape {tuple(data.shape)}")
        if data.is_floating_point() or data.is_complex() or data.dtype == torch.bool:
            raise TypeError(f"ids: expected integers, got dtype {data.dtype}")
        vocab_size = self.embedding.num_embeddings
        if torch.compiler.is_compiling() or not data.is_cpu or data.numel() == 0:
            return  # other devices would be waited for
        least, most = (int(end) for end in data.aminmax())
        if least < 0 or most >= vocab_size:
            raise IndexError(
                f"ids: token id {least if least < 0 else most}, expected 0 <= id < {vocab_size} (vocab_size)"
            )


def inverse_document_frequency(
    values: NDArray[np.int64], offsets: NDArray[np.int64], vocab_size: int
) -> NDArray[np.float64]:
    """How much a token tells: ``ln((1 + n) / (1 + n_v)) + 1`` for a token v that n_v of the n texts hold.

    K. Sparck Jones, A Statistical Interpretation of Term Specificity and Its Application in Retrieval, 1972, smoothed
    as if one more text held every token.

    Args:
        values: (N,) the texts' ids, one text after another, each in ``0 .. vocab_size - 1``.
        offsets: (n + 1,) where each text begins, and the last ends.
        vocab_size: V.

    Returns:
        (V,), each at least 1.
    """
    texts = len(offsets) - 1
    text = np.repeat(np.arange(texts), np.diff(offsets))
    pairs = np.unique(text * vocab_size + values)
    holding = np.bincount(pairs % vocab_size, minlength=vocab_size)
    return np.log((1 + texts) / (1 + holding)) + 1
