"""The sampled softmax: exact with all words, and with the right expectation with some of them."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from textclf_fast.models.sampled_softmax import Candidates, sampled_cross_entropy


def problem(vocab_size: int, positions: int = 40) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    vectors, weight = torch.randn(positions, 8, dtype=torch.float64), torch.randn(vocab_size, 8, dtype=torch.float64)
    return vectors, torch.randint(vocab_size, (positions,)), weight, torch.randn(vocab_size, dtype=torch.float64)


def test_all_words_are_the_exact_loss() -> None:
    vectors, targets, weight, bias = (tensor.requires_grad_(tensor.is_floating_point()) for tensor in problem(30))
    candidates = Candidates.draw(30, 10, 20)
    assert candidates.ids.tolist() == list(range(30))
    loss = sampled_cross_entropy(vectors, targets, weight, bias, candidates)
    exact = functional.cross_entropy(functional.linear(vectors, weight, bias), targets)
    torch.testing.assert_close(loss, exact)
    for ours, theirs in zip(
        torch.autograd.grad(loss, (vectors, weight, bias)),
        torch.autograd.grad(exact, (vectors, weight, bias)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_the_sum_has_the_right_expectation() -> None:
    """The mean, over many samples, of the sum of exp(score) is that over the vocabulary, to within 5 deviations."""
    vectors, targets, weight, bias = problem(300, positions=1)
    scores = functional.linear(vectors, 0.3 * weight, bias)[0]
    own = scores[targets[0]]
    sums = []
    for _ in range(400):
        loss = sampled_cross_entropy(vectors, targets, 0.3 * weight, bias, Candidates.draw(300, 20, 60))
        sums.append((loss + own).exp())
    sums = torch.stack(sums)
    assert abs(sums.mean() - scores.exp().sum()) < 5 * sums.std() / 20
    assert sums.std() > 0  # they were samples


@pytest.mark.parametrize("place", [20, 25, 100, 299])
def test_a_word_is_drawn_as_often_as_its_weight_says(place: int) -> None:
    torch.manual_seed(0)
    draws = [Candidates.draw(300, 20, 100) for _ in range(500)]
    counts = torch.tensor([float((draw.ids == place).sum()) for draw in draws])
    weight = next(draw.log_weights[draw.ids == place][0] for draw in draws if place in draw.ids)
    expected = (-weight).exp()
    assert abs(counts.mean() - expected) < 5 * (expected / 500).sqrt()
    assert all(draw.ids[:20].tolist() == list(range(20)) for draw in draws)
    assert all((draw.log_weights[:20] == 0).all() for draw in draws)


@pytest.mark.parametrize(("frequent", "samples", "name"), [(0, 5, "frequent"), (5, 0, "samples")])
def test_bad_numbers(frequent: int, samples: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        Candidates.draw(100, frequent, samples)
