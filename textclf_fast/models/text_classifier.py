"""The text classifier: token ids -> embedding -> LSTM -> linear layer on the last or the pooled hidden states."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from textclf_fast.models.classifier import Classifier, scale_embedding
from textclf_fast.models.padding import known_lengths
from textclf_fast.models.pooling import Pooling, check_pooling, pooled_width, run_pooled
from textclf_fast.nn import FusedEmbeddingLSTM
from textclf_fast.nn.projection import multiplies_bfloat16


class TextClassifier(Classifier):
    """Classifies texts, given as token ids, by the LSTM's hidden state after each text's own last token, or by others.

    Padding never matters: lengths are given, or counted from the trailing ``padding_idx`` of each row. (Reading the
    last step of a padded batch, as classifiers of this kind often do, classifies short texts by what the LSTM makes of
    padding.)

    The state_dict of the same classifier in plain PyTorch (``embedding.*``, ``lstm.*``, ``fc.*``) loads as it is.

    Args:
        vocab_size: V.
        embedding_dim: I, numbers per token.
        hidden_dim: H.
        output_dim: C, the classes.
        num_layers, bidirectional: of the LSTM.
        dropout: between layers and before the linear layer, in training.
        padding_idx: the id that fills rows up; 0 is what torch.nn.utils.rnn.pad_sequence writes. None: every position
            counts where no lengths are given.
        batch_first: ids are (B, T) instead of (T, B).
        sparse: the gradient of the embedding's weight is sparse, as in nn.Embedding, for an optimizer that takes it,
            such as :class:`textclf_fast.optim.DeferredAdam`.
        proj_size: P, what the LSTM projects its hidden state to, as in nn.LSTM; 0 for none.
        pooling: which of the LSTM's hidden states the linear layer sees, :data:`textclf_fast.models.pooling.Pooling`:
            the ``"last"``; over all tokens of a text, of each unit the largest, ``"max"``, or the ``"mean"``; or all
            three, ``"concat"``.
        embedding_dropout, weight_dropout, variational_dropout: in training, of words, of recurrent weights and of the
            LSTM's inputs, as in AWD-LSTM: see :class:`textclf_fast.FusedEmbeddingLSTM` and
            :class:`textclf_fast.nn.options.LSTMOptions`.
        embedding_std: of the initial word vectors, see :func:`textclf_fast.models.classifier.scale_embedding`.

    Raises:
        ValueError: an unknown pooling, a rate that is no probability, a number that is not above 0.
    """

    kind = "lstm"
    pooling: Pooling = "last"  # of the class: instances have their own where it is not this

    def __init__(
        self,
        vocab_size: int,
        embedding_dim: int,
        hidden_dim: int,
        output_dim: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        padding_idx: int | None = 0,
        batch_first: bool = False,
        sparse: bool = False,
        proj_size: int = 0,
        pooling: Pooling = "last",
        embedding_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        variational_dropout: float | Sequence[float] = 0.0,
        embedding_std: float = 1.0,
    ) -> None:
        super().__init__()
        check_pooling(pooling)
        if not isinstance(variational_dropout, float | int):
            variational_dropout = list(variational_dropout)  # a pair, as JSON has it
        self.config = {
            "vocab_size": vocab_size,
            "embedding_dim": embedding_dim,
            "hidden_dim": hidden_dim,
            "output_dim": output_dim,
            "num_layers": num_layers,
            "bidirectional": bidirectional,
            "dropout": dropout,
            "padding_idx": padding_idx,
            "batch_first": batch_first,
            "sparse": sparse,
            "proj_size": proj_size,
            "pooling": pooling,
            "embedding_dropout": embedding_dropout,
            "weight_dropout": weight_dropout,
            "variational_dropout": variational_dropout,
            "embedding_std": embedding_std,
        }
        if pooling != self.pooling:
            self.pooling = pooling
        self.padding_idx = padding_idx
        self.dropout = dropout
        self.encoder = FusedEmbeddingLSTM(
            vocab_size,
            embedding_dim,
            hidden_dim,
            num_layers=num_layers,
            batch_first=batch_first,
            dropout=dropout if num_layers > 1 else 0.0,
            bidirectional=bidirectional,
            proj_size=proj_size,
            sparse=sparse,
            embedding_dropout=embedding_dropout,
            weight_dropout=weight_dropout,
            variational_dropout=variational_dropout,
        )
        scale_embedding(self.encoder.embedding, embedding_std)
        self.fc = nn.Linear(pooled_width(self.encoder.lstm, pooling), output_dim)
        self.register_load_state_dict_pre_hook(_accept_plain_names)

    @property
    def embedding(self) -> nn.Embedding:  # type: ignore[override]  # an attribute of others, of the encoder here
        """The words' vectors."""
        return self.encoder.embedding

    def prepare_inference(self, weights: Literal["int8"] | None = None) -> None:
        """Makes what inference keeps now; see :meth:`FusedEmbeddingLSTM.prepare_inference`, also for ``"int8"``."""
        self.encoder.prepare_inference(weights)

    def with_bfloat16_encoder(self) -> TextClassifier:
        """A copy that embeds and runs its LSTM in bfloat16; its cells, gates and sums and the head stay in float32.

        Itself, where the processor does not multiply bfloat16, or not at these sizes.
        """
        if not multiplies_bfloat16(self.encoder.lstm):
            return self
        other = copy.deepcopy(self)
        other.encoder.bfloat16()
        return other

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (T,) -> their vectors (T, I)."""
        return self.encoder.embedding(ids)

    def forward_vectors(self, ids: Tensor, vectors: Tensor) -> Tensor:
        """See :meth:`Classifier.forward_vectors`."""
        lstm = self.encoder.lstm
        pooled = run_pooled(lstm, vectors.unsqueeze(0 if lstm.batch_first else 1), None, self.pooling)
        return self._score(pooled)[0]

    def forward(self, ids: Tensor | PackedSequence, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Scores the classes.

        Args:
            ids: (T, B) integers, or (B, T) where batch_first; or a PackedSequence of (N,) ids.
            lengths: B integers in 1 .. T; absent, they are counted from the padding.

        Returns:
            logits (B, C), rows in the caller's order.

        Raises:
            IndexError, TypeError, ValueError, RuntimeError: see :meth:`FusedEmbeddingLSTM.forward`.
            ValueError: a row of padding alone.
        """
        encoder = self.encoder
        lengths = known_lengths(ids, lengths, self.padding_idx, encoder.lstm.batch_first)
        return self._score(run_pooled(encoder, ids, lengths, self.pooling))

    def _score(self, pooled: Tensor) -> Tensor:
        """(B, W), in bfloat16 of an encoder that is -> (B, C)."""
        return self.fc(functional.dropout(pooled, self.dropout, self.training).to(self.fc.weight.dtype))


def _accept_plain_names(module: nn.Module, state_dict: dict[str, Any], prefix: str, *unused: Any) -> None:
    for key in list(state_dict):
        name = key.removeprefix(prefix)
        if key.startswith(prefix) and name.startswith(("embedding.", "lstm.")):
            state_dict[f"{prefix}encoder.{name}"] = state_dict.pop(key)
