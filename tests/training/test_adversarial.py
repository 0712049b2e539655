"""Words moved against the model: how far, whither, and back again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from textclf_fast.training import TrainingOptions, fit
from textclf_fast.training.adversarial import AdversarialWords

CPU = torch.device("cpu")


@pytest.mark.parametrize("sparse", [False, True])
def test_words_are_moved_against_the_model_and_back(toy: Any, sparse: bool) -> None:
    model = toy.model(sparse=sparse)
    weight = model.encoder.embedding.weight
    before = weight.detach().clone()
    inputs, labels = toy.data.batch(np.arange(32), "packed", CPU)
    used = inputs[0].data.unique()
    loss = functional.cross_entropy(model(*inputs), labels)
    adversary = AdversarialWords(model, 0.1)
    with adversary.moved():  # no gradient yet
        assert torch.equal(weight, before)
    loss.backward()
    gradient = weight.grad.to_dense()
    with adversary.moved():
        step = weight.detach() - before
        assert float(step.norm() / before[used].norm()) == pytest.approx(0.1, rel=1e-4)
        torch.testing.assert_close(step / step.norm(), gradient / gradient.norm(), rtol=1e-3, atol=1e-5)
        assert functional.cross_entropy(model(*inputs), labels) > loss + 0.01
    assert torch.equal(weight, before)


def test_back_again_when_training_fails(toy: Any) -> None:
    model = toy.model()
    before = model.encoder.embedding.weight.detach().clone()
    inputs, labels = toy.data.batch(np.arange(32), "packed", CPU)
    functional.cross_entropy(model(*inputs), labels).backward()
    with pytest.raises(KeyboardInterrupt), AdversarialWords(model, 0.5).moved():
        raise KeyboardInterrupt
    assert torch.equal(model.encoder.embedding.weight, before)


def test_a_sparse_embedding_trains_alike(toy: Any) -> None:
    weights = []
    for sparse in (False, True):
        model = toy.model(sparse=sparse)
        fit(model, toy.data, toy.data, TrainingOptions(epochs=3, adversarial=0.2, keep="last"))
        weights.append(model.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4)


def test_both_losses_count(toy: Any) -> None:
    """The first update of plain gradient descent is by the sum of the two gradients."""
    model, options = toy.model(), TrainingOptions(epochs=1, batch_size=len(toy.data), adversarial=0.3)
    rows = np.arange(len(toy.data))
    want = toy.model()
    inputs, labels = toy.data.batch(rows, "packed", CPU)
    functional.cross_entropy(want(*inputs), labels).backward()
    with AdversarialWords(want, 0.3).moved():
        functional.cross_entropy(want(*inputs), labels).backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    fit(model, toy.data, toy.data, options, optimizer=optimizer)
    for name, parameter in want.named_parameters():
        torch.testing.assert_close(before[name] - model.state_dict()[name], 0.5 * parameter.grad, rtol=1e-3, atol=1e-5)
