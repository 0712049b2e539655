"""A trained classifier that takes texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from textclf_fast.models import Classifier
from textclf_fast.storage import load_model
from textclf_fast.text import LengthBucketSampler, Vocabulary, WordTokenizer, encode_texts

_BATCH_SIZE = 64


class Predictor:
    """Texts in, labels or probabilities out. Threads may share one.

    Args:
        model: of V tokens and C classes; it is put into eval mode.
        vocabulary: the V tokens.
        labels: the names of the C classes, by number.
        tokenizer: the one the vocabulary was made with.
        weights: "int8": faster for one text at a time, with probabilities that differ a little; see
            :meth:`textclf_fast.FusedEmbeddingLSTM.prepare_inference`. None: as they are.

    Raises:
        ValueError: int8 for a model that has no such kernel, as one of several layers.
    """

    def __init__(
        self,
        model: Classifier,
        vocabulary: Vocabulary,
        labels: Sequence[str],
        tokenizer: Callable[[str], Sequence[str]] | None = None,
        *,
        weights: Literal["int8"] | None = None,
    ) -> None:
        self._model = model.eval()
        if weights is not None:
            self._model.prepare_inference(weights)
        self._vocabulary = vocabulary
        self._labels = tuple(labels)
        self._tokenizer = tokenizer or WordTokenizer()

    @property
    def labels(self) -> list[str]:
        """The names of the classes, in the order of the columns of `predict_proba`."""
        return list(self._labels)

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The most probable label of each of n texts.

        Raises:
            TypeError: `texts` is one str, or holds something else than str.
        """
        return [self._labels[number] for number in self.predict_proba(texts).argmax(axis=1)]

    def predict_proba(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The probability (n, C) float32 of each label for each of n texts. A text without a word gets one, too.

        Raises:
            TypeError: as `predict`.
        """
        if isinstance(texts, str):
            raise TypeError("texts: expected a list of texts, got a str: put the one text into a list")
        texts = list(texts)
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"texts: expected str at place {number}, got {type(text).__name__}")
        probabilities = np.empty((len(texts), len(self._labels)), dtype=np.float32)
        if not texts:
            return probabilities
        tokens = encode_texts(texts, self._tokenizer, self._vocabulary)
        device = next(self._model.parameters()).device
        with torch.no_grad():
            for rows in LengthBucketSampler(tokens.lengths, _BATCH_SIZE, shuffle=False):
                logits = self._model(tokens.packed(rows).to(device))  # type: ignore[arg-type]  # the hint lacks devices
                probabilities[rows] = logits.float().softmax(1).cpu().numpy()
        return probabilities


def load(directory: str | Path, *, weights: Literal["int8"] | None = None) -> Predictor:
    """Reads a model that `textclf-fast train` or `save_model` wrote.

    Args:
        directory: where it is.
        weights: as of :class:`Predictor`.

    Raises:
        ValueError: as :class:`Predictor`.
        textclf_fast.text.DataError: there is no such directory, or no whole model in it.
    """
    saved = load_model(directory)
    return Predictor(saved.model, saved.vocabulary, saved.labels, saved.tokenizer, weights=weights)
