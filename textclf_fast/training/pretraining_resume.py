"""A pre-training that goes on after it was stopped or killed, to the same bits; and what there is of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textclf_fast.models import LanguageModel
from textclf_fast.nn.lstm import States
from textclf_fast.text import DataError
from textclf_fast.training.checkpoint_file import (
    CheckpointFile,
    capture_weights,
    check_about,
    read_checkpoint,
    restore_moments,
    restore_weights,
    write_checkpoint,
)


@dataclass(frozen=True)
class PretrainingStep:
    """One update: its epoch (from 0), how much of the training is over (0 to 1), loss, tokens, and seconds."""

    epoch: int
    done: float
    loss: float
    tokens: int
    seconds: float


@dataclass(frozen=True)
class PretrainingEpoch:
    """An epoch (from 0), whole or cut short: mean loss, tokens and seconds; the perplexity on held-out texts."""

    epoch: int
    loss: float
    tokens: int
    seconds: float
    perplexity: float | None


@dataclass
class PretrainingState:
    """All that changes while a language model is trained.

    Attributes:
        model, optimizer: what is trained, and by what.
        epochs: those that are over.
        steps: those of the epoch that has begun.
        states: of the LSTM after the last of them.
        seconds: since the training began, without the time between a stop and going on.
        rng: the state of torch's generator, where a training is to go on.
    """

    model: LanguageModel
    optimizer: torch.optim.Optimizer
    epochs: list[PretrainingEpoch] = field(default_factory=list)
    steps: list[PretrainingStep] = field(default_factory=list)
    states: States | None = None
    seconds: float = 0.0
    rng: Tensor | None = None


class PretrainingCheckpoints(CheckpointFile):
    """Where `pretrain` writes what it needs to go on, and when: after each epoch, and when it is told to stop.

    As :class:`textclf_fast.training.Checkpoints` of a classifier's training. What ends after some minutes ends
    elsewhere each time, whether it was stopped or not.

    Its arguments are those of :class:`textclf_fast.training.checkpoint_file.CheckpointFile`.
    """

    _state: PretrainingState  # from `begin` on

    def begin(self, state: PretrainingState, options: Mapping[str, Any], data: tuple[NDArray[Any] | None, ...]) -> None:
        """Binds them to a training, which goes on where the file says.

        Raises:
            DataError: the file cannot be read, or is of another training. The message says what differs.
        """
        self._state = state
        digest = hashlib.sha256()
        for part in data:
            digest.update(b"" if part is None else np.ascontiguousarray(part).data)
        self._about = {
            **options,
            **{f"model.{name}": value for name, value in json.loads(json.dumps(state.model.config)).items()},
            "data": digest.hexdigest(),
        }
        if self._goes_on():
            _restore(self.path, state, self._about)
            self._tell(len(state.epochs), len(state.steps))

    def after_step(self, stop: bool) -> None:
        """Writes one where it is time to, or training stops."""
        if stop or self._is_due(len(self._state.steps)):
            self.write()

    def write(self) -> None:
        """Writes one now.

        Raises:
            OSError: the disk is full, or the like. The one before is there still.
        """
        state = self._state
        tensors = capture_weights(state.model, state.optimizer)
        tensors["rng"] = torch.get_rng_state()
        if state.states is not None:
            tensors["states.h"], tensors["states.c"] = state.states
        entries = {
            "epochs": [dataclasses.asdict(epoch) for epoch in state.epochs],
            "steps": [dataclasses.astuple(step) for step in state.steps],
            "seconds": state.seconds,
            "about": self._about,
        }
        write_checkpoint(self.path, tensors, entries)


def _restore(path: Path, state: PretrainingState, about: Mapping[str, Any]) -> None:
    tensors, entries = read_checkpoint(path)
    check_about(path, entries.get("about"), about)
    try:
        restore_weights(state.model, tensors)
        restore_moments(state.model, state.optimizer, tensors)
        state.epochs = [PretrainingEpoch(**epoch) for epoch in entries["epochs"]]
        state.steps = [PretrainingStep(*step) for step in entries["steps"]]
        if state.steps:
            state.states = tensors["states.h"].clone(), tensors["states.c"].clone()
        state.seconds = float(entries["seconds"])
        state.rng = tensors["rng"].clone()
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{path}: is not a checkpoint of this language model: {error}") from error
