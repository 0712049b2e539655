"""Models that weights are about to be put into: none are drawn for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from textclf_fast import TextClassifier
from textclf_fast.models import LanguageModel, MLPClassifier
from textclf_fast.storage.no_random_weights import NoRandomWeights


@pytest.mark.parametrize(
    "make",
    [
        lambda: TextClassifier(9, 4, 6, 2, bidirectional=True, pooling="concat", embedding_std=0.1),
        lambda: MLPClassifier(9, 4, 6, 2),
        lambda: LanguageModel(9, 4, 6),
    ],
)
def test_no_random_number_is_drawn(make: Callable[[], nn.Module]) -> None:
    before = torch.get_rng_state()
    with NoRandomWeights():
        make()
    assert torch.equal(torch.get_rng_state(), before)
    make()
    assert not torch.equal(torch.get_rng_state(), before)


def test_the_memory_is_not_touched() -> None:
    weight = torch.ones(2, 3)
    with NoRandomWeights():
        weight.mul_(0.1)
        nn.init.normal_(weight)
        nn.init.kaiming_uniform_(tensor=weight)
    assert torch.equal(weight, torch.ones(2, 3))
