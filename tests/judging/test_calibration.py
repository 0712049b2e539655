from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from textclf_fast.judging.calibration import cross_entropy, cross_fitted, fit_temperature, reliability


def drawn(sharper: float, classes: int = 3, size: int = 4000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Labels drawn with the probabilities that logits say, and these logits times `sharper`."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(size, classes, generator=generator)
    return sharper * logits, torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)


def test_expected_calibration_error_by_hand() -> None:
    """Two bins: 0.4 and 0.45 in the first, both wrong; 0.6, 0.8 and 1.0 in the second, two of them right."""
    probabilities = torch.tensor(
        [[0.4, 0.3, 0.3], [0.45, 0.35, 0.2], [0.6, 0.2, 0.2], [0.8, 0.1, 0.1], [1.0, 0.0, 0.0]], dtype=torch.float64
    )
    found = reliability(probabilities.log(), torch.tensor([1, 2, 0, 1, 0]), bins=2)
    assert found.counts.tolist() == [2, 3]
    assert found.confidence == pytest.approx([0.425, 0.8])
    assert found.accuracy == pytest.approx([0, 2 / 3])
    assert found.error == pytest.approx((2 * 0.425 + 3 * (0.8 - 2 / 3)) / 5)


def test_a_probability_between_two_bins_is_of_the_lower_one() -> None:
    half = torch.zeros(1, 2)
    assert reliability(half, torch.zeros(1, dtype=torch.int64), bins=2).counts.tolist() == [1, 0]


def test_empty_bins_count_nothing() -> None:
    found = reliability(torch.tensor([[9.0, 0.0]] * 4, dtype=torch.float64), torch.zeros(4, dtype=torch.int64), bins=10)
    assert found.counts.tolist() == [0] * 9 + [4]
    assert np.isnan(found.accuracy[:9]).all()
    assert found.error == pytest.approx(1 - torch.tensor(9.0, dtype=torch.float64).sigmoid().item())


@pytest.mark.parametrize("sharper", [0.3, 1.0, 4.0])
def test_the_temperature_undoes_what_made_logits_too_sharp_or_flat(sharper: float) -> None:
    logits, labels = drawn(sharper)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(sharper, rel=0.06)
    best = cross_entropy(logits / temperature, labels)
    assert best < min(cross_entropy(logits / (temperature * factor), labels) for factor in (0.99, 1.01))


def test_calibrated_the_error_is_small() -> None:
    logits, labels = drawn(4.0)
    before = reliability(logits, labels).error
    after = reliability(logits / fit_temperature(logits, labels), labels).error
    assert before > 0.15
    assert after < 0.03


def test_all_right_is_as_sharp_as_can_be() -> None:
    logits = 3 * torch.eye(3)
    assert fit_temperature(logits, torch.arange(3)) == pytest.approx(0.05)
    assert fit_temperature(logits, torch.tensor([1, 2, 0])) == pytest.approx(20)


def test_cross_fitted_by_the_other_half() -> None:
    logits, labels = drawn(2.0, size=101)
    found = cross_fitted(logits, labels)
    assert torch.equal(found[1::2], logits[1::2] / fit_temperature(logits[::2], labels[::2]))
    assert torch.equal(found[::2], logits[::2] / fit_temperature(logits[1::2], labels[1::2]))


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), "at least one text"),
        (torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64), r"expected shapes \(n, C\) and \(n,\)"),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), r"got \(3,\)"),
    ],
)
def test_bad_input(logits: Any, labels: Any, message: str) -> None:
    for function in (reliability, fit_temperature, cross_fitted, cross_entropy):
        with pytest.raises(ValueError, match=message):
            function(logits, labels)
    with pytest.raises(ValueError, match="bins: expected at least 1, got 0"):
        reliability(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), bins=0)
    assert math.isfinite(reliability(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)).error)
