"""The text classifier: token ids -> embedding -> LSTM -> linear layer on the last hidden state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from textclf_fast.models.classifier import Classifier
from textclf_fast.nn import FusedEmbeddingLSTM


class TextClassifier(Classifier):
    """Classifies texts, given as token ids, by the LSTM's hidden state after each text's own last token.

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
    """

    kind = "lstm"

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
    ) -> None:
        super().__init__()
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
        }
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
        )
        self.fc = nn.Linear((proj_size or hidden_dim) * (2 if bidirectional else 1), output_dim)
        self.register_load_state_dict_pre_hook(_accept_plain_names)

    def prepare_inference(self, weights: Literal["int8"] | None = None) -> None:
        """Makes what inference keeps now; see :meth:`FusedEmbeddingLSTM.prepare_inference`, also for ``"int8"``."""
        self.encoder.prepare_inference(weights)

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
        if lengths is None and self.padding_idx is not None and isinstance(ids, Tensor) and ids.dim() == 2:
            lengths = lengths_before_padding(ids, self.padding_idx, self.encoder.lstm.batch_first)
        _, (h_n, _) = self.encoder(ids, lengths, need_output=False)
        last = torch.cat((h_n[-2], h_n[-1]), dim=-1) if self.encoder.lstm.bidirectional else h_n[-1]
        return self.fc(functional.dropout(last, self.dropout, self.training))


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


def _accept_plain_names(module: nn.Module, state_dict: dict[str, Any], prefix: str, *unused: Any) -> None:
    for key in list(state_dict):
        name = key.removeprefix(prefix)
        if key.startswith(prefix) and name.startswith(("embedding.", "lstm.")):
            state_dict[f"{prefix}encoder.{name}"] = state_dict.pop(key)
