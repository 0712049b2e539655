"""The file that a training goes on from: safetensors and JSON, replaced as a whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from textclf_fast.text import DataError
from textclf_fast.text.files import whole_file

_FORMAT = "textclf_fast checkpoint"
_FORMAT_VERSION = "1"


class CheckpointFile:
    """Where a training writes what it needs to go on, how often, and whether it is to go on from there.

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
        self._about: dict[str, Any] = {}  # the training: its options, model and data

    def _goes_on(self) -> bool:
        return self._resume and self.path.exists()

    def _is_due(self, steps: int) -> bool:
        return self._every is not None and steps % self._every == 0

    def _tell(self, epoch: int, step: int) -> None:
        if self._on_resume is not None:
            self._on_resume(epoch, step)


def capture_weights(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> dict[str, Tensor]:
    """Weights and an optimizer's moments, by names that say which is which; it is Adam, or has no state."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    tensors = {f"model.{name}": tensor for name, tensor in _own_tensors(model).items()}
    for parameter, moments in optimizer.state.items() if optimizer is not None else ():
        tensors.update({f"optimizer.{names[parameter]}.{key}": tensor for key, tensor in moments.items()})
    return tensors


def restore_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Fills a model with what `capture_weights` took.

    Raises:
        ValueError: the model has others.
    """
    _fill(_own_tensors(model), part_of(tensors, "model."))


def restore_moments(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """As `restore_weights`, for an Adam."""
    for name, parameter in model.named_parameters():
        moments = {
            key: part_of(tensors, f"optimizer.{name}.")[key]
            for key in ("step", "exp_avg", "exp_avg_sq")
            if f"optimizer.{name}.{key}" in tensors
        }
        if moments:
            if any(moments[key].shape != parameter.shape for key in ("exp_avg", "exp_avg_sq")):
                raise ValueError(f"the moments of {name} are of shape {tuple(moments['exp_avg'].shape)}")
            optimizer.state[parameter] = moments


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Copies, in memory that is aligned as torch's: some kernels' sums depend on that."""
    return {name.removeprefix(prefix): t.clone() for name, t in tensors.items() if name.startswith(prefix)}


def check_about(path: Path, found: Any, expected: Mapping[str, Any]) -> None:
    """Compares what a checkpoint says of its training with the one that is to go on.

    Raises:
        DataError: it is another one. The message says what differs.
    """
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


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], entries: Mapping[str, Any]) -> None:
    """Replaces the file.

    Raises:
        OSError: it cannot be written. The one before is there still.
    """
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


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_checkpoint` was given.

    Raises:
        DataError: it cannot be read, or is no checkpoint.
    """
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


def _own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers as they are: a state_dict would bring deferred rows up to date."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@torch.no_grad()
def _fill(targets: Mapping[str, Tensor], sources: Mapping[str, Tensor]) -> None:
    if targets.keys() != sources.keys():
        raise ValueError(f"expected weights {sorted(targets)}, got {sorted(sources)}")
    for name, target in targets.items():
        if target.shape != sources[name].shape:
            raise ValueError(f"{name}: expected shape {tuple(target.shape)}, got {tuple(sources[name].shape)}")
        target.copy_(sources[name])
