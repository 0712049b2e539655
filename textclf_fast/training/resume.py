"""A training that goes on after it was stopped or killed, to the same bits."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from textclf_fast.optim import DeferredAdam
from textclf_fast.text import DataError
from textclf_fast.text.files import whole_file
from textclf_fast.training.distributed import ALONE, Ranks
from textclf_fast.training.encoded import EncodedTexts
from textclf_fast.training.interrupts import StopSignals
from textclf_fast.training.options import TrainingOptions
from textclf_fast.training.results import EpochResult, Evaluation, History, Step

_FORMAT = "textclf_fast checkpoint"
_FORMAT_VERSION = "1"


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


class Checkpoints:
    """Where `fit` writes what it needs to go on, and when: after each epoch, and when it is asked to stop.

    A checkpoint is one file of safetensors and JSON, replaced as a whole. It changes nothing in the training: with as
    many threads, processes and the same instruction set, one that went on from it ends with the bits of one that was
    never stopped. (On CUDA, in the middle of an epoch, dropout goes on otherwise: its generator is not kept.) SIGINT
    and SIGTERM end the training after the step that is being computed, and with a checkpoint.

    Args:
        path: the file.
        every: also after so many steps.
        resume: go on from the file, if it is there.
        on_resume: is told the epoch and the step, both from 0, at which it goes on.

    Raises:
        ValueError: `every` below 1.
    """

    def __init__(
        self,
        path: str | Path,
        every: int | None = None,
        resume: bool = False,
        on_resume: Callable[[int, int], None] | None = None,
    ) -> None:
        if every is not None and every < 1:
            raise ValueError(f"every: expected at least 1, got {every}")
        self.path = Path(path)
        self._every = every
        self._resume = resume
        self._on_resume = on_resume
        self._state: TrainingState
        self._about: dict[str, Any] = {}
        self._ranks: Ranks = ALONE
        self._signals = StopSignals()

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
        if self._resume and self.path.exists():
            _restore(self.path, state, self._about, ranks)
            if self._on_resume is not None:
                self._on_resume(len(state.history.epochs), len(state.steps))
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
        if asked or (self._every is not None and self._state.steps_taken % self._every == 0):
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
            _write(self.path, tensors, {**entries, "about": self._about})


def fingerprint(*data: EncodedTexts) -> str:
    """A hash of texts, labels and weights."""
    digest = hashlib.sha256()
    for part in data:
        for array in (part.tokens.offsets, part.tokens.values, part.labels.numpy()):
            digest.update(array.tobytes())
        if part.weights is not None:
            digest.update(part.weights.numpy().tobytes())
    return digest.hexdigest()


def _own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers as they are: a state_dict would bring deferred rows up to date."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _capture(state: TrainingState, rng: Tensor) -> tuple[dict[str, Tensor], dict[str, Any]]:
    names: dict[Tensor, str] = {parameter: name for name, parameter in state.model.named_parameters()}
    tensors = {f"model.{name}": tensor for name, tensor in _own_tensors(state.model).items()}
    tensors.update({f"best.{name}": tensor for name, tensor in state.best.items()})
    for parameter, moments in state.optimizer.state.items():
        tensors.update({f"optimizer.{names[parameter]}.{key}": tensor for key, tensor in moments.items()})
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
    tensors, entries = _read(path)
    _check_about(path, entries.get("about"), about)
    try:
        _fill(_own_tensors(state.model), _part(tensors, "model."))
        state.best = _part(tensors, "best.")
        _restore_optimizer(state, tensors)
        _restore_steps(state, tensors, entries)
        state.rng = tensors["rng"][ranks.rank].clone()
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{path}: is not a checkpoint of this model: {error}") from error


def _restore_optimizer(state: TrainingState, tensors: Mapping[str, Tensor]) -> None:
    for name, parameter in state.model.named_parameters():
        moments = {
            key: _part(tensors, f"optimizer.{name}.")[key]
            for key in ("step", "exp_avg", "exp_avg_sq")
            if f"optimizer.{name}.{key}" in tensors
        }
        if moments:
            if any(moments[key].shape != parameter.shape for key in ("exp_avg", "exp_avg_sq")):
                raise ValueError(f"the moments of {name} are of shape {tuple(moments['exp_avg'].shape)}")
            state.optimizer.state[parameter] = moments
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


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Copies, in memory that is aligned as torch's: some kernels' sums depend on that."""
    return {name.removeprefix(prefix): t.clone() for name, t in tensors.items() if name.startswith(prefix)}


@torch.no_grad()
def _fill(targets: Mapping[str, Tensor], sources: Mapping[str, Tensor]) -> None:
    if targets.keys() != sources.keys():
        raise ValueError(f"expected weights {sorted(targets)}, got {sorted(sources)}")
    for name, target in targets.items():
        if target.shape != sources[name].shape:
            raise ValueError(f"{name}: expected shape {tuple(target.shape)}, got {tuple(sources[name].shape)}")
        target.copy_(sources[name])


def _check_about(path: Path, found: Any, expected: Mapping[str, Any]) -> None:
    if not isinstance(found, dict):
        raise DataError(f"{path}: not a checkpoint: there is no word of its training")
    for name in [*expected, *found]:
        if found.get(name) != expected.get(name):
            if name == "data":
                raise DataError(f"{path}: is of a training on other texts, labels or weights, or another vocabulary")
            raise DataError(
                f"{path}: is of a training with {name} {found.get(name)}, not {expected.get(name)}: a training goes on "
                "with the options that it began with"
            )


def _write(path: Path, tensors: Mapping[str, Tensor], entries: Mapping[str, Any]) -> None:
    from safetensors.torch import save

    # Copies: safetensors refuses tensors that share memory, as some users tie weights.
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"format": _FORMAT, "format_version": _FORMAT_VERSION, "entries": json.dumps(entries)}
    content = save(copies, metadata)
    try:
        with whole_file(path) as file:
            file.write(content)
    except OSError as error:
        raise OSError(
            f"{path}: this checkpoint could not be written ({error.strerror or error}); the one before it is whole"
            if path.exists()
            else f"{path}: this checkpoint could not be written ({error.strerror or error})"
        ) from error


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise DataError(f"{path}: not a {_FORMAT}")
            if metadata.get("format_version") != _FORMAT_VERSION:
                raise DataError(
                    f"{path}: is of format version {metadata.get('format_version')}, expected {_FORMAT_VERSION}: it "
                    "needs another version of textclf_fast"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            entries = json.loads(metadata["entries"])
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read, or is cut short: {error}") from error
    except (KeyError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not a checkpoint: {error}") from error
    return tensors, entries
