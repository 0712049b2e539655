"""The classifiers as a scikit-learn estimator: texts in, labels out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from textclf_fast.models import Classifier, MLPClassifier, TextClassifier, make_classifier
from textclf_fast.models.pooling import Pooling
from textclf_fast.predictor import Predictor
from textclf_fast.storage.no_random_weights import NoRandomWeights
from textclf_fast.text import RaggedTokens, Vocabulary, encode_texts, make_tokenizer
from textclf_fast.training import EncodedTexts, TrainingOptions, fit, save_model, train_epochs
from textclf_fast.training.initial_vectors import InitialVectors, find_initial_vectors

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state, column_or_1d
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_consistent_length, check_is_fitted
except ImportError as error:
    raise ImportError("TextLSTMClassifier needs scikit-learn: pip install 'textclf_fast[sklearn]'") from error


class TextLSTMClassifier(ClassifierMixin, BaseEstimator):
    """A text classifier with scikit-learn's interface, for pipelines, cross-validation and searches.

    >>> TextLSTMClassifier(pooling="max").fit(texts, labels).predict(["a joy from start to finish"])  # doctest: +SKIP

    X is a list, or a one-dimensional array or series, of n texts, each a str; y the n labels of any type that
    scikit-learn takes.

    A fitted estimator pickles, and copies, as its weights' safetensors and the configuration. Pickles are for files of
    your own: whoever loads a pickle runs what is in it. :meth:`save` writes a model without one.

    Args:
        model: ``"lstm"``, :class:`textclf_fast.TextClassifier`, or ``"mlp"``,
            :class:`textclf_fast.models.MLPClassifier`.
        embedding_dim: numbers per token; None, of an mlp alone: its first layer is on the bag of words.
        hidden_dim: units of a layer.
        num_layers, dropout: of either model.
        bidirectional, pooling: of an lstm.
        activation: of an mlp.
        tokenizer: the kind of a tokenizer, or its configuration, :func:`textclf_fast.text.make_tokenizer`.
        vocab_size, min_frequency: the vocabulary: most entries, and the times a token has to be seen.
        vectors: word vectors to begin with, one source or several: files, sentence encoders, or names such as
            ``"glove"`` and ``"minilm"``: each token has at least as many numbers as these, and their most frequent
            words join the vocabulary up to its size; see
            :func:`textclf_fast.training.initial_vectors.find_initial_vectors`. None: none.
        epochs, batch_size, learning_rate: of the training.
        validation_fraction: the share of the texts, above 0, below 1, that are not trained on: the weights are those
            of the epoch that is best on them. None: all are trained on, and the last epoch's weights are taken.
        random_state: of the weights, the batches and what is held out: an int, a numpy.random.RandomState or None.

    Attributes:
        classes_: (C,) the labels, sorted.
        model_: the trained classifier.
        vocabulary_: its vocabulary.
        tokenizer_: its tokenizer.
        n_iter_: the epochs.

    Raises:
        ImportError: on import, where scikit-learn is missing.
    """

    def __init__(
        self,
        model: Literal["lstm", "mlp"] = "lstm",
        *,
        embedding_dim: int | None = 100,
        hidden_dim: int = 128,
        num_layers: int = 1,
        bidirectional: bool = False,
        pooling: Pooling = "last",
        activation: Literal["sigmoid", "relu"] = "sigmoid",
        dropout: float = 0.0,
        tokenizer: str | Mapping[str, Any] = "word",
        vocab_size: int = 10_000,
        min_frequency: int = 1,
        vectors: str | Path | Sequence[str | Path] | None = None,
        epochs: int = 5,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        validation_fraction: float | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.model = model
        self.embedding_dim = embedding_dim
        self.hidden_dim = hidden_dim
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.pooling = pooling
        self.activation = activation
        self.dropout = dropout
        self.tokenizer = tokenizer
        self.vocab_size = vocab_size
        self.min_frequency = min_frequency
        self.vectors = vectors
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def fit(self, X: Sequence[str], y: Any, sample_weight: Any = None) -> TextLSTMClassifier:
        """Trains on n texts and their labels.

        Args:
            X, y: as above.
            sample_weight: (n,) numbers of 0 or more, or one for all; None: all texts count alike. A batch's loss is the
                mean of its texts' with these weights, so that only their proportions matter, and a text of weight 2
                counts in it as if it were there twice. (It is still one text of the batch, and one to the vocabulary.)
                What is held out by ``validation_fraction`` is weighted as well, where the best epoch is chosen. Which
                texts these are does not depend on the weights, except that a text of weight 0 is as if it were not
                there at all.

        Raises:
            TypeError: X is one str, or holds something else than str.
            ValueError: an argument out of range, X, y and sample_weight of different lengths, or fewer than two classes
                (with a weight above 0).
        """
        texts = _as_texts(X)
        if y is None:
            raise ValueError("y: requires y to be passed, but the target y is None")
        y = column_or_1d(y, warn=True)
        check_consistent_length(texts, y)
        check_classification_targets(y)
        weights = None if sample_weight is None else _as_weights(sample_weight, len(texts))
        if weights is not None and not weights.all():
            kept = np.flatnonzero(weights)
            texts, y, weights = [texts[row] for row in kept], y[kept], weights[kept]
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: expected at least two classes, got one class, {self.classes_.tolist()}")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        train_rows, held_out_rows = self._split(numbers, seed)

        kind = {"kind": self.tokenizer} if isinstance(self.tokenizer, str) else self.tokenizer
        self.tokenizer_ = make_tokenizer(kind)
        self.vocabulary_ = Vocabulary.build(
            (self.tokenizer_(texts[row]) for row in train_rows), self.vocab_size, self.min_frequency
        )
        initial = None
        if self.vectors is not None:
            initial = find_initial_vectors(self.vectors, self.vocabulary_, self.tokenizer_, self.vocab_size)
            self.vocabulary_ = initial.vocabulary
        tokens = encode_texts(texts, self.tokenizer_, self.vocabulary_)
        labels = torch.from_numpy(numbers.astype(np.int64))
        train, held_out = (_select(tokens, labels, weights, rows) for rows in (train_rows, held_out_rows))
        options = TrainingOptions(self.epochs, self.batch_size, self.learning_rate, seed)
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay what they were
            torch.manual_seed(seed)
            model = self._make_model(initial)
        if self.validation_fraction is None:
            for _ in train_epochs(model, train, held_out, options):
                pass
        else:
            fit(model, train, held_out, options)
        self.model_ = model.eval()
        self.n_iter_ = self.epochs
        return self

    def predict(self, X: Sequence[str]) -> NDArray[Any]:
        """The most probable label (n,) of each text.

        Raises:
            sklearn.exceptions.NotFittedError: before :meth:`fit`.
            TypeError: as :meth:`fit`.
        """
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def predict_proba(self, X: Sequence[str]) -> NDArray[np.float32]:
        """The probabilities (n, C) float32, columns in the order of ``classes_``.

        Raises:
            sklearn.exceptions.NotFittedError, TypeError: as :meth:`predict`.
        """
        check_is_fitted(self)
        predictor = Predictor(self.model_, self.vocabulary_, self._label_names(), self.tokenizer_)
        return predictor.predict_proba(_as_texts(X))

    def save(self, directory: str | Path, overwrite: bool = False) -> None:
        """Writes the model for :func:`textclf_fast.load` and the command line, without a pickle; labels become str.

        Raises:
            sklearn.exceptions.NotFittedError: before :meth:`fit`.
            OSError: as :func:`textclf_fast.training.save_model`.
        """
        check_is_fitted(self)
        save_model(
            directory,
            self.model_,
            self.vocabulary_,
            self._label_names(),
            {"estimator": self._settings()},
            overwrite,
            tokenizer=self.tokenizer_,
        )

    def _settings(self) -> dict[str, Any]:
        """The arguments, as JSON can hold them."""
        settings = {name: value for name, value in self.get_params().items() if name != "random_state"}
        vectors = self.vectors
        if isinstance(vectors, Path):
            vectors = str(vectors)
        elif vectors is not None and not isinstance(vectors, str):
            vectors = [str(source) for source in vectors]
        return {**settings, "vectors": vectors}

    def _label_names(self) -> list[str]:
        return [str(label) for label in self.classes_.tolist()]

    def _split(self, numbers: NDArray[Any], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows to train on, and those held out; without any to hold out one, for the loop to look at."""
        rows = np.arange(len(numbers))
        share = self.validation_fraction
        if share is None:
            return rows, rows[:1]
        if not (isinstance(share, float | int) and math.isfinite(share) and 0 < share < 1):
            raise ValueError(f"validation_fraction: expected a number between 0 and 1, or None, got {share!r}")
        train, held_out = train_test_split(rows, test_size=share, random_state=seed, stratify=numbers)
        return np.sort(train), np.sort(held_out)

    def _make_model(self, initial: InitialVectors | None) -> Classifier:
        embedding_dim = self.embedding_dim
        if initial is not None:
            if embedding_dim is None:
                raise ValueError("embedding_dim: expected a number beside vectors, got None")
            embedding_dim = max(embedding_dim, initial.dim)
        model = self._make_random_model(embedding_dim)
        if initial is not None:
            initial.put_into(model.embedding)
        return model

    def _make_random_model(self, embedding_dim: int | None) -> Classifier:
        vocab_size, classes = len(self.vocabulary_), len(self.classes_)
        if self.model == "lstm":
            if embedding_dim is None:
                raise ValueError("embedding_dim: expected a number for model='lstm', got None")
            return TextClassifier(
                vocab_size,
                embedding_dim,
                self.hidden_dim,
                classes,
                num_layers=self.num_layers,
                bidirectional=self.bidirectional,
                dropout=self.dropout,
                pooling=self.pooling,
                sparse=True,
            )
        if self.model == "mlp":
            return MLPClassifier(
                vocab_size,
                embedding_dim,
                self.hidden_dim,
                classes,
                num_layers=self.num_layers,
                activation=self.activation,
                dropout=self.dropout,
                sparse=True,
            )
        raise ValueError(f"model: expected 'lstm' or 'mlp', got {self.model!r}")

    def __getstate__(self) -> dict[str, Any]:
        from safetensors.torch import save

        state = dict(super().__getstate__())
        if "model_" in state:
            model = state.pop("model_")
            weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
            state["_saved_model"] = ({"kind": model.kind, **model.config}, save(weights))
            state["_saved_tokens"] = state.pop("vocabulary_").tokens
            state["_saved_tokenizer"] = state.pop("tokenizer_").config
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        from safetensors.torch import load

        state = dict(state)
        if "_saved_model" in state:
            config, weights = state.pop("_saved_model")
            with NoRandomWeights():  # they are about to be read
                model = make_classifier(config)
            model.load_state_dict(load(weights), assign=True)
            state["model_"] = model.eval()
            state["vocabulary_"] = Vocabulary(state.pop("_saved_tokens"))
            state["tokenizer_"] = make_tokenizer(state.pop("_saved_tokenizer"))
        super().__setstate__(state)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags


def _as_texts(X: Any) -> list[str]:
    if isinstance(X, str):
        raise TypeError("X: expected a list of texts, got a str: put the one text into a list")
    if getattr(X, "ndim", 1) != 1:
        raise ValueError(f"X: expected one dimension, of texts, got shape {X.shape}")
    texts = list(X)
    if not texts:
        raise ValueError("X: expected at least one text, got 0 sample(s)")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"X: expected str at place {number}, got {type(text).__name__}")
    return texts


def _as_weights(sample_weight: Any, count: int) -> NDArray[np.float64]:
    """(count,), the largest of them 1; what is too small beside it for a float64 is 0."""
    name = "sample_weight"
    try:
        weights = np.asarray(sample_weight, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers, got {sample_weight!r:.60}") from error
    if weights.ndim == 0:
        weights = np.full(count, weights)
    if weights.shape != (count,):
        raise ValueError(f"{name}: expected shape ({count},), one for each text, got {weights.shape}")
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(bad):
        raise ValueError(f"{name}: expected finite numbers of 0 or more, got {weights[bad[0]]} at place {bad[0]}")
    if not weights.any():
        raise ValueError(f"{name}: expected at least one number above 0, got {count} that are zero")
    return weights / weights.max()


def _select(
    tokens: RaggedTokens, labels: torch.Tensor, weights: NDArray[np.float64] | None, rows: NDArray[np.int64]
) -> EncodedTexts:
    return EncodedTexts(
        RaggedTokens.from_lists(tokens[int(row)] for row in rows),
        labels[torch.from_numpy(rows)],
        None if weights is None else torch.from_numpy(weights[rows]),
    )
