from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from textclf_fast import TextClassifier
from textclf_fast.training import TrainingOptions, evaluate
from textclf_fast.training.autotune import Search, Trial, Tuner

SMALL = Search({"hidden_dim": (4, 8)}, {"learning_rate": (1e-4, 1e-1), "batch_size": (20, 50)})


def tuner_of(toy: Any, search: Search = SMALL, **callbacks: Any) -> Tuner:
    def make_model(chosen: dict[str, Any]) -> TextClassifier:
        torch.manual_seed(0)
        return TextClassifier(len(toy.vocabulary), 8, output_dim=2, sparse=True, **{"hidden_dim": 8, **chosen})

    return Tuner(make_model, toy.data, toy.data, search, **callbacks)


def test_without_time_there_is_one_epoch_of_the_defaults(toy: Any) -> None:
    tuner = tuner_of(toy)
    tuner.run(0)
    (trial,) = tuner.trials
    assert tuner.best is trial
    assert (trial.model, trial.training, len(trial.epochs)) == ({}, {}, 1)


def test_the_best_third_goes_on(toy: Any) -> None:
    epochs: list[int] = []
    tuner = tuner_of(toy, on_epoch=lambda trial, result: epochs.append(trial.number))
    tuner.run(600, lambda: len(epochs) >= 40)
    assert len(epochs) == 40
    lengths = [len(trial.epochs) for trial in tuner.trials]
    for rung, length in ((2, 3), (3, 9)):
        gone_on = [trial for trial in tuner.trials if trial.rung >= rung]
        assert gone_on
        # A third of those that were there at the time; not all are among the best of those that came later.
        assert len(gone_on) <= len([trial for trial in tuner.trials if trial.rung >= rung - 1]) / 3
        assert all(len(trial.epochs) >= length or trial.over for trial in gone_on)
    assert lengths.count(1) > len(lengths) / 2
    best = max(tuner.trials, key=lambda trial: trial.accuracy)
    assert tuner.best is not None
    assert tuner.best.accuracy == best.accuracy
    # The weights are those of that epoch.
    model = tuner._make_model(tuner.best.model)
    model.load_state_dict(tuner.weights)
    assert evaluate(model, toy.data).accuracy == best.accuracy


def test_a_step_is_soon_enough_to_stop(toy: Any) -> None:
    steps: list[Trial] = []
    tuner = tuner_of(toy, on_step=lambda trial, step: steps.append(trial))
    tuner.run(600, lambda: len(steps) >= 9)  # an epoch of the first trial has 7 steps
    assert len(steps) == 9
    assert [len(trial.epochs) for trial in tuner.trials] == [1, 0]


def test_a_trial_that_diverges_is_over(toy: Any) -> None:
    epochs: list[int] = []
    search = Search({}, {"learning_rate": (1e30, 1e35)})
    tuner = tuner_of(toy, search, on_epoch=lambda trial, result: epochs.append(trial.number))
    tuner.run(600, lambda: len(tuner.trials) > 3)
    assert [trial.over for trial in tuner.trials[1:3]] == [True, True]
    assert tuner.best is tuner.trials[0]


def test_same_seed_same_trials(toy: Any) -> None:
    found = []
    for seed in (0, 0, 1):
        tuner = tuner_of(toy, seed=seed)
        tuner.run(600, lambda tuner=tuner: len(tuner.trials) >= 4)
        found.append([(trial.model, trial.training) for trial in tuner.trials])
    assert found[0] == found[1] != found[2]


def test_what_is_drawn() -> None:
    random = np.random.default_rng(0)
    drawn = [Search().draw(random) for _ in range(300)]
    rates = [training["learning_rate"] for _, training in drawn]
    assert 3e-4 <= min(rates) < 4e-4 < 8e-3 < max(rates) <= 1e-2
    assert np.median(rates) == pytest.approx(math.sqrt(3e-4 * 1e-2), rel=0.3), "uniform in the logarithm"
    assert {model["num_layers"] for model, _ in drawn} == {1, 2}
    assert 0 <= min(model["dropout"] for model, _ in drawn) < 0.05
    for model, training in drawn[:50]:
        TrainingOptions(**training)
        TextClassifier(10, output_dim=2, **model)
