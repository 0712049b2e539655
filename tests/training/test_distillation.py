"""A classifier learns the vectors that a sentence encoder gives texts."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from textclf_fast.models import Classifier, MLPClassifier, TextClassifier
from textclf_fast.text import RaggedTokens
from textclf_fast.training import EncodedTexts, Step, TrainingOptions, evaluate, fit
from textclf_fast.training.distillation import DistillationOptions, distil

WORDS, DIM = 20, 6
OPTIONS = DistillationOptions(epochs=12, batch_size=16, learning_rate=0.02)


def _model(kind: str = "lstm") -> Classifier:
    torch.manual_seed(0)
    if kind == "mlp":
        return MLPClassifier(WORDS, 8, 8, 2)
    if kind == "bag":
        model = MLPClassifier(WORDS, None, 8, 2, sparse=True, token_weights=True)
        model.set_token_weights(torch.linspace(0.5, 2, WORDS))
        return model
    return TextClassifier(WORDS, 8, 8, 2, sparse=True, pooling="mean", dropout=0.1)


def _texts(rows: int = 200) -> tuple[RaggedTokens, torch.Tensor]:
    """Texts of 1 to 5 words from 1, and the mean of what their words are: an encoder."""
    generator = np.random.default_rng(0)
    lists = [generator.integers(1, WORDS, generator.integers(1, 6)).tolist() for _ in range(rows)]
    table = torch.from_numpy(generator.standard_normal((WORDS, DIM))).float()
    return RaggedTokens.from_lists(lists), torch.stack([table[row].mean(0) for row in lists])


@pytest.mark.parametrize("kind", ["lstm", "mlp", "bag"])
def test_it_learns_them(kind: str) -> None:
    model = _model(kind).eval()
    last, head = model.fc, copy.deepcopy(model.fc.state_dict())
    tokens, vectors = _texts()
    steps: list[Step] = []
    cosine = distil(model, tokens, vectors, OPTIONS, steps.append)
    assert cosine > 0.8
    assert len(steps) == 12 * 13
    assert [steps[0].epoch, steps[-1].epoch, steps[-1].step] == [0, 11, 12]
    assert steps[0].loss > 0.7
    assert np.mean([step.loss for step in steps[-13:]]) == pytest.approx(1 - cosine, abs=0.02)
    assert sum(step.tokens for step in steps[:13]) == len(tokens.values)
    assert model.fc is last
    assert all(torch.equal(weight, head[name]) for name, weight in last.state_dict().items())
    assert not model.training
    if kind == "bag":
        assert torch.equal(model.token_weights, torch.linspace(0.5, 2, WORDS))


def test_the_seed_decides_all_and_nothing_else_is_drawn() -> None:
    tokens, vectors = _texts(50)
    models = [_model() for _ in range(3)]
    torch.manual_seed(7)
    state = torch.get_rng_state()
    for model, seed in zip(models, (1, 1, 2), strict=True):
        distil(model, tokens, vectors, DistillationOptions(epochs=1, seed=seed))
        assert torch.equal(torch.get_rng_state(), state)
    one, two, other = (model.state_dict()["encoder.lstm.weight_hh_l0"] for model in models)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_only_directions_count() -> None:
    tokens, vectors = _texts(50)
    models = [_model() for _ in range(2)]
    for model, factor in zip(models, (1.0, 8.0), strict=True):  # a power of 2, so that nothing is rounded otherwise
        distil(model, tokens, factor * vectors, DistillationOptions(epochs=1))
    one, two = (model.state_dict() for model in models)
    for name in one:
        assert torch.equal(one[name], two[name])


def test_words_that_no_labelled_text_has() -> None:
    """The encoder says that they are like words of which a label says what they mean."""
    classes = np.random.default_rng(0).integers(0, 2, 200)
    generator = np.random.default_rng(1)
    words = ([1, 2, 5, 6], [3, 4, 7, 8])  # by class
    tokens = RaggedTokens.from_lists([[generator.choice(words[c])] for c in classes])
    vectors = torch.nn.functional.one_hot(torch.from_numpy(classes), DIM).float()
    labelled = EncodedTexts(RaggedTokens.from_lists([[1], [2], [3], [4]]), torch.tensor([0, 0, 1, 1]))
    tested = EncodedTexts(RaggedTokens.from_lists([[5], [6], [7], [8]]), torch.tensor([0, 0, 1, 1]))
    accuracies = []
    for learns in (False, True):
        model = _model()
        if learns:
            distil(model, tokens, vectors, OPTIONS)
        fit(model, labelled, tested, TrainingOptions(epochs=20, batch_size=4, learning_rate=0.01, keep="last"))
        assert evaluate(model, labelled).accuracy == 1
        accuracies.append(evaluate(model, tested).accuracy)
    assert accuracies[0] < 1
    assert accuracies[1] == 1


def test_what_cannot_be() -> None:
    tokens, vectors = _texts(4)
    model = _model()
    last = model.fc
    with pytest.raises(ValueError, match="tokens: expected at least one text, got none"):
        distil(model, RaggedTokens.from_lists([]), vectors[:0])
    for wrong in (vectors[:3], vectors[:, 0]):
        with pytest.raises(ValueError, match=r"vectors: expected \(4, K\), one for each text, got \("):
            distil(model, tokens, wrong)
    with pytest.raises(FloatingPointError, match=r"the loss became nan in epoch 1, step 1$"):
        distil(model, tokens, vectors * float("nan"))
    assert model.fc is last


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [
        ("epochs", 0, "at least 1"),
        ("batch_size", 0, "at least 1"),
        ("seed", -1, "at least 0"),
        ("learning_rate", 0.0, "a positive number"),
        ("learning_rate", float("nan"), "a positive number"),
    ],
)
def test_options(name: str, number: float, expected: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected {expected}, got {number}"):
        DistillationOptions(**{name: number})
