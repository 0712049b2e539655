"""A training that goes on after it was stopped or killed, to the same bits."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from textclf_fast.optim import DeferredAdam
from textclf_fast.text import DataError
from textclf_fast.training.checkpoint_file import (
    CheckpointFile,
    capture_weights,
    check_about,
    part_of,
    read_checkpoint,
    restore_moments,
    restore_weights,
    write_checkpoint,
)
from textclf_fast.training.distributed import Ranks
from textclf_fast.training.encoded import EncodedTexts
from textclf_fast.training.interrupts import StopSignals
from textclf_fast.training.options import TrainingOptions
from textclf_fast.training.results import EpochResult, Evaluation, History, Step


@dataclass
class TrainingState:
    """All that changes while a model is trained.

    Attributes:
        model, optimizer: what is trained, and by what.
        history: the epochs that are over.
        steps: those of the epoch that has begun.
        best: the model's state_dict after its best epoch; empty where nobody asks for it.
        rng: the state of torch's generator, where an epoch that has begun is to go on.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    history: History
    steps: list[Step] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    rng: Tensor | None = None

    @property
    def steps_taken(self) -> int:
        """Of all epochs."""
        return sum(len(result.steps) for result in self.history.epochs) + len(self.steps)


class Checkpoints(CheckpointFile):
    """Where `fit` writes what it needs to go on, and when: after each epoch, and when it is asked to stop.

    A checkpoint is one file of safetensors and JSON, replaced as a whole. It changes nothing in the training: with as
    many threads, processes and the same instruction set, one that went on from it ends with the bits of one that was
    never stopped. (On CUDA, in the middle of an epoch, dropout goes on otherwise: its generator is not kept.) SIGINT
    and SIGTERM end the training after the step that is being computed, and with a checkpoint.

    Its arguments are those of :class:`textclf_fast.training.checkpoint_file.CheckpointFile`.
    """

    _state: TrainingState  # from `begin` on
    _ranks: Ranks
    _signals: StopSignals

    def begin(
        self, state: TrainingState, options: TrainingOptions, data: tuple[EncodedTexts, ...], ranks: Ranks
    ) -> StopSignals:
        """Binds them to a training, which goes on where the file says; to be entered while it runs.

        Raises:
            DataError: the file cannot be read, or is of another training. The message says what differs.
        """
        self._state = state
        self._ranks = ranks
        self._signals = StopSignals()
        config = getattr(state.model, "config", {})  # dropout and the like, which no weight shows
        self._about = {
            **json.loads(json.dumps(dataclasses.asdict(options))),
            **{f"model.{name}": value for name, value in json.loads(json.dumps(config)).items()},
            "processes": ranks.size,
            "data": fingerprint(*data),
        }
        if self._goes_on():
            _restore(self.path, state, self._about, ranks)
            self._tell(len(state.history.epochs), len(state.steps))
        return self._signals

    def after_step(self) -> None:
        """Writes one where it is time to, or to stop.

        Raises:
            KeyboardInterrupt, SystemExit: see `StopSignals.stop`.
            OSError: it cannot be written. The one before is there still.
        """
        asked = self._signals.asked
        if self._ranks.size > 1:  # all of them stop, and after the same step
            asked = int(self._ranks.sum(torch.tensor([float(asked)], dtype=torch.float64)))
        if asked or self._is_due(self._state.steps_taken):
            self.write()
        if asked:
            self._signals.stop()

    def write(self) -> None:
        """Writes one now.

        Raises:
            OSError: the disk is full, or the like. The one before is there still.
        """
        rng = self._ranks.gather(torch.get_rng_state())  # of each process
        if self._ranks.rank == 0:
            tensors, entries = _capture(self._state, rng)
            write_checkpoint(self.path, tensors, {**entries, "about": self._about})


def fingerprint(*data: EncodedTexts) -> str:
    """A hash of texts, labels, weights and probabilities."""
    digest = hashlib.sha256()
    for part in data:
        for array in (part.tokens.offsets, part.tokens.values, part.labels.numpy()):
            digest.update(array.tobytes())
        for numbers in (part.weights, part.probabilities):
            if numbers is not None:
                digest.update(numbers.numpy().tobytes())
    return digest.hexdigest()


def _capture(state: TrainingState, rng: Tensor) -> tuple[dict[str, Tensor], dict[str, Any]]:
    names: dict[Tensor, str] = {parameter: name for name, parameter in state.model.named_parameters()}
    tensors = capture_weights(state.model, state.optimizer)
    tensors.update({f"best.{name}": tensor for name, tensor in state.best.items()})
    if isinstance(state.optimizer, DeferredAdam):
        for parameter, (history, done) in state.optimizer.backlog().items():
            tensors[f"backlog.{names[parameter]}.history"] = history
            tensors[f"backlog.{names[parameter]}.done"] = done
    steps = [*(step for result in state.history.epochs for step in result.steps), *state.steps]
    tensors["steps.loss"] = torch.tensor([step.loss for step in steps], dtype=torch.float64)
    tensors["steps.tokens"] = torch.tensor([step.tokens for step in steps], dtype=torch.int64)
    tensors["steps.seconds"] = torch.tensor([step.seconds for step in steps], dtype=torch.float64)
    tensors["rng"] = rng
    entries = {
        "epochs": [
            {"steps": len(result.steps), "held_out": dataclasses.asdict(result.held_out)}
            for result in state.history.epochs
        ]
    }
    return tensors, entries


def _restore(path: Path, state: TrainingState, about: Mapping[str, Any], ranks: Ranks) -> None:
    tensors, entries = read_checkpoint(path)
    check_about(path, entries.get("about"), about)
    try:
        restore_weights(state.model, tensors)
        state.best = part_of(tensors, "best.")
        _restore_optimizer(state, tensors)
        _restore_steps(state, tensors, entries)
        state.rng = tensors["rng"][ranks.rank].clone()
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{path}: is not a checkpoint of this model: {error}") from error


def _restore_optimizer(state: TrainingState, tensors: Mapping[str, Tensor]) -> None:
    restore_moments(state.model, state.optimizer, tensors)
    if isinstance(state.optimizer, DeferredAdam):
        parameters = dict(state.model.named_parameters())
        names = {key.split(".", 1)[1].rsplit(".", 1)[0] for key in tensors if key.startswith("backlog.")}
        state.optimizer.resume(
            {
                parameters[name]: (tensors[f"backlog.{name}.history"], tensors[f"backlog.{name}.done"])
                for name in sorted(names)
            }
        )


def _restore_steps(state: TrainingState, tensors: Mapping[str, Tensor], entries: Mapping[str, Any]) -> None:
    numbers = zip(*(tensors[f"steps.{name}"].tolist() for name in ("loss", "tokens", "seconds")), strict=True)
    for epoch, entry in enumerate(entries["epochs"]):
        steps = [Step(epoch, place, *next(numbers)) for place in range(entry["steps"])]
        state.history.epochs.append(EpochResult(epoch, steps, Evaluation(**entry["held_out"])))
    epoch = len(state.history.epochs)
    state.steps = [Step(epoch, place, *rest) for place, rest in enumerate(numbers)]
