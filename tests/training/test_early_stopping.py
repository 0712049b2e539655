from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from textclf_fast.training import EpochResult, Evaluation, History, Step, TrainingOptions, fit


def history_of(accuracies: list[float], losses: list[float] | None = None, monitor: Any = "accuracy") -> History:
    losses = losses or [1.0] * len(accuracies)
    return History(
        [
            EpochResult(epoch, [Step(epoch, 0, 1.0, 1, 1.0)], Evaluation(loss, accuracy, accuracy))
            for epoch, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True))
        ],
        monitor,
    )


@pytest.mark.parametrize(
    ("accuracies", "patience", "over"),
    [
        ([], 1, False),
        ([0.5], 1, False),
        ([0.5, 0.5], 1, True),  # as good is no better
        ([0.5, 0.4, 0.6], 2, False),
        ([0.5, 0.6, 0.5, 0.4], 2, True),
        ([0.5, 0.6, 0.5, 0.4], None, False),
    ],
)
def test_patience(accuracies: list[float], patience: int | None, over: bool) -> None:
    assert history_of(accuracies).is_over(10, patience) is over
    assert history_of(accuracies).is_over(max(1, len(accuracies)), patience) is (over or len(accuracies) > 0)


def test_the_best_by_either_measure() -> None:
    accuracies, losses = [0.5, 0.7, 0.6], [0.9, math.nan, 0.3]
    assert history_of(accuracies, losses).best.epoch == 1
    assert history_of(accuracies, losses, "loss").best.epoch == 2
    assert history_of(accuracies, [math.nan, 2.0, 1.0], "loss").best.epoch == 2


@pytest.mark.parametrize("monitor", ["accuracy", "loss"])
def test_training_stops(toy: Any, monitor: Any) -> None:
    options = TrainingOptions(epochs=40, learning_rate=0.3, batch_size=16, patience=2, monitor=monitor)
    history = fit(toy.model(), toy.data, toy.data, options)
    assert len(history.epochs) < 40
    assert history.best.epoch == len(history.epochs) - 3


@pytest.mark.parametrize("keep", ["best", "last"])
def test_which_weights_are_kept(toy: Any, keep: Any) -> None:
    model = toy.model(sparse=True)
    seen: list[torch.Tensor] = []
    options = TrainingOptions(epochs=6, learning_rate=0.3, batch_size=16, keep=keep)
    history = fit(
        model, toy.data, toy.data, options, on_epoch=lambda unused: seen.append(model.fc.weight.detach().clone())
    )
    assert history.best.epoch < 5, "the test needs a training that gets worse at the end"
    assert torch.equal(model.fc.weight, seen[history.best.epoch if keep == "best" else -1])


@pytest.mark.parametrize(
    "wrong",
    [
        {"patience": 0},
        {"monitor": "f1"},
        {"keep": "all"},
        {"clip_norm": 0.0},
        {"clip_norm": math.inf},
        {"weight_decay": -1.0},
        {"label_smoothing": 1.0},
        {"class_weights": "even"},
        {"class_weights": (1.0, -1.0)},
    ],
)
def test_bad_options(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainingOptions(**wrong)
