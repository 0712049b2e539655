"""Texts as a model takes them: token ids and class numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textclf_fast.text import LabelledTexts, RaggedTokens, Vocabulary, encode_texts

Layout = Literal["packed", "padded"]


@dataclass(frozen=True, eq=False)
class EncodedTexts:
    """n texts as token ids, with the number of each one's class.

    Attributes:
        tokens: n rows of token ids, none of them empty.
        labels: (n,) int64.
        weights: (n,) float64, how much each text counts, in training as in evaluation; None: all alike. What counts is
            one text's share of the sum.
        probabilities: (n, C) float64, of each text's classes, for training to take instead of `labels`, which
            evaluation and balanced class weights go by; None: a label is certain.

    Raises:
        TypeError: labels that are not int64, or weights or probabilities that are not float64.
        ValueError: not one label, weight or row of probabilities a row, a row without a token, a weight that is not
            above 0, or probabilities that are below 0 or do not add up to 1.
    """

    tokens: RaggedTokens
    labels: Tensor
    weights: Tensor | None = None
    probabilities: Tensor | None = None

    def __post_init__(self) -> None:
        if self.labels.dtype != torch.int64:
            raise TypeError(f"labels: expected dtype int64, got {self.labels.dtype}")
        if self.labels.shape != (len(self.tokens),):
            raise ValueError(
                f"labels: expected shape ({len(self.tokens)},), one for each text, got {tuple(self.labels.shape)}"
            )
        if self.weights is not None:
            self._check_weights(self.weights)
        if self.probabilities is not None:
            self._check_probabilities(self.probabilities)
        empty = np.flatnonzero(self.tokens.lengths == 0)
        if len(empty):
            raise ValueError(f"tokens: row {empty[0]} is empty, expected at least one token")

    def _check_weights(self, weights: Tensor) -> None:
        if weights.dtype != torch.float64:
            raise TypeError(f"weights: expected dtype float64, got {weights.dtype}")
        if weights.shape != (len(self.tokens),):
            raise ValueError(
                f"weights: expected shape ({len(self.tokens)},), one for each text, got {tuple(weights.shape)}"
            )
        # Of 0 there are none, so that no batch consists of such texts alone: its mean loss would be 0 / 0.
        bad = (~(torch.isfinite(weights) & (weights > 0))).nonzero()
        if len(bad):
            row = int(bad[0])
            raise ValueError(f"weights: expected finite numbers above 0, got {float(weights[row])} in row {row}")

    def _check_probabilities(self, probabilities: Tensor) -> None:
        if probabilities.dtype != torch.float64:
            raise TypeError(f"probabilities: expected dtype float64, got {probabilities.dtype}")
        if probabilities.dim() != 2 or len(probabilities) != len(self.tokens):
            raise ValueError(
                f"probabilities: expected shape ({len(self.tokens)}, C), a row for each text, got "
                f"{tuple(probabilities.shape)}"
            )
        bad = (~((probabilities >= 0).all(1) & ((probabilities.sum(1) - 1).abs() < 1e-6))).nonzero()
        if len(bad):
            row = int(bad[0])
            numbers = probabilities[row].tolist()
            raise ValueError(f"probabilities: expected numbers from 0 that add up to 1, got {numbers} in row {row}")

    @classmethod
    def from_texts(
        cls,
        data: LabelledTexts,
        labels: Sequence[str],
        vocabulary: Vocabulary,
        tokenizer: Callable[[str], Sequence[str]],
    ) -> EncodedTexts:
        """Encodes labelled texts.

        Args:
            data: n texts.
            labels: the names of the classes, by number.
            vocabulary, tokenizer: as in `encode_texts`.

        Raises:
            ValueError: a text's label is not in `labels`.
        """
        numbers = {label: number for number, label in enumerate(labels)}
        unknown = next((label for label in data.labels if label not in numbers), None)
        if unknown is not None:
            raise ValueError(f"data: label {unknown!r} is none of {list(labels)}")
        classes = torch.tensor([numbers[label] for label in data.labels], dtype=torch.int64)
        return cls(encode_texts(data.texts, tokenizer, vocabulary), classes)

    @classmethod
    def unlabelled(cls, tokens: RaggedTokens) -> EncodedTexts:
        """Texts whose labels nobody asks for: all of class 0."""
        return cls(tokens, torch.zeros(len(tokens), dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, rows: NDArray[np.int64], layout: Layout, device: torch.device) -> tuple[tuple[Any, ...], Tensor]:
        """What a model's forward takes for these rows (B numbers), and their classes.

        Returns:
            ``(PackedSequence of (N,) ids,)`` where packed, ``(ids (T, B), lengths (B,))`` where padded; and the labels
            (B,).
        """
        labels = self.labels[torch.from_numpy(rows)].to(device)
        if layout == "packed":
            return (self.tokens.packed(rows).to(device),), labels  # type: ignore[arg-type]  # the hint lacks devices
        ids, lengths = self.tokens.padded(rows)
        return (ids.to(device), lengths), labels

    def weights_of(self, rows: NDArray[np.int64], device: torch.device) -> Tensor | None:
        """The weights (B,) of these rows; None where all texts count alike."""
        return None if self.weights is None else self.weights[torch.from_numpy(rows)].to(device)

    def targets_of(self, rows: NDArray[np.int64], device: torch.device) -> Tensor:
        """What training takes these rows to be of: classes (B,) int64, or probabilities (B, C) float64."""
        targets = self.labels if self.probabilities is None else self.probabilities
        return targets[torch.from_numpy(rows)].to(device)
