"""What a training writes down as it goes."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path
from typing import Any

from textclf_fast.training.options import TrainingOptions
from textclf_fast.training.results import EpochResult, Step

_STEPS = 50  # of which one line has the mean: some 6 lines an epoch of 10,000 texts


class TrainingLog:
    """A file of JSON objects, one a line, each with its ``event`` and ``time``; also for TensorBoard, where asked for.

    "steps" has the mean loss of 50 steps, "epoch" the evaluation, others what they are given. A training that goes on
    from a checkpoint writes on at the end: steps that were taken, lost and taken again are there twice.

    Args:
        path: the file.
        options: of the training.
        steps_per_epoch: of which there are.
        resume: add to the file instead of writing a new one.
        tensorboard: a directory for TensorBoard's event files.

    Raises:
        OSError: it cannot be written.
        ImportError: TensorBoard is asked for, and not installed.
    """

    def __init__(
        self,
        path: Path,
        options: TrainingOptions,
        steps_per_epoch: int,
        resume: bool = False,
        tensorboard: Path | None = None,
    ) -> None:
        self._options = options
        self._steps_per_epoch = steps_per_epoch
        self._losses: list[float] = []
        self._tokens = 0
        self._seconds = 0.0
        self._board = None
        if tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(tensorboard))
        cut = resume and path.exists() and not path.read_bytes().endswith(b"\n")  # a process was killed as it wrote
        self._file = path.open("a" if resume else "w", encoding="utf-8", buffering=1)
        if cut:
            self._file.write("\n")

    def write(self, event: str, **entries: Any) -> None:
        """One line."""
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
        self._file.write(json.dumps({"event": event, "time": now, **entries}, ensure_ascii=False) + "\n")

    def on_step(self, step: Step) -> None:
        """To be given to `fit`."""
        self._losses.append(step.loss)
        self._tokens += step.tokens
        self._seconds += step.seconds
        if len(self._losses) == _STEPS or step.step + 1 == self._steps_per_epoch:
            number = step.epoch * self._steps_per_epoch + step.step
            factor = self._options.schedule.factor(number, self._options.epochs * self._steps_per_epoch)
            numbers = {
                "loss": sum(self._losses) / len(self._losses),
                "learning_rate": self._options.learning_rate * factor,
                "tokens_per_second": self._tokens / self._seconds,
            }
            self.write("steps", epoch=step.epoch + 1, step=step.step + 1, steps=len(self._losses), **numbers)
            self._to_board("train", numbers, number + 1)
            self._losses, self._tokens, self._seconds = [], 0, 0.0

    def on_epoch(self, result: EpochResult) -> None:
        """To be given to `fit`."""
        self.write("epoch", epoch=result.epoch + 1, **epoch_record(result))
        numbers = dataclasses.asdict(result.held_out)
        self._to_board("held_out", numbers, (result.epoch + 1) * self._steps_per_epoch)

    def _to_board(self, group: str, numbers: dict[str, float], step: int) -> None:
        if self._board is not None:
            for name, number in numbers.items():
                self._board.add_scalar(f"{group}/{name}", number, step)

    def close(self) -> None:
        """Nothing can be written after it."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def epoch_record(result: EpochResult) -> dict[str, Any]:
    """An epoch as JSON has it."""
    return {
        "loss": result.loss,
        "held_out": dataclasses.asdict(result.held_out),
        "seconds": result.seconds,
        "tokens_per_second": result.tokens_per_second,
    }
