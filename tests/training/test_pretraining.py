"""Pre-training: it learns, ends when told, repeats itself; the stream and the perplexity are what they say."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from textclf_fast.models import LanguageModel
from textclf_fast.text import RaggedTokens
from textclf_fast.training.pretraining import (
    PretrainingOptions,
    PretrainingStep,
    make_stream,
    perplexity,
    pretrain,
)

VOCAB = 30


@pytest.fixture(scope="module")
def stream() -> np.ndarray:
    """Texts of twelve words, each the one before it plus 1."""
    random = np.random.default_rng(0)
    rows = [2 + (random.integers(28) + np.arange(12)) % 28 for _ in range(100)]
    return make_stream(RaggedTokens.from_lists(rows))


def make(**options: Any) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(VOCAB, 16, 16, **options)


def options(**changed: Any) -> PretrainingOptions:
    return PretrainingOptions(**{"batch_size": 4, "steps": 10, "frequent": 10, "samples": 10, "epochs": 2, **changed})


@pytest.mark.parametrize("model_options", [{}, {"num_layers": 2}, {"bidirectional": True, "dropout": 0.1}])
def test_it_learns(stream: np.ndarray, model_options: dict[str, Any]) -> None:
    model = make(**model_options)
    before = perplexity(model, stream, 10)
    assert before == pytest.approx(VOCAB, rel=0.1)
    epochs = pretrain(model, stream, stream, options(epochs=3, learning_rate=0.05))
    assert [epoch.epoch for epoch in epochs] == [0, 1, 2]
    assert epochs[-1].perplexity == perplexity(model, stream, 10)
    assert epochs[-1].perplexity < before / 2  # who knows the rule has one choice within a text
    assert not model.training


def test_the_same_again(stream: np.ndarray) -> None:
    results = []
    for _ in range(2):
        model = make(dropout=0.2, bidirectional=True)
        torch.manual_seed(torch.initial_seed() + 1)  # the caller's generator is neither used nor changed
        state = torch.get_rng_state()
        epochs = pretrain(model, stream, stream, options(epochs=1))
        assert torch.equal(torch.get_rng_state(), state)
        results.append((epochs[0].loss, epochs[0].perplexity))
    assert results[0] == results[1]


def test_time_ends_it(stream: np.ndarray) -> None:
    steps: list[PretrainingStep] = []
    epochs = pretrain(make(), stream, None, options(epochs=10**6, minutes=0.5 / 60), steps.append)
    assert steps[-1].done == 1
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert sum(epoch.tokens for epoch in epochs) == sum(step.tokens for step in steps)
    assert epochs[-1].perplexity is None


def test_states_are_carried_over_to_the_next_step(stream: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as the direction has come from: the backward one begins each step anew."""
    model = make(bidirectional=True)
    seen: list[Any] = []
    forward = LanguageModel.forward

    def note(self: LanguageModel, ids: torch.Tensor, hx: Any = None) -> Any:
        output, states = forward(self, ids, hx)
        seen.append((hx, states))
        return output, states

    monkeypatch.setattr(LanguageModel, "forward", note)
    pretrain(model, stream, None, options(epochs=1))
    assert seen[0][0] is None
    for (_, (h, c)), ((h_0, c_0), _) in itertools.pairwise(seen):
        assert torch.equal(h_0[0], h[0])
        assert torch.equal(c_0[0], c[0])
        assert not h_0[1].any()
        assert not c_0[1].any()
        assert not h_0.requires_grad


def test_penalties(stream: np.ndarray) -> None:
    """Each makes what it penalises smaller."""
    outputs = []
    for changed in ({}, {"activation_penalty": 5.0}, {"slowness_penalty": 50.0}):
        model = make()
        pretrain(model, stream, None, options(epochs=1, learning_rate=0.02, **changed))
        outputs.append(model(torch.from_numpy(stream[:200]).view(50, 4))[0])
    plain, small, slow = outputs
    assert small.square().mean() < plain.square().mean() / 2
    assert slow.diff(dim=0).square().mean() < plain.diff(dim=0).square().mean() / 2


def test_perplexity_is_that_of_the_exact_softmax(stream: np.ndarray) -> None:
    model = make().eval()
    part = stream[:81]  # 8 rows of 10 and a target
    ids = torch.from_numpy(part[:80]).view(8, 10).t()
    targets = torch.from_numpy(part[1:81]).view(8, 10).t()
    with torch.no_grad():
        scores = model.scores(model(ids)[0])[0]
    loss = functional.cross_entropy(scores.flatten(0, 1), targets.flatten())
    assert perplexity(model, part, 10) == pytest.approx(math.exp(loss), rel=1e-5)
    assert perplexity(model, part, 3) == pytest.approx(math.exp(loss), rel=1e-5)  # in four steps, the last one shorter


def test_stream() -> None:
    tokens = RaggedTokens.from_lists([[5, 6], [], [7]])
    assert make_stream(tokens).tolist() == [5, 6, 0, 0, 7, 0]
    orders = {tuple(make_stream(tokens, seed)) for seed in range(20)}
    assert len(orders) == 6
    assert make_stream(RaggedTokens.from_lists([])).tolist() == []


def test_rates(stream: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up and down once, over all epochs."""
    rates: list[float] = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self, *rest: (rates.append(self.param_groups[0]["lr"]), step(self, *rest))[1]
    )
    pretrain(make(), stream, None, options(learning_rate=0.01))
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(0.01, rel=1e-2)
    assert 0.05 < top / len(rates) < 0.15
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 1e-4


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("minutes", 0.0), ("minutes", math.nan), ("steps", 1), ("learning_rate", -1.0), ("seed", -1)],
)
def test_bad_options(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected .*, got {value}"):
        PretrainingOptions(**{name: value})


def test_too_few_tokens() -> None:
    with pytest.raises(ValueError, match="tokens: expected at least 33 for 32 columns, got 3"):
        pretrain(make(), np.array([3, 4, 0]), None)


def test_a_loss_that_is_no_number(stream: np.ndarray) -> None:
    model = make()
    with torch.no_grad():
        model.bias[5] = math.nan
    with pytest.raises(FloatingPointError, match="the loss became nan in epoch 1, step 1"):
        pretrain(model, stream, None, options())
