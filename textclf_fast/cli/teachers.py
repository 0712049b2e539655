"""The teachers of `train --unlabelled`: classifiers that guess the labels of texts without one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from rich.console import Console

from textclf_fast.cli.beginnings import Beginning
from textclf_fast.cli.inputs import Inputs
from textclf_fast.models import Classifier
from textclf_fast.training import EpochResult, History, Step, TrainingOptions, fit
from textclf_fast.training.distributed import Ranks
from textclf_fast.training.progress import TrainingProgress
from textclf_fast.training.transfer import LayerwiseTraining


def trained_teachers(
    begin: Beginning,
    inputs: Inputs,
    options: TrainingOptions,
    count: int,
    ranks: Ranks,
    console: Console,
    say: Callable[[str], None],
) -> Iterator[Classifier]:
    """Each is trained when it is asked for, with a seed of its own, and said how good it is."""
    for number in range(1, count + 1):
        own = dataclasses.replace(options, seed=options.seed + number)
        model, layers = begin(own.seed)
        with TrainingProgress(own.epochs, -(-len(inputs.parts[0]) // own.batch_size), console) as progress:
            history = _fit(model, inputs, own, layers, ranks, progress.on_step)
        say(f"teacher {number}/{count}: held-out accuracy {history.kept(own.keep).held_out.accuracy:.1%}")
        yield model


def _fit(
    model: Classifier,
    inputs: Inputs,
    options: TrainingOptions,
    layers: LayerwiseTraining | None,
    ranks: Ranks,
    on_step: Callable[[Step], None],
) -> History:
    train, held_out = inputs.parts
    if layers is None:
        return fit(model, train, held_out, options, on_step, ranks=ranks)

    def on_epoch(result: EpochResult) -> None:
        layers.begin_epoch(result.epoch + 1)

    layers.begin_epoch(0)
    return fit(model, train, held_out, options, on_step, on_epoch, optimizer=layers.optimizer, ranks=ranks)
