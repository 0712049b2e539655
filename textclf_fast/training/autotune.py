"""A search for good options in the time there is."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from textclf_fast.training.encoded import EncodedTexts
from textclf_fast.training.loop import train_epochs
from textclf_fast.training.options import TrainingOptions
from textclf_fast.training.results import EpochResult, Step

_KEPT = 3  # one of so many goes on to the next rung
_EPOCHS = tuple(_KEPT**rung for rung in range(4))  # 1, 3, 9, 27: what a trial has had at the end of each rung
_PATIENCE = 3
_PAUSED = 2 * _KEPT**2  # trainings that are held in memory; with fewer, a good one could be lost before its turn


@dataclass(frozen=True)
class Search:
    """What is tried: names, and the values to draw one from.

    Two floats are the ends of a range, in which numbers are drawn by their logarithms where the lower end is above 0.

    Attributes:
        model: arguments of the classifier.
        training: fields of `TrainingOptions`.
    """

    model: Mapping[str, tuple[Any, ...]] = field(
        default_factory=lambda: {
            "embedding_dim": (50, 100, 200, 300),
            "hidden_dim": (64, 128, 256),
            "num_layers": (1, 1, 2),
            "bidirectional": (False, True),
            "dropout": (0.0, 0.7),
            "embedding_dropout": (0, 0.1, 0.2),
            "embedding_std": (0.03, 1.0),
            "pooling": ("last", "max", "mean", "concat"),
        }
    )
    training: Mapping[str, tuple[Any, ...]] = field(
        default_factory=lambda: {
            "learning_rate": (3e-4, 1e-2),
            "batch_size": (16, 32, 64),
            "weight_decay": (1e-4, 1e-1),
            "label_smoothing": (0, 0, 0.1),
            "adversarial": (0, 0, 0.03),
        }
    )

    def draw(self, random: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
        """Arguments of a classifier, and fields of TrainingOptions."""
        return tuple(  # type: ignore[return-value]
            {name: _draw(values, random) for name, values in space.items()} for space in (self.model, self.training)
        )


def _draw(values: tuple[Any, ...], random: np.random.Generator) -> Any:
    if len(values) == 2 and all(isinstance(value, float) for value in values):
        low, high = values
        drawn = np.exp(random.uniform(np.log(low), np.log(high))) if low > 0 else random.uniform(low, high)
        return float(f"{drawn:.3g}")  # digits that a person can read
    return values[int(random.integers(len(values)))]


@dataclass
class Trial:
    """One choice of options, and how far it got.

    Attributes:
        number: from 0; number 0 has the defaults.
        model, training: what was chosen.
        epochs: on the data that choose.
        rung: the number of rungs that it has reached; at each, the best third goes on.
        over: it has had all epochs, or stopped early.
    """

    number: int
    model: dict[str, Any]
    training: dict[str, Any]
    epochs: list[EpochResult] = field(default_factory=list)
    rung: int = 0
    over: bool = False

    @property
    def accuracy(self) -> float:
        """That of its best epoch; 0 before the first."""
        return max((result.held_out.accuracy for result in self.epochs), default=0.0)


class Tuner:
    """Asynchronous successive halving on one machine.

    A trial is trained for 1, 3, 9, 27 epochs; at the end of each rung it waits, and goes on once it is among the best
    third of those that have got there. Where none may go on, a new one is drawn. So whenever time is up, most of it has
    gone into good trials. A trial ends early, too, after 3 epochs without a better one.

    Source: L. Li et al., A System for Massively Parallel Hyperparameter Tuning, 2020.

    Args:
        make_model: makes a classifier of a trial's ``model`` arguments.
        train, choose: the data to train on, and to choose by.
        search: what is tried.
        seed: of the trials drawn and of their training.
        on_step, on_epoch: are told of each trial's steps and epochs. What they raise ends the search.

    Attributes:
        trials: in the order of their beginning.
        best: the trial with the best epoch of all; None before the first epoch.
        weights: the state_dict of its model after that epoch.
    """

    def __init__(
        self,
        make_model: Callable[[dict[str, Any]], nn.Module],
        train: EncodedTexts,
        choose: EncodedTexts,
        search: Search | None = None,
        seed: int = 0,
        on_step: Callable[[Trial, Step], None] | None = None,
        on_epoch: Callable[[Trial, EpochResult], None] | None = None,
    ) -> None:
        self._make_model = make_model
        self._train = train
        self._choose = choose
        self._search = search or Search()
        self._seed = seed
        self._best_accuracy = 0.0
        self._time_is_up: Callable[[], bool] = lambda: False
        self._random = np.random.default_rng(seed)
        self._on_step = on_step
        self._on_epoch = on_epoch
        self._paused: dict[int, tuple[nn.Module, Iterator[EpochResult]]] = {}
        self.trials: list[Trial] = []
        self.best: Trial | None = None
        self.weights: dict[str, Tensor] = {}

    def run(self, seconds: float, stopped: Callable[[], bool] = lambda: False) -> None:
        """Searches until the time is up or `stopped` says so; the epoch in hand is given up, unless it is the first.

        Raises:
            ValueError: there is no data.
        """
        end = time.monotonic() + seconds
        self._time_is_up = lambda: stopped() or time.monotonic() >= end
        try:
            while self.best is None or not self._time_is_up():
                self._climb(self._next() or self._new())
        except _TimeIsUp:
            pass
        finally:
            for trial in self.trials:
                self._drop(trial)

    def _next(self) -> Trial | None:
        """The best trial of the highest rung that may go on."""
        for rung in reversed(range(1, len(_EPOCHS))):
            there = sorted((t for t in self.trials if t.rung >= rung), key=lambda t: -t.accuracy)
            for trial in there[: len(there) // _KEPT]:
                if trial.rung == rung and trial.number in self._paused:
                    return trial
        return None

    def _new(self) -> Trial:
        chosen = self._search.draw(self._random) if self.trials else ({}, {})
        trial = Trial(len(self.trials), *chosen)
        model = self._make_model(trial.model)
        options = TrainingOptions(
            **{"epochs": _EPOCHS[-1], "patience": _PATIENCE, "seed": self._seed, **trial.training}
        )
        self.trials.append(trial)
        self._paused[trial.number] = (
            model,
            train_epochs(model, self._train, self._choose, options, lambda step: self._after_step(trial, step)),
        )
        return trial

    def _climb(self, trial: Trial) -> None:
        """To the next rung."""
        model, training = self._paused[trial.number]
        try:
            while len(trial.epochs) < _EPOCHS[trial.rung]:
                result = next(training, None)
                if result is None:  # it has stopped early
                    break
                self._after_epoch(trial, model, result)
        except FloatingPointError:  # so high a learning rate
            trial.over = True
        trial.over = trial.over or len(trial.epochs) < _EPOCHS[trial.rung] or trial.rung + 1 == len(_EPOCHS)
        trial.rung += 1
        if trial.over:
            self._drop(trial)
        elif len(self._paused) > _PAUSED:
            self._drop(min((self.trials[number] for number in self._paused), key=lambda t: t.accuracy))

    def _after_step(self, trial: Trial, step: Step) -> None:
        if self._on_step is not None:
            self._on_step(trial, step)
        if self.best is not None and self._time_is_up():
            raise _TimeIsUp

    def _after_epoch(self, trial: Trial, model: nn.Module, result: EpochResult) -> None:
        trial.epochs.append(result)
        if self.best is None or result.held_out.accuracy > self._best_accuracy:
            self.best, self._best_accuracy = trial, result.held_out.accuracy
            self.weights = copy.deepcopy(model.state_dict())
        if self._on_epoch is not None:
            self._on_epoch(trial, result)

    def _drop(self, trial: Trial) -> None:
        if trial.number in self._paused:
            self._paused.pop(trial.number)[1].close()  # type: ignore[attr-defined]  # it is a generator


class _TimeIsUp(Exception):
    pass
