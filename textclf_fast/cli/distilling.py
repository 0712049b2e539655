"""`train --distil`: a classifier learns from a sentence encoder, before it sees a label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from textclf_fast.cli.inputs import Inputs
from textclf_fast.models import Classifier
from textclf_fast.text import ENCODERS, DataError, encode_texts
from textclf_fast.text.files import whole_file
from textclf_fast.text.sentence_vectors import sentence_vectors
from textclf_fast.training.distillation import DistillationOptions, distil
from textclf_fast.training.progress import TrainingProgress

_COSINE = "mean cosine"  # beside the weights, in the file that is kept


def learn_from_encoder(
    model: Classifier,
    inputs: Inputs,
    texts: Sequence[str],
    encoder: str,
    options: DistillationOptions,
    console: Console,
) -> float:
    """The encoder reads the texts, and the model learns to give them its vectors; the last epoch's mean cosine."""
    columns = (TextColumn(encoder), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(texts))
        vectors = sentence_vectors(encoder, texts, lambda done: bar.update(task, completed=done))
    tokens = encode_texts(texts, inputs.tokenizer, inputs.vocabulary)
    with TrainingProgress(options.epochs, -(-len(tokens) // options.batch_size), console) as progress:
        return distil(model, tokens, torch.from_numpy(vectors), options, progress.on_step)


def about_encoder(encoder: str, options: DistillationOptions, cosine: float) -> dict[str, Any]:
    """What a model's card says of it."""
    return {
        "sentence encoder": encoder + (f" ({ENCODERS[encoder].citation})" if encoder in ENCODERS else ""),
        "times the model read the texts with it": options.epochs,
        "mean cosine of its vectors and the encoder's": round(cosine, 3),
    }


def write_distilled(path: Path, model: Classifier, cosine: float) -> None:
    """Keeps the weights of a model, and that number.

    Raises:
        OSError: it cannot be written.
    """
    from safetensors.torch import save

    with whole_file(path) as file:
        file.write(save({**model.state_dict(), _COSINE: torch.tensor(cosine, dtype=torch.float64)}))


def read_distilled(path: Path, model: Classifier) -> float:
    """Gives the model the weights that `write_distilled` wrote; the number beside them.

    Raises:
        DataError: the file is of another model, or no such file.
        OSError: it cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        weights: dict[str, Tensor] = load(path.read_bytes())
        cosine = float(weights.pop(_COSINE))
        model.load_state_dict(weights)
    except (SafetensorError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: expected this model's weights as `train` writes them: {reason}") from error
    return cosine
