"""`train --distil`: a classifier learns from a sentence encoder, before it sees a label."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from textclf_fast.models import Classifier
from textclf_fast.text import ENCODERS, DataError, RaggedTokens
from textclf_fast.text.catalogue import cited
from textclf_fast.text.sentence_vectors import sentence_vectors
from textclf_fast.training import EncodedTexts
from textclf_fast.training.checkpoint_file import (
    capture_weights,
    check_about,
    read_checkpoint,
    restore_weights,
    write_checkpoint,
)
from textclf_fast.training.distillation import DistillationOptions, distil
from textclf_fast.training.distributed import Ranks
from textclf_fast.training.progress import TrainingProgress, counting
from textclf_fast.training.resume import fingerprint


class Distillation:
    """A model that learns from an encoder what it makes of some texts.

    Args:
        model: learns.
        encoder: a name or a directory, as `sentence_vectors` takes it.
        texts, tokens: n texts, and as the model takes them.
        options: how.
    """

    def __init__(
        self,
        model: Classifier,
        encoder: str,
        texts: Sequence[str],
        tokens: RaggedTokens,
        options: DistillationOptions,
    ) -> None:
        self._model = model
        self._encoder = encoder
        self._texts = texts
        self._tokens = tokens
        self._options = options

    def run(self, console: Console, ranks: Ranks) -> float:
        """Each process encodes its part of the texts, and learns from all; the last epoch's mean cosine."""
        vectors = self._vectors(console, ranks)
        options = self._options
        with TrainingProgress(options.epochs, -(-len(self._tokens) // options.batch_size), console) as progress:
            return distil(self._model, self._tokens, vectors, options, progress.on_step)

    def _vectors(self, console: Console, ranks: Ranks) -> torch.Tensor:
        def encode(rows: list[int]) -> torch.Tensor:
            with counting("sentence vectors", len(rows), console) as done:
                return torch.from_numpy(
                    sentence_vectors(self._encoder, [self._texts[row] for row in rows], done, quiet)
                )

        return ranks.share_out(len(self._texts), encode)

    def write(self, path: Path, cosine: float) -> None:
        """Keeps what was learnt, and that number.

        Raises:
            OSError: it cannot be written.
        """
        write_checkpoint(path, capture_weights(self._model), {"about": self._about(), "cosine": cosine})

    def read(self, path: Path) -> float:
        """Gives the model what `write` wrote; the number beside it.

        Raises:
            DataError: that cannot be read, or is of another distillation.
        """
        tensors, entries = read_checkpoint(path)
        check_about(path, entries.get("about"), self._about())
        try:
            restore_weights(self._model, tensors)
            return float(entries["cosine"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: not what `train --distil` keeps: {error}") from error

    def _about(self) -> dict[str, Any]:
        """What is the same in a training that goes on; as JSON has it."""
        return {
            "encoder": self._encoder,
            "distillation": dataclasses.asdict(self._options),
            "model": self._model.config,
            "data": fingerprint(EncodedTexts.unlabelled(self._tokens)),
        }


def about_encoder(encoder: str, options: DistillationOptions, cosine: float) -> dict[str, Any]:
    """What a model's card says of it."""
    return {
        "sentence encoder": cited(encoder, ENCODERS),
        "times the model read the texts with it": options.epochs,
        "mean cosine of its vectors and the encoder's": round(cosine, 3),
    }


def quiet(line: str) -> None:
    """What there is to say of fetching has been said."""
