"""A trained classifier that takes texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textclf_fast.attribution import Explanation, token_scores
from textclf_fast.models import Classifier, MultiInputClassifier
from textclf_fast.storage import load_model
from textclf_fast.text import UNK_ID, DataError, RaggedTokens, Vocabulary, WordTokenizer, encode_texts

# Enough rows for every thread to have several tiles of them, and so few positions, padding included, that they and the
# hidden states stay in the cache; a long text is a batch of its own.
_MOST_ROWS = 256
_MOST_POSITIONS = 2**14


Weights = Literal["int8", "bfloat16"]


class Predictor:
    """Texts in, labels or probabilities out. Threads may share one.

    Args:
        model: of V tokens and C classes; it is put into eval mode, and stays on its device.
        vocabulary: the V tokens.
        labels: the names of the C classes, by number.
        tokenizer: the one the vocabulary was made with.
        weights: None: as they are. With the others, probabilities differ a little. "int8": faster for one text at a
            time; see :meth:`textclf_fast.FusedEmbeddingLSTM.prepare_inference`. "bfloat16": faster for many, by a
            copy of the model; as None where the processor does not multiply bfloat16 (AVX512_BF16, AMX and GPUs do), or
            the layers' sizes are odd.

    Raises:
        ValueError: weights for a model that has no such kernel, as int8 for one of several layers.
        textclf_fast.text.DataError: a model that takes other inputs than one text.
    """

    def __init__(
        self,
        model: Classifier,
        vocabulary: Vocabulary,
        labels: Sequence[str],
        tokenizer: Callable[[str], Sequence[str]] | None = None,
        *,
        weights: Weights | None = None,
    ) -> None:
        self._input: str | None = None  # what a MultiInputClassifier calls the text
        if isinstance(model, MultiInputClassifier):
            self._input = model.only_text
            if self._input is None:
                raise DataError(f"model: expected one that takes one text, got inputs {model.names}: call it itself")
        if weights not in (None, "int8", "bfloat16"):
            raise ValueError(f"weights: expected None, 'int8' or 'bfloat16', got {weights!r}")
        if weights == "bfloat16":
            model, weights = model.with_bfloat16_encoder(), None
        self._model = model.eval()
        if weights is not None:
            self._model.prepare_inference(weights)
        self._vocabulary = vocabulary
        self._labels = tuple(labels)
        self._tokenizer = tokenizer or WordTokenizer()
        # Once: looking parameters up takes as long as a word's step.
        self._device = next(model.parameters()).device
        self._batch_first = bool(model.config["batch_first"])

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
        if len(texts) == 1:
            return self._probabilities(*self._one_text(encode_texts(texts, self._tokenizer, self._vocabulary).values))
        return self._predict_tokens(encode_texts(texts, self._tokenizer, self._vocabulary))

    def explain(self, text: str) -> Explanation:
        """Predicts one text, and says which of its tokens spoke for the label and which against it.

        It takes the time and the memory of a training step on this text. See :mod:`textclf_fast.attribution`.

        Raises:
            TypeError: `text` is not a str.
        """
        if not isinstance(text, str):
            raise TypeError(f"text: expected str, got {type(text).__name__}")
        tokens = list(self._tokenizer(text))
        ids, lengths = self._one_text(self._vocabulary.encode(tokens) if tokens else np.array([UNK_ID]))
        probabilities = self._probabilities(ids, lengths)[0]
        target = int(probabilities.argmax())
        scores = token_scores(self._model, ids.flatten().to(self._device), target).tolist() if tokens else []
        return Explanation(
            label=self._labels[target],
            probabilities=dict(zip(self._labels, probabilities.tolist(), strict=True)),
            tokens=tokens,
            scores=scores,
            known=[token in self._vocabulary for token in tokens],
        )

    def _predict_tokens(self, tokens: RaggedTokens) -> NDArray[np.float32]:
        """n rows of token ids -> (n, C)."""
        probabilities = np.empty((len(tokens), len(self._labels)), dtype=np.float32)
        for rows in _batches(tokens.lengths):
            probabilities[rows] = self._probabilities(*tokens.padded(rows, self._batch_first))
        return probabilities

    def _one_text(self, numbers: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """A text's ids (T,) as a batch, (T, 1) or (1, T), and its length (1,)."""
        ids = torch.from_numpy(numbers)
        return ids.unsqueeze(0 if self._batch_first else 1), torch.tensor([len(ids)])

    def _probabilities(self, ids: Tensor, lengths: Tensor) -> NDArray[np.float32]:
        """Padded ids of B rows and their lengths (B,), on the CPU -> (B, C)."""
        if self._device.type != "cpu":
            ids = ids.to(self._device)
        with torch.no_grad():
            inputs = (ids, lengths) if self._input is None else ({self._input: (ids, lengths)},)
            logits = self._model(*inputs)
            return logits.float().softmax(1).cpu().numpy()


def _batches(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Rows by length, cut into batches of little padding."""
    order = np.argsort(lengths, kind="stable")
    begin = 0
    for end, length in enumerate(lengths[order].tolist()):
        if end - begin == _MOST_ROWS or (end + 1 - begin) * length > _MOST_POSITIONS:
            if end > begin:
                yield order[begin:end]
            begin = end
    if begin < len(order):
        yield order[begin:]


def load(directory: str | Path, *, weights: Weights | None = None) -> Predictor:
    """Reads a model that `textclf-fast train` or `save_model` wrote, and makes what its predictions keep.

    Args:
        directory: where it is.
        weights: as of :class:`Predictor`.

    Raises:
        ValueError: as :class:`Predictor`.
        textclf_fast.text.DataError: as that, or there is no such directory, or no whole model in it.
    """
    saved = load_model(directory)
    predictor = Predictor(saved.model, saved.vocabulary, saved.labels, saved.tokenizer, weights=weights)
    if weights != "int8":
        predictor._model.prepare_inference()
    return predictor
