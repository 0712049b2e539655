from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from textclf_fast.training import Schedule, TrainingOptions, train_epochs


@pytest.mark.parametrize("steps", [2, 7, 100])
def test_one_cycle_is_pytorchs(steps: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=steps, cycle_momentum=False)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step() if len(rates) < steps else None
    assert [Schedule("one-cycle").factor(step, steps) for step in range(steps)] == pytest.approx(rates)


def test_every_group_has_its_own_peak(toy: Any) -> None:
    model = toy.model()
    optimizer = torch.optim.Adam(
        [{"params": model.encoder.parameters(), "lr": 0.1}, {"params": model.fc.parameters(), "lr": 0.4}]
    )
    seen: list[list[float]] = []
    schedule = Schedule("one-cycle")
    options = TrainingOptions(epochs=2, batch_size=40, schedule=schedule)
    rates = lambda unused: seen.append([group["lr"] for group in optimizer.param_groups])  # noqa: E731
    list(train_epochs(model, toy.data, toy.data, options, rates, optimizer))
    factors = [schedule.factor(step, 10) for step in range(10)]
    assert seen == [pytest.approx([0.1 * factor, 0.4 * factor]) for factor in factors]


def test_constant_leaves_the_rates_to_the_caller(toy: Any) -> None:
    model = toy.model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)

    def change(unused: Any) -> None:
        optimizer.param_groups[0]["lr"] *= 0.5

    list(train_epochs(model, toy.data, toy.data, TrainingOptions(epochs=1, batch_size=100), change, optimizer))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.025)


@pytest.mark.parametrize("wrong", [{"kind": "zigzag"}, {"warmup": 1.0}, {"start": -0.1}, {"end": 2.0}])
def test_bad_numbers(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Schedule(**wrong)
