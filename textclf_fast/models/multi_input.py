"""A classifier of several inputs at once: text beside sequences of vectors and columns of numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from textclf_fast.models.classifier import Classifier
from textclf_fast.models.encoders import Encoder, Input, TextEncoder, make_encoder


class MultiInputClassifier(Classifier):
    """Encodes each input by itself, and classifies by all of their vectors one after the other.

        MultiInputClassifier(
            10_000,
            {
                "report": {"kind": "text", "embedding_dim": 100, "hidden_dim": 128, "pooling": "max"},
                "speech": {"kind": "sequence", "size": 40, "hidden_dim": 128, "bidirectional": True},
                "patient": {"kind": "columns", "size": 12, "hidden_dim": 32},
            },
            output_dim=2,
        )

    Args:
        vocab_size: V, of all texts: they share a vocabulary, not the embedding. None where there is no text.
        inputs: the inputs by name; each the ``kind`` of its encoder and that one's arguments:
            ``"text"`` (:class:`textclf_fast.models.encoders.TextEncoder`), ``"sequence"``
            (:class:`textclf_fast.models.encoders.SequenceEncoder`) or ``"columns"``
            (:class:`textclf_fast.models.encoders.ColumnsEncoder`).
        output_dim: C, the classes.
        head_dim: units of a ReLU layer between the joined vectors and the last linear layer; None: there is none.
        dropout: of the joined vectors, and after the ReLU layer, in training.
        batch_first: texts are (B, T), sequences (B, T, F).

    Raises:
        ValueError, TypeError: no inputs, or one that is not to be made; names it.
    """

    kind = "multi"

    def __init__(
        self,
        vocab_size: int | None,
        inputs: Mapping[str, Mapping[str, Any]],
        output_dim: int,
        *,
        head_dim: int | None = None,
        dropout: float = 0.0,
        batch_first: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(inputs, Mapping) or not inputs:
            raise ValueError(f"inputs: expected at least one, by name, got {inputs!r}")
        self.config = {
            "vocab_size": vocab_size,
            # A copy, and as it comes back from a file: lists for tuples.
            "inputs": json.loads(json.dumps({name: dict(config) for name, config in inputs.items()})),
            "output_dim": output_dim,
            "head_dim": head_dim,
            "dropout": dropout,
            "batch_first": batch_first,
        }
        self.dropout = dropout
        # Not a ModuleDict: that has no names such as "values", or with dots.
        self.names = list(inputs)
        encoders = []
        for name, config in inputs.items():
            with _naming(name):
                encoders.append(make_encoder(config, vocab_size, batch_first))
        self.encoders = nn.ModuleList(encoders)
        width = sum(encoder.width for encoder in encoders)
        self.head = None if head_dim is None else nn.Linear(width, head_dim)
        self.fc = nn.Linear(width if head_dim is None else head_dim, output_dim)

    def prepare_inference(self, weights: Literal["int8"] | None = None) -> None:
        """Makes what the texts' inference keeps now; see :meth:`textclf_fast.FusedEmbeddingLSTM.prepare_inference`."""
        texts = [encoder for encoder in self.encoders if isinstance(encoder, TextEncoder)]
        if not texts:
            super().prepare_inference(weights)
        for text in texts:
            text.encoder.prepare_inference(weights)

    def forward(self, inputs: Mapping[str, Input]) -> Tensor:  # type: ignore[override]  # more than one text
        """Scores the classes.

        Args:
            inputs: each input of the constructor by its name, all of B rows in one order.
                A text: ids (T, B), or a pair of ids and lengths (B,), or a PackedSequence of (N,) ids; lengths that are
                absent are counted from the padding.
                A sequence: (T, B, F), or a pair of it and lengths, or a PackedSequence of (N, F); without lengths every
                step counts.
                Columns: (B, F).

        Returns:
            logits (B, C).

        Raises:
            TypeError, ValueError, IndexError, RuntimeError: an input that is missing, unknown, or not what its encoder
                takes, or of another number of rows; the message begins with its name.
        """
        if not isinstance(inputs, Mapping):
            raise TypeError(
                f"inputs: expected a mapping of {', '.join(map(repr, self.names))} to what they hold, "
                f"got {type(inputs).__name__}"
            )
        for name in self.names:
            if name not in inputs:
                raise ValueError(f"inputs: {name!r} is missing; there are {list(inputs)}")
        for name in inputs:
            if name not in self.names:
                raise ValueError(f"inputs: {name!r} is unknown, expected {self.names} alone")
        vectors: list[Tensor] = []
        for name, encoder in zip(self.names, self.encoders, strict=True):
            with _naming(name):
                vectors.append(encoder(inputs[name]))
                rows, first = vectors[-1].size(0), vectors[0].size(0)
                if rows != first:
                    raise ValueError(f"expected {first} rows, as {self.names[0]!r} has, got {rows}")
        return self._classify(vectors)

    def _classify(self, vectors: Sequence[Tensor]) -> Tensor:
        """The inputs' vectors, each (B, W) of its own W, -> logits (B, C)."""
        joined = functional.dropout(torch.cat(tuple(vectors), dim=1), self.dropout, self.training)
        if self.head is not None:
            joined = functional.dropout(torch.relu(self.head(joined)), self.dropout, self.training)
        return self.fc(joined)

    @property
    def only_text(self) -> str | None:
        """The name of its text where that is all it takes, so that it classifies texts as the others do."""
        return self.names[0] if isinstance(self.encoders[0], TextEncoder) and len(self.encoders) == 1 else None

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (T,) of the only text -> their vectors (T, I)."""
        return self._text_encoder().encoder.embedding(ids)

    def forward_vectors(self, ids: Tensor, vectors: Tensor) -> Tensor:
        """See :meth:`Classifier.forward_vectors`; of the only text."""
        return self._classify([self._text_encoder().forward_vectors(vectors)])[0]

    def _text_encoder(self) -> TextEncoder:
        if self.only_text is None:
            raise ValueError(f"inputs: expected one text and nothing else, got {self.names}")
        return self.encoders[0]  # type: ignore[return-value]

    def encoder(self, name: str) -> Encoder:
        """The encoder of one input."""
        return self.encoders[self.names.index(name)]  # type: ignore[return-value]


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Puts an input's name before what is wrong with it."""
    try:
        yield
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        raise type(error)(f"inputs[{name!r}]: {error}") from error
