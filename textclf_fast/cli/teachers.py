"""The teachers of `train --unlabelled`: classifiers that guess the labels of texts without one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import torch
from rich.console import Console

from textclf_fast.cli.beginnings import Beginning
from textclf_fast.cli.inputs import Inputs
from textclf_fast.models import Classifier
from textclf_fast.text import RaggedTokens
from textclf_fast.training import TrainingOptions
from textclf_fast.training.distributed import Ranks
from textclf_fast.training.progress import TrainingProgress
from textclf_fast.training.self_training import Guesses
from textclf_fast.training.transfer import fit_by_layers


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
    train, held_out = inputs.parts
    for number in range(1, count + 1):
        own = dataclasses.replace(options, seed=options.seed + number)
        model, layers = begin(inputs, own.seed)
        with TrainingProgress(own.epochs, -(-len(train) // own.batch_size), console) as progress:
            history = fit_by_layers(model, train, held_out, own, layers, progress.on_step, ranks=ranks)
        say(f"teacher {number}/{count}: held-out accuracy {history.kept(own.keep).held_out.accuracy:.1%}")
        yield model


def shared_guesses(found: Guesses | None, tokens: RaggedTokens, ranks: Ranks) -> Guesses | None:
    """What the first process has found of these texts, for all of them; the others have found nothing."""
    numbers = torch.zeros(3, len(tokens), dtype=torch.float64)
    if found is not None:
        numbers = torch.stack([torch.ones(len(tokens)).double(), found.labels.double(), found.confidence])
    there, labels, confidence = ranks.sum(numbers)
    return Guesses(tokens, labels.long(), confidence) if there.any() else None
