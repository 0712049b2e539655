"""The teachers of `train`: who guesses the labels of texts without one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from rich.console import Console

from textclf_fast.cli.beginnings import Beginning
from textclf_fast.cli.distilling import quiet
from textclf_fast.cli.inputs import Inputs
from textclf_fast.models import Classifier
from textclf_fast.text import ENCODERS, RaggedTokens
from textclf_fast.text.catalogue import cited
from textclf_fast.training import TrainingOptions
from textclf_fast.training.distributed import Ranks
from textclf_fast.training.encoder_teacher import EncoderTeacher, FineTuningOptions
from textclf_fast.training.progress import TrainingProgress, counting
from textclf_fast.training.self_training import Guesses, guess
from textclf_fast.training.transfer import fit_by_layers

Say = Callable[[str], None]


class Teachers(Protocol):
    """Who has learnt from the texts with labels, and is asked about others.

    Attributes:
        soft: as in `with_guesses`, how one learns from them.
        about: who they are, for the model's card and for a training that goes on.
    """

    soft: bool
    about: dict[str, Any]

    def guess(
        self, inputs: Inputs, texts: Sequence[str], tokens: RaggedTokens, ranks: Ranks, console: Console, say: Say
    ) -> Guesses:
        """What they say of these texts, which are given as tokens, too: trained first; by all processes."""


class OwnKind:
    """Models like the one that learns from them, each with a seed of its own.

    Args:
        begin: what each begins with.
        options: of their training.
        count: how many there are.
    """

    soft = False

    def __init__(self, begin: Beginning, options: TrainingOptions, count: int) -> None:
        self._begin = begin
        self._options = options
        self._count = count
        self.about: dict[str, Any] = {"teachers, whose guesses are their labels": count}

    def guess(
        self, inputs: Inputs, texts: Sequence[str], tokens: RaggedTokens, ranks: Ranks, console: Console, say: Say
    ) -> Guesses:
        """See `Teachers`."""
        return guess(self._trained(inputs, ranks, console, say), tokens)

    def _trained(self, inputs: Inputs, ranks: Ranks, console: Console, say: Say) -> Iterator[Classifier]:
        """Each is trained when it is asked for, and said how good it is."""
        train, held_out = inputs.parts
        for number in range(1, self._count + 1):
            own = dataclasses.replace(self._options, seed=self._options.seed + number)
            model, layers = self._begin(inputs, own.seed)
            with TrainingProgress(own.epochs, -(-len(train) // own.batch_size), console) as progress:
                history = fit_by_layers(model, train, held_out, own, layers, progress.on_step, ranks=ranks)
            say(f"teacher {number}/{self._count}: held-out accuracy {history.kept(own.keep).held_out.accuracy:.1%}")
            yield model


class Encoders:
    """A sentence encoder, trained on with the labels; or several, each with a seed of its own.

    Args:
        encoder: a name or a directory, as `sentence_vectors` takes it.
        texts: of each part of the inputs, the one to train on first.
        options: of their training.
        count: how many there are.
    """

    soft = True

    def __init__(self, encoder: str, texts: Sequence[Sequence[str]], options: FineTuningOptions, count: int) -> None:
        self._encoder = encoder
        self._texts = texts
        self._options = options
        self._count = count
        self.about: dict[str, Any] = {
            "teacher, whose probabilities are their labels": cited(encoder, ENCODERS),
            "how often it saw the texts to train on": options.epochs_of(len(texts[0])),
            "teachers": count,
        }

    def guess(
        self, inputs: Inputs, texts: Sequence[str], tokens: RaggedTokens, ranks: Ranks, console: Console, say: Say
    ) -> Guesses:
        """See `Teachers`. Each process trains all of them, to the same weights, and asks them about its part."""

        def ask(rows: list[int]) -> torch.Tensor:
            mine = [texts[row] for row in rows]
            total = torch.zeros(len(mine), len(inputs.labels), dtype=torch.float64)
            for teacher in self._trained(inputs, console, say):
                with counting("asking the teacher", len(mine), console) as done:
                    total += teacher.probabilities(mine, done)
            return total / self._count

        return Guesses(tokens, ranks.share_out(len(texts), ask))

    def _trained(self, inputs: Inputs, console: Console, say: Say) -> Iterator[EncoderTeacher]:
        """Each is trained when it is asked for, and said how good it is."""
        train, held_out = inputs.parts
        for number in range(1, self._count + 1):
            own = dataclasses.replace(self._options, seed=self._options.seed + number)
            teacher = EncoderTeacher(self._encoder, len(inputs.labels), own, quiet)
            steps = -(-len(train) // own.batch_size)
            with TrainingProgress(own.epochs_of(len(train)), steps, console, "characters") as progress:
                teacher.fit(self._texts[0], train.labels, progress.on_step)
            right = (teacher.probabilities(self._texts[1]).argmax(1) == held_out.labels).double().mean()
            say(f"teacher {number}/{self._count}, {self._encoder}: held-out accuracy {right:.1%}")
            yield teacher


def shared_guesses(found: Guesses | None, tokens: RaggedTokens, num_classes: int, ranks: Ranks) -> Guesses | None:
    """What the first process has found of these texts, for all of them; the others have found nothing."""
    numbers = torch.zeros(len(tokens), num_classes, dtype=torch.float64)
    probabilities = ranks.sum(numbers if found is None else found.probabilities)
    return Guesses(tokens, probabilities) if probabilities.any() else None
