"""TextLSTMClassifier by scikit-learn's own checks, in its searches and pipelines, and on the toy texts."""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sklearn = pytest.importorskip("sklearn")
from sklearn.base import clone  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402
from sklearn.utils.validation import check_is_fitted, validate_data  # noqa: E402

import textclf_fast  # noqa: E402
from textclf_fast import TextLSTMClassifier  # noqa: E402
from textclf_fast.text import read_labelled  # noqa: E402


@pytest.fixture(scope="module")
def toy() -> Any:
    return read_labelled(Path(__file__).parent / "text" / "toy.csv")


def _small(**options: Any) -> TextLSTMClassifier:
    sizes = {"embedding_dim": 16, "hidden_dim": 16, "epochs": 8, "batch_size": 8, "learning_rate": 1e-2}
    return TextLSTMClassifier(**{**sizes, "random_state": 0, **options})


# ---- scikit-learn's checks -----------------------------------------------------------------------


class Numbers(TextLSTMClassifier):
    """The estimator on matrices, whose numbers it reads as words: of texts scikit-learn checks nothing but copies."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Numbers:
        """As of the class above; y of None is refused there."""
        X = validate_data(self, X, dtype=float) if y is None else validate_data(self, X, y, dtype=float)[0]
        return super().fit(self._words(X), y, sample_weight)

    def predict_proba(self, X: Any) -> Any:
        """As of the class above."""
        check_is_fitted(self)
        return super().predict_proba(self._words(validate_data(self, X, dtype=float, reset=False)))

    def _words(self, X: Any) -> list[str]:
        return [" ".join(f"c{c}x{int(x)}" for c, x in enumerate(np.clip(np.rint(row * 2), -30, 30))) for row in X]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = False
        tags.input_tags.two_d_array = True
        return tags


CHECKED = Numbers("mlp", embedding_dim=None, hidden_dim=8, epochs=10, learning_rate=4e-2, random_state=0)


def _known_failures(estimator: Any) -> dict[str, str]:
    return {
        "check_sample_weight_equivalence_on_dense_data": "the vocabulary counts texts, not their weights: its order, "
        "and so the initial weights, are others where texts are repeated"
    }


@parametrize_with_checks([CHECKED], expected_failed_checks=_known_failures)
def test_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


# ---- On texts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"pooling": "concat", "bidirectional": True}, {"model": "mlp"}, {"validation_fraction": 0.2}],
    ids=str,
)
def test_learns(toy: Any, options: dict[str, Any]) -> None:
    estimator = _small(**options).fit(toy.texts, toy.labels)
    assert estimator.classes_.tolist() == ["negative", "positive"]
    assert estimator.score(toy.texts, toy.labels) > 0.9
    probabilities = estimator.predict_proba(toy.texts)
    assert probabilities.shape == (200, 2)
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert (estimator.classes_[probabilities.argmax(1)] == estimator.predict(toy.texts)).all()


def test_begins_with_word_vectors(toy: Any, tmp_path: Path) -> None:
    path = tmp_path / "small.vec"
    path.write_text("food " + "1 " * 20 + "\nzeppelin " + "2 " * 20 + "\n")
    estimator = _small(vectors=path, learning_rate=1e-6, epochs=1).fit(toy.texts, toy.labels)
    assert estimator.model_.config["embedding_dim"] == 20
    assert estimator.vocabulary_.tokens[-1] == "zeppelin"
    found = estimator.model_.embedding.weight[estimator.vocabulary_.encode(["food", "zeppelin"]).tolist()]
    torch.testing.assert_close(found.detach(), torch.tensor([[1.0], [2.0]]).expand(2, 20), atol=1e-3, rtol=0)
    estimator.save(tmp_path / "model")
    assert clone(estimator).vectors == path
    assert [_small(vectors=vectors)._settings()["vectors"] for vectors in (None, "glove", path, [path, "minilm"])] == [
        None,
        "glove",
        str(path),
        [str(path), "minilm"],
    ]
    several = _small(vectors=[path], learning_rate=1e-6, epochs=1).fit(toy.texts, toy.labels)
    assert several.vocabulary_ == estimator.vocabulary_
    with pytest.raises(ValueError, match="embedding_dim: expected a number beside vectors, got None"):
        _small(model="mlp", embedding_dim=None, vectors=path).fit(toy.texts, toy.labels)


def test_labels_of_other_types_and_arrays_of_texts(toy: Any) -> None:
    numbers = np.array([7 if label == "positive" else -3 for label in toy.labels])
    texts = np.array(toy.texts, dtype=object)
    estimator = _small(model="mlp").fit(texts, numbers)
    assert estimator.classes_.tolist() == [-3, 7]
    assert estimator.predict(texts).dtype == numbers.dtype
    same = _small(model="mlp").fit(np.array(toy.texts), numbers)
    assert np.array_equal(same.predict_proba(texts), estimator.predict_proba(texts))


def test_random_states(toy: Any) -> None:
    texts, labels = toy.texts[:40], toy.labels[:40]

    def proba(state: Any) -> Any:
        return _small(epochs=1, random_state=state).fit(texts, labels).predict_proba(texts)

    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert np.array_equal(proba(0), proba(0))
    assert torch.equal(torch.get_rng_state(), before)
    assert not np.array_equal(proba(0), proba(1))
    assert not np.array_equal(proba(None), proba(None))
    assert np.array_equal(proba(np.random.RandomState(3)), proba(np.random.RandomState(3)))


def test_held_out_texts_choose_the_epoch(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from textclf_fast import estimator as module

    seen: dict[str, Any] = {}
    fit = module.fit

    def watched(model: Any, train: Any, held_out: Any, options: Any) -> Any:
        seen.update(train=train, held_out=held_out, history=fit(model, train, held_out, options))
        return seen["history"]

    monkeypatch.setattr(module, "fit", watched)
    _small(model="mlp", epochs=3, validation_fraction=0.25).fit(toy.texts, toy.labels)
    assert (len(seen["train"]), len(seen["held_out"])) == (150, 50)
    assert abs(int(seen["held_out"].labels.sum()) - 25) <= 1  # stratified


def test_in_a_search_and_a_pipeline(toy: Any) -> None:
    texts, labels = toy.texts[:120], toy.labels[:120]
    pipeline = make_pipeline(FunctionTransformer(lambda texts: [text.upper() for text in texts]), _small(model="mlp"))
    search = GridSearchCV(pipeline, {"textlstmclassifier__hidden_dim": [4, 16]}, cv=2, error_score="raise")
    search.fit(texts, labels)
    assert search.best_score_ > 0.6
    assert search.score(texts, labels) > 0.8
    assert len(cross_val_score(_small(epochs=1), texts, labels, cv=3)) == 3


# ---- Weights of texts ----------------------------------------------------------------------------


def test_only_proportions_of_weights_matter(toy: Any) -> None:
    weights = 1.0 + np.arange(200) % 3

    def proba(sample_weight: Any) -> Any:
        estimator = _small(epochs=2, validation_fraction=0.2).fit(toy.texts, toy.labels, sample_weight=sample_weight)
        return estimator.predict_proba(toy.texts)

    want = proba(weights)
    assert np.array_equal(proba(weights * 2.0**40), want)
    assert np.array_equal(proba(list(weights / 2**40)), want)
    assert proba(weights * 5e307) == pytest.approx(want, abs=1e-3)
    assert np.abs(proba(None) - want).max() > 1e-2
    assert proba(np.full(200, 3)) == pytest.approx(proba(None), abs=1e-3)
    assert np.array_equal(proba(3), proba(np.full(200, 3)))


@pytest.mark.parametrize("validation_fraction", [None, 0.2])
def test_texts_of_weight_0_are_not_there(toy: Any, validation_fraction: Any) -> None:
    """Not in the vocabulary, the batches or the classes."""
    weights = np.arange(200) % 4
    labels = [label if weight else "neither" for label, weight in zip(toy.labels, weights, strict=True)]
    texts = [text if weight else "none such" for text, weight in zip(toy.texts, weights, strict=True)]
    rows = np.flatnonzero(weights)
    options = {"epochs": 2, "validation_fraction": validation_fraction}
    whole = _small(**options).fit(texts, labels, weights)
    part = _small(**options).fit([texts[row] for row in rows], [labels[row] for row in rows], weights[rows])
    assert whole.classes_.tolist() == ["negative", "positive"]
    assert np.array_equal(whole.predict_proba(toy.texts), part.predict_proba(toy.texts))


def test_weights_turn_a_contradiction() -> None:
    """Of texts that are there with both labels, the heavier one is learned."""
    texts, labels = ["a b", "a b", "c d", "c d"] * 5, [0, 1, 0, 1] * 5
    estimator = _small(epochs=10).fit(texts, labels, sample_weight=[4, 1, 1, 4] * 5)
    assert estimator.predict(["a b", "c d"]).tolist() == [0, 1]
    assert estimator.predict_proba(["a b", "c d"])[:, 1] == pytest.approx([0.2, 0.8], abs=0.1)


def test_weights_in_a_search_and_a_pipeline(toy: Any) -> None:
    """As fit's arguments, and by metadata routing: each text is there with both labels, the wrong one is heavier."""
    texts = np.repeat(toy.texts[:80], 2)
    other = {"negative": "positive", "positive": "negative"}
    labels = np.array([name for label in toy.labels[:80] for name in (label, other[label])])
    weights = np.tile([1e-3, 1.0], 80)

    def learned(search: Any) -> None:
        assert (search.predict(texts[1::2]) == labels[1::2]).mean() > 0.9

    small = _small(model="mlp")
    plain = {"cv": 2, "error_score": "raise"}
    learned(GridSearchCV(small, {"hidden_dim": [16]}, **plain).fit(texts, labels, sample_weight=weights))
    pipeline = make_pipeline(FunctionTransformer(list), small)
    grid = {"textlstmclassifier__hidden_dim": [16]}
    given = {"textlstmclassifier__sample_weight": weights}
    learned(GridSearchCV(pipeline, grid, **plain).fit(texts, labels, **given))
    with sklearn.config_context(enable_metadata_routing=True):
        asking = make_pipeline(FunctionTransformer(list), clone(small).set_fit_request(sample_weight=True))
        asking.steps[-1][1].set_score_request(sample_weight=True)
        search = GridSearchCV(asking, grid, **plain).fit(texts, labels, sample_weight=weights)
        learned(search)
        assert search.best_score_ > 0.6, "the scores are weighted, too"


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], r"sample_weight: expected shape \(2,\), one for each text, got \(1,\)"),
        ([[1.0, 1.0]], r"sample_weight: expected shape \(2,\), one for each text, got \(1, 2\)"),
        ([1.0, -2.0], "sample_weight: expected finite numbers of 0 or more, got -2.0 at place 1"),
        ([float("nan"), 1.0], "sample_weight: expected finite numbers of 0 or more, got nan at place 0"),
        ([1.0, float("inf")], "sample_weight: expected finite numbers of 0 or more, got inf at place 1"),
        ([0, 0], "sample_weight: expected at least one number above 0, got 2 that are zero"),
        (["heavy", "light"], r"sample_weight: expected numbers, got \['heavy', 'light'\]"),
        ([1, 0], "y: expected at least two classes, got one class"),
    ],
)
def test_bad_weights(weights: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _small().fit(["a", "b"], [0, 1], sample_weight=weights)


def test_parameters() -> None:
    estimator = _small(tokenizer={"kind": "word"}, pooling="max")
    other = clone(estimator)
    assert other.get_params() == estimator.get_params()
    assert other.set_params(pooling="mean", epochs=2).pooling == "mean"
    with pytest.raises(ValueError, match="Invalid parameter 'layers'"):
        other.set_params(layers=2)
    assert "pooling='max'" in repr(estimator)


@pytest.mark.parametrize("model", ["lstm", "mlp"])
def test_pickles_and_copies(toy: Any, model: Any) -> None:
    estimator = _small(model=model, epochs=1).fit(toy.texts, toy.labels)
    want = estimator.predict_proba(toy.texts)
    data = pickle.dumps(estimator)
    assert b"torch" not in data  # neither tensors nor modules: safetensors
    for other in (pickle.loads(data), copy.deepcopy(estimator)):
        assert np.array_equal(other.predict_proba(toy.texts), want)
        assert other.fit(toy.texts, toy.labels).get_params() == estimator.get_params()
    assert np.array_equal(estimator.predict_proba(toy.texts), want)
    assert isinstance(pickle.loads(pickle.dumps(_small())), TextLSTMClassifier)


def test_saved_for_the_command_line(toy: Any, tmp_path: Path) -> None:
    estimator = _small(epochs=2, tokenizer={"kind": "word"}).fit(toy.texts, toy.labels)
    estimator.save(tmp_path / "model")
    loaded = textclf_fast.load(tmp_path / "model")
    assert loaded.labels == ["negative", "positive"]
    assert np.array_equal(loaded.predict_proba(toy.texts), estimator.predict_proba(toy.texts))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "cnn"}, "model: expected 'lstm' or 'mlp', got 'cnn'"),
        ({"embedding_dim": None}, "embedding_dim: expected a number for model='lstm', got None"),
        ({"pooling": "sum"}, "pooling: expected one of"),
        ({"tokenizer": "none such"}, "kind: expected one of"),
        ({"epochs": 0}, "epochs: expected at least 1, got 0"),
        ({"validation_fraction": 1.5}, "validation_fraction: expected a number between 0 and 1, or None, got 1.5"),
    ],
)
def test_bad_options_are_refused_when_fitted(options: dict[str, Any], message: str) -> None:
    estimator = _small(**options)
    with pytest.raises(ValueError, match=message):
        estimator.fit(["a", "b"], [0, 1])


def test_bad_input(toy: Any) -> None:
    estimator = _small()
    for use in (estimator.predict, estimator.predict_proba, estimator.save):
        with pytest.raises(NotFittedError):
            use(["a"])
    for texts, error, message in (
        ("a text", TypeError, "X: expected a list of texts, got a str"),
        (["a", None], TypeError, "X: expected str at place 1, got NoneType"),
        (np.zeros((2, 2)), ValueError, r"X: expected one dimension, of texts, got shape \(2, 2\)"),
        ([], ValueError, "X: expected at least one text"),
    ):
        with pytest.raises(error, match=message):
            estimator.fit(texts, [0, 1])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        estimator.fit(["a", "b"], [0])
    with pytest.raises(ValueError, match="y: expected at least two classes, got one class"):
        estimator.fit(["a", "b"], [0, 0])
    with pytest.raises(ValueError, match="y: requires y to be passed"):
        estimator.fit(["a", "b"], None)


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "textclf_fast.estimator")
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(
        ImportError, match=r"TextLSTMClassifier needs scikit-learn: pip install 'textclf_fast\[sklearn\]'"
    ):
        textclf_fast.TextLSTMClassifier  # noqa: B018
