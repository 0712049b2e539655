from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from textclf_fast.text import RaggedTokens
from textclf_fast.training import EncodedTexts, TrainingOptions, evaluate, fit, train_epochs
from textclf_fast.training.objective import Objective, balanced_weights, clip_gradients

LABELS = torch.tensor([0, 0, 0, 1, 3, 3])
TWICE = torch.tensor([1, 2, 1, 3, 1, 2])  # how often each of them is there
ROWS = torch.arange(6).repeat_interleave(TWICE)
OPTIONS = [
    {},
    {"label_smoothing": 0.1},
    {"class_weights": (0.5, 2.0, 1.0, 0.0)},
    {"class_weights": "balanced", "label_smoothing": 0.2},
]


def test_balanced_weights() -> None:
    weights = balanced_weights(LABELS, 5)
    assert weights.tolist() == pytest.approx([2 / 3, 2, 0, 1, 0])  # n / C is 2
    assert float(weights[LABELS].sum()) == pytest.approx(len(LABELS))  # the learning rate means what it meant
    assert balanced_weights(LABELS, 5, TWICE.double()).tolist() == balanced_weights(LABELS[ROWS], 5).tolist()


@pytest.mark.parametrize("options", OPTIONS)
def test_is_pytorchs_cross_entropy(options: dict[str, Any]) -> None:
    logits = torch.randn(6, 4, dtype=torch.float64)
    weight = options.get("class_weights")
    if weight is not None:
        weight = torch.tensor([2 / 3, 2, 0, 1] if weight == "balanced" else weight, dtype=torch.float64)
    want = functional.cross_entropy(logits, LABELS, weight, label_smoothing=options.get("label_smoothing", 0.0))
    objective = Objective(TrainingOptions(**options), LABELS)
    torch.testing.assert_close(objective(logits, LABELS), want)
    for parts in ([slice(0, 4), slice(4, 6)], [slice(0, 1), slice(1, 6)], [slice(0, 6, 2), slice(1, 6, 2)]):
        shares = [objective.of_part(logits[part], LABELS[part], LABELS) for part in parts]
        torch.testing.assert_close(sum(shares), want)


@pytest.mark.parametrize("options", OPTIONS)
def test_a_weight_is_a_text_that_often(options: dict[str, Any]) -> None:
    """By the definition, without weights; however small or large all of them are."""
    logits = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    options = TrainingOptions(**options)
    want = Objective(options, LABELS[ROWS])(logits[ROWS], LABELS[ROWS])
    (gradient,) = torch.autograd.grad(want, logits)
    for factor in (1, 0.1, 1e-300, 1e300):
        weights = TWICE.double() * factor
        objective = Objective(options, LABELS, weights)
        loss = objective(logits, LABELS, weights)
        torch.testing.assert_close(loss, want)
        torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], gradient)
        for parts in ([slice(0, 4), slice(4, 6)], [slice(0, 6, 2), slice(1, 6, 2)]):
            shares = [objective.of_part(logits[p], LABELS[p], LABELS, weights[p], weights) for p in parts]
            torch.testing.assert_close(sum(shares), want)


@pytest.mark.parametrize("options", OPTIONS)
def test_probabilities_are_labels_in_shares(options: dict[str, Any]) -> None:
    """A text of two classes is two texts of one each, weighted by the probabilities, however batches are shared out."""
    logits = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    objective = Objective(TrainingOptions(**options), LABELS)
    torch.testing.assert_close(objective(logits, functional.one_hot(LABELS, 4).double()), objective(logits, LABELS))
    other, share = LABELS.flip(0), torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    probabilities = share[:, None] * functional.one_hot(LABELS, 4) + (1 - share)[:, None] * functional.one_hot(other, 4)
    for own in (None, TWICE.double()):
        weights = torch.ones(6, dtype=torch.float64) if own is None else own
        both = torch.cat([weights * share, weights * (1 - share)])
        want = objective(torch.cat([logits, logits]), torch.cat([LABELS, other]), both)
        loss = objective(logits, probabilities, own)
        torch.testing.assert_close(loss, want)
        gradients = [torch.autograd.grad(each, logits)[0] for each in (loss, want)]
        torch.testing.assert_close(*gradients)
        for parts in ([slice(0, 4), slice(4, 6)], [slice(0, 6, 2), slice(1, 6, 2)]):
            shares = [
                objective.of_part(logits[p], probabilities[p], probabilities, None if own is None else own[p], own)
                for p in parts
            ]
            torch.testing.assert_close(sum(shares), want)


def test_probabilities_in_training(toy: Any) -> None:
    """Those of which one is 1 are labels, but for rounding; others are learnt, whatever the labels."""
    labels = toy.data.labels
    certain = functional.one_hot(labels, 2).double()
    found = []
    for probabilities in (None, certain, 1 - certain):
        data = EncodedTexts(toy.data.tokens, labels, None, probabilities)
        for bfloat16 in (False, True):
            model = toy.model()
            history = fit(model, data, toy.data, TrainingOptions(epochs=3, learning_rate=0.05, bfloat16=bfloat16))
            found.append([(r.loss, r.held_out.loss) for r in history.epochs])
            turned = probabilities is not None and not torch.equal(probabilities, certain)
            assert (history.epochs[-1].held_out.accuracy < 0.5) == turned
    assert np.array(found[2]) == pytest.approx(np.array(found[0]), rel=1e-4)
    assert np.array(found[3]) == pytest.approx(np.array(found[1]), rel=1e-4)


def test_weights_of_texts_in_training_and_evaluation(toy: Any) -> None:
    """In batches that hold all texts: those with weights, and those with the texts that often, take the same steps."""
    times = 1 + torch.arange(200) % 3
    rows = torch.arange(200).repeat_interleave(times)
    often = EncodedTexts(RaggedTokens.from_lists(toy.data.tokens[int(row)] for row in rows), toy.data.labels[rows])
    weighted = EncodedTexts(toy.data.tokens, toy.data.labels, times.double() / 7)
    found = []
    for data in (often, weighted, toy.data):
        model = toy.model().double()
        options = TrainingOptions(epochs=3, batch_size=len(data), learning_rate=0.05, class_weights="balanced")
        history = fit(model, data, data, options)
        found.append([(r.loss, r.held_out.loss, r.held_out.accuracy, r.held_out.macro_f1) for r in history.epochs])
    assert np.array(found[1]) == pytest.approx(np.array(found[0]), rel=1e-6)
    assert np.array(found[2]) != pytest.approx(np.array(found[0]), rel=1e-3)


def test_wrong_number_of_class_weights(toy: Any) -> None:
    with pytest.raises(ValueError, match="class_weights: expected 2, one for each class, got 3"):
        fit(toy.model(), toy.data, toy.data, TrainingOptions(class_weights=(1.0, 2.0, 3.0)))


@pytest.mark.parametrize("max_norm", [0.1, 1e6])
def test_clipping_is_pytorchs_sparse_rows_too(max_norm: float) -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Embedding(7, 3), nn.Linear(3, 2)).double()
    sparse = copy.deepcopy(dense)
    sparse[0].sparse = True
    ids = torch.tensor([1, 2, 1, 6, 1])  # a row three times
    for model in (dense, sparse):
        model(ids).square().sum().backward()
    norm = nn.utils.clip_grad_norm_(dense.parameters(), max_norm)
    assert norm > 0.1
    clip_gradients(sparse.parameters(), max_norm)
    for ours, theirs in zip(sparse.parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(ours.grad.to_dense(), theirs.grad)


def test_clipping_limits_a_step(toy: Any) -> None:
    """With SGD, a step is the rate times the gradient: none is longer than the norm allows."""
    model = toy.model(sparse=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    moved: list[float] = []

    def measure(unused: Any) -> None:
        changes = [p.detach() - b for p, b in zip(model.parameters(), before, strict=True)]
        moved.append(float(torch.nn.utils.get_total_norm(changes)))
        before[:] = [parameter.detach().clone() for parameter in model.parameters()]

    options = TrainingOptions(epochs=1, batch_size=50, clip_norm=0.01)
    list(train_epochs(model, toy.data, toy.data, options, measure, optimizer))
    assert moved == pytest.approx([0.01] * 4, rel=1e-3)


def test_bfloat16(toy: Any) -> None:
    """Close to float32, and not it; packed and padded batches alike; evaluations and weights are float32."""
    losses = {}
    for name, options in (
        ("float32", {}),
        ("packed", {"bfloat16": True}),
        ("padded", {"bfloat16": True, "layout": "padded"}),
    ):
        model = toy.model(sparse=True)
        results = list(
            train_epochs(model, toy.data, toy.data, TrainingOptions(epochs=2, learning_rate=1e-2, **options))
        )
        losses[name] = [step.loss for result in results for step in result.steps]
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert results[-1].held_out == evaluate(model, toy.data)
    assert losses["packed"] == pytest.approx(losses["float32"], abs=0.02)
    assert losses["packed"] == pytest.approx(losses["padded"], abs=5e-3)
    assert losses["packed"] != losses["float32"]


def test_weight_decay_is_adamws(toy: Any) -> None:
    weights = []
    for options in ({"fused_adam": False}, {"fused_adam": True}, {"weight_decay": 0.0}):
        model = toy.model()
        given = {"epochs": 2, "weight_decay": 0.5, "learning_rate": 1e-2, **options}
        list(train_epochs(model, toy.data, toy.data, TrainingOptions(**given)))
        weights.append(model.fc.weight.detach().clone())
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-5)
    assert weights[2].norm() > 1.02 * weights[0].norm()


def test_deterministic_is_on_in_training_alone(toy: Any) -> None:
    seen: list[bool] = []
    is_on = torch.are_deterministic_algorithms_enabled
    options = TrainingOptions(epochs=1, batch_size=100, deterministic=True)
    epochs = train_epochs(toy.model(sparse=True), toy.data, toy.data, options, lambda unused: seen.append(is_on()))
    for _ in epochs:
        assert not is_on()
    assert seen == [True, True]
    assert not is_on()
