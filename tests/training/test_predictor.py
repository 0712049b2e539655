from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import textclf_fast
from textclf_fast.models import MLPClassifier, TextClassifier
from textclf_fast.predictor import Predictor, _batches
from textclf_fast.text import WordTokenizer
from textclf_fast.training import TrainingOptions, fit, save_model


@pytest.fixture(scope="module")
def predictor(toy: Any) -> Predictor:
    model = toy.model()
    fit(model, toy.data, toy.data, TrainingOptions(epochs=12, batch_size=8, learning_rate=1e-2))
    return Predictor(model, toy.vocabulary, toy.labels)


def test_predicts(toy: Any, predictor: Predictor) -> None:
    assert predictor.labels == ["negative", "positive"]
    expected = [toy.labels[number] for number in toy.data.labels]
    agree = [ours == theirs for ours, theirs in zip(predictor.predict(toy.texts), expected, strict=True)]
    assert np.mean(agree) > 0.97


def test_probabilities_are_those_of_each_text_alone(toy: Any, predictor: Predictor) -> None:
    """Whatever else is in the list, and in whatever order."""
    together = predictor.predict_proba(toy.texts)
    assert together.shape == (200, 2)
    assert together.dtype == np.float32
    assert together.sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert together.std(axis=0).min() > 0.1
    alone = np.concatenate([predictor.predict_proba([text]) for text in toy.texts[:20]])
    assert alone == pytest.approx(together[:20], abs=1e-6)
    backwards = predictor.predict_proba(toy.texts[::-1])
    assert backwards[::-1] == pytest.approx(together, abs=1e-6)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path, toy: Any, predictor: Predictor) -> None:
    save_model(tmp_path / "model", predictor._model, toy.vocabulary, toy.labels)
    loaded = textclf_fast.load(tmp_path / "model")
    assert loaded.labels == predictor.labels
    assert np.array_equal(loaded.predict_proba(toy.texts), predictor.predict_proba(toy.texts))


def test_in_another_process_it_is_the_same(tmp_path: Path, toy: Any, predictor: Predictor) -> None:
    save_model(tmp_path / "model", predictor._model, toy.vocabulary, toy.labels)
    code = "import sys, textclf_fast; p = textclf_fast.load(sys.argv[1]); print(p.predict(sys.argv[2:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model"), *toy.texts[:10]],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.strip() == str(predictor.predict(toy.texts[:10]))


def test_no_texts(predictor: Predictor) -> None:
    assert predictor.predict([]) == []
    assert predictor.predict_proba([]).shape == (0, 2)


def test_texts_without_a_known_word(predictor: Predictor) -> None:
    probabilities = predictor.predict_proba(["", " ", "xyzzy", "\U0001f600"])
    assert probabilities == pytest.approx(np.repeat(probabilities[:1], 4, axis=0), abs=1e-6)


def test_dropout_is_off(toy: Any) -> None:
    predictor = Predictor(toy.model(dropout=0.9).train(), toy.vocabulary, toy.labels, WordTokenizer())
    assert np.array_equal(predictor.predict_proba(toy.texts), predictor.predict_proba(toy.texts))


def test_threads_may_share_it(toy: Any) -> None:
    expected = Predictor(toy.model(), toy.vocabulary, toy.labels).predict_proba(toy.texts)
    for _ in range(5):
        shared = Predictor(toy.model(), toy.vocabulary, toy.labels)
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(lambda _, shared=shared: shared.predict_proba(toy.texts), range(8)):
                assert found == pytest.approx(expected, abs=1e-6)


def test_threads_may_share_it_whatever_they_ask(toy: Any, predictor: Predictor) -> None:
    """One text, many, and explanations, which differentiate, at the same time."""
    single, many, found = predictor.predict_proba(toy.texts[:1]), predictor.predict_proba(toy.texts), {}
    for text in toy.texts[:4]:
        found[text] = predictor.explain(text)

    def ask(number: int) -> None:
        text = toy.texts[number % 4]
        assert predictor.explain(text).scores == pytest.approx(found[text].scores, abs=1e-6)
        assert predictor.predict_proba(toy.texts[:1]) == pytest.approx(single, abs=1e-6)
        assert predictor.predict_proba(toy.texts) == pytest.approx(many, abs=1e-6)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(24)))


def test_batches_are_small_and_hold_every_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textclf_fast.predictor._MOST_ROWS", 4)
    monkeypatch.setattr("textclf_fast.predictor._MOST_POSITIONS", 12)
    lengths = np.array([9, 1, 1, 1, 40, 1, 1, 3, 2, 4, 4, 4, 13])
    batches = [batch.tolist() for batch in _batches(lengths)]
    assert [lengths[batch].tolist() for batch in batches] == [[1, 1, 1, 1], [1, 2, 3], [4, 4, 4], [9], [13], [40]]
    assert sorted(np.concatenate(batches)) == list(range(13))


def test_a_long_text_among_short_ones_pads_nobody(toy: Any, predictor: Predictor) -> None:
    long = " ".join(toy.texts * 10)
    together = predictor.predict_proba([*toy.texts[:5], long, *toy.texts[5:10]])
    assert together[5] == pytest.approx(predictor.predict_proba([long])[0], abs=1e-6)
    assert np.delete(together, 5, axis=0) == pytest.approx(predictor.predict_proba(toy.texts[:10]), abs=1e-6)


def test_needs_no_training(tmp_path: Path, toy: Any, predictor: Predictor) -> None:
    save_model(tmp_path / "model", predictor._model, toy.vocabulary, toy.labels)
    code = (
        "import sys, textclf_fast; p = textclf_fast.load(sys.argv[1]); p.predict(['a text']); p.explain('a text');"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model")], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    loaded = set(done.stdout.split())
    assert "textclf_fast.predictor" in loaded
    assert not loaded & {"textclf_fast.training", "typer", "rich", "sklearn", "matplotlib", "starlette"}


def test_gradients_are_left_alone(toy: Any, predictor: Predictor) -> None:
    predictor.predict(toy.texts[:3])
    assert torch.is_grad_enabled()


def test_in_bfloat16(tmp_path: Path, toy: Any, predictor: Predictor, isa: str) -> None:
    """Near, on a processor that multiplies it, and the same elsewhere; the model that was given stays as it is."""
    exact, model = predictor.predict_proba(toy.texts), predictor._model
    lowered = Predictor(model, predictor._vocabulary, predictor.labels, predictor._tokenizer, weights="bfloat16")
    save_model(tmp_path / "model", model, predictor._vocabulary, predictor.labels)
    for each in (lowered, textclf_fast.load(tmp_path / "model", weights="bfloat16")):
        found = each.predict_proba(toy.texts)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
        if isa in ("avx512_bf16", "amx"):
            assert 0 < abs(found - exact).max() < 0.02
            assert each._model.encoder.embedding.weight.dtype == torch.bfloat16
        else:
            np.testing.assert_allclose(found, exact, atol=1e-5)
        assert each.explain(toy.texts[0]).label in predictor.labels
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_odd_sizes_stay_in_float32(predictor: Predictor) -> None:
    """Which the kernels would compute in float32, after converting them in every call."""
    model = TextClassifier(len(predictor._vocabulary), 4, 5, 2)
    lowered = Predictor(model, predictor._vocabulary, predictor.labels, weights="bfloat16")
    assert lowered._model is model
    assert model.encoder.embedding.weight.dtype == torch.float32


def test_weights_that_there_are_not(predictor: Predictor) -> None:
    mlp = MLPClassifier(len(predictor._vocabulary), 4, 4, 2)
    for weights in ("int8", "bfloat16"):
        with pytest.raises(ValueError, match=f"weights: expected None for a MLPClassifier, got '{weights}'"):
            Predictor(mlp, predictor._vocabulary, predictor.labels, weights=weights)
    with pytest.raises(ValueError, match="weights: expected None, 'int8' or 'bfloat16', got 'int4'"):
        Predictor(predictor._model, predictor._vocabulary, predictor.labels, weights="int4")


def test_in_int8(tmp_path: Path, toy: Any, predictor: Predictor) -> None:
    save_model(tmp_path / "model", predictor._model, toy.vocabulary, toy.labels)
    loaded = textclf_fast.load(tmp_path / "model", weights="int8")
    error = np.abs(loaded.predict_proba(toy.texts) - predictor.predict_proba(toy.texts)).max()
    assert 1e-6 < error < 0.05


def test_explains_what_it_predicts(toy: Any, predictor: Predictor) -> None:
    text = "The soup was cold and the zyzzyva was rude."
    predictor._model.zero_grad()
    found = predictor.explain(text)
    assert found.label == predictor.predict([text])[0] == "negative"
    assert list(found.probabilities.values()) == predictor.predict_proba([text])[0].tolist()
    assert found.tokens == ["the", "soup", "was", "cold", "and", "the", "zyzzyva", "was", "rude", "."]
    assert found.known == [token != "zyzzyva" for token in found.tokens]
    assert len(found.scores) == 10
    for parameter in predictor._model.parameters():
        assert parameter.grad is None


def test_finds_the_words_that_make_the_difference(toy: Any) -> None:
    torch.manual_seed(0)
    model = MLPClassifier(len(toy.vocabulary), 16, 16, 2)
    fit(model, toy.data, toy.data, TrainingOptions(epochs=12, batch_size=8, learning_rate=1e-2))
    explained = Predictor(model, toy.vocabulary, toy.labels).explain("The soup was cold and the waiter was rude.")
    assert explained.label == "negative"
    scores = dict(zip(explained.tokens, explained.scores, strict=True))
    assert sorted(scores, key=scores.__getitem__)[-2:] in (["cold", "rude"], ["rude", "cold"])
    assert scores["cold"] > 0 < scores["rude"]


def test_explains_nothing_where_there_are_no_words(predictor: Predictor) -> None:
    found = predictor.explain(" ")
    assert (found.tokens, found.scores, found.known) == ([], [], [])
    assert list(found.probabilities.values()) == predictor.predict_proba([" "])[0].tolist()
    with pytest.raises(TypeError, match="text: expected str, got bytes"):
        predictor.explain(b"a")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one text", "expected a list of texts, got a str"),
        (["a", None], "place 1, got NoneType"),
        ([b"a"], "place 0, got bytes"),
    ],
)
def test_bad_input(predictor: Predictor, texts: Any, message: str) -> None:
    for method in (predictor.predict, predictor.predict_proba):
        with pytest.raises(TypeError, match=message):
            method(texts)
