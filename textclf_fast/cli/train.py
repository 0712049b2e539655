"""`textclf-fast train`: a file of labelled texts -> a model."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from textclf_fast.cli.numbers import positive, share

if TYPE_CHECKING:
    from textclf_fast.text import LabelledTexts
    from textclf_fast.training import EpochResult


def train(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A .csv, .tsv or .jsonl file, or the name of a data set (see `data`).")
    ],
    out: Annotated[Path, typer.Option(help="Directory to write the model to; it is made.")],
    text: Annotated[str, typer.Option(help="Column of the texts.")] = "text",
    label: Annotated[str, typer.Option(help="Column of the labels.")] = "label",
    group: Annotated[
        str | None,
        typer.Option(help="Column that says where a text is from: no group is both trained on and held out."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="How often each text is seen.")] = 5,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts of a batch.")] = 32,
    lr: Annotated[float, typer.Option(callback=positive, help="Learning rate of Adam.")] = 1e-3,
    embedding_dim: Annotated[int, typer.Option(min=1, help="Numbers per token.")] = 100,
    hidden_dim: Annotated[int, typer.Option(min=1, help="Hidden units of the LSTM.")] = 128,
    layers: Annotated[int, typer.Option(min=1, help="Layers of the LSTM.")] = 1,
    bidirectional: Annotated[bool, typer.Option("--bidirectional", help="Read the texts backwards as well.")] = False,
    dropout: Annotated[float, typer.Option(min=0, max=0.99, help="Share of the units dropped in training.")] = 0.0,
    vocab_size: Annotated[int, typer.Option(min=3, help="Most entries of the vocabulary.")] = 10_000,
    min_frequency: Annotated[int, typer.Option(min=1, help="Words seen less often in training are unknown.")] = 1,
    held_out: Annotated[float, typer.Option(callback=share, help="Share of the texts to test on.")] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Of the initial weights and of the order of the batches.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model that is in the directory.")] = False,
) -> None:
    """Trains a classifier on a file of labelled texts and writes the best epoch's model.

    A part of the texts is held out: the model is tested on it after each epoch. Which texts these are does not depend
    on the seed; equal texts are never in both parts.
    """
    import torch
    from rich.console import Console

    from textclf_fast.models import TextClassifier
    from textclf_fast.text import Vocabulary, WordTokenizer, split
    from textclf_fast.training import EncodedTexts, TrainingOptions, check_target, fit, save_model
    from textclf_fast.training.progress import TrainingProgress

    check_target(out, overwrite)  # before the work, not after it
    data = _read(file, text, label, group)
    parts = split(data, held_out)
    _check_classes(file, parts[0], data.classes)

    tokenizer = WordTokenizer()
    vocabulary = Vocabulary.build(map(tokenizer, parts[0].texts), vocab_size, min_frequency)
    train_part, held_out_part = (EncodedTexts.from_texts(part, data.classes, vocabulary, tokenizer) for part in parts)
    print(
        f"{len(data):,} texts, {len(data.classes)} classes; {len(train_part):,} to train on, "
        f"{len(held_out_part):,} held out; vocabulary of {len(vocabulary):,}"
    )

    torch.manual_seed(seed)
    model = TextClassifier(
        len(vocabulary),
        embedding_dim,
        hidden_dim,
        len(data.classes),
        num_layers=layers,
        bidirectional=bidirectional,
        dropout=dropout,
        sparse=True,
    )
    options = TrainingOptions(epochs=epochs, batch_size=batch_size, learning_rate=lr, seed=seed)
    console = Console(highlight=False, soft_wrap=True)
    with TrainingProgress(epochs, -(-len(train_part) // batch_size), console) as progress:
        history = fit(
            model,
            train_part,
            held_out_part,
            options,
            progress.on_step,
            lambda result: console.print(_line(result, epochs), markup=False),
        )
    extra = {"data": file, "options": dataclasses.asdict(options), "epochs": [_record(e) for e in history.epochs]}
    save_model(out, model, vocabulary, data.classes, extra, overwrite)
    best = history.best
    print(f"{out}: the model of epoch {best.epoch + 1}, held-out accuracy {best.held_out.accuracy:.1%}")
    print(f"To use it: echo 'a text' | textclf-fast predict {shlex.quote(str(out))}")


def _read(file: str, text: str, label: str, group: str | None) -> LabelledTexts:
    from textclf_fast.text import DATASETS, load_dataset, read_labelled

    if file in DATASETS and not Path(file).exists():
        return load_dataset(file)
    return read_labelled(file, text, label, group)


def _check_classes(file: str, train_part: LabelledTexts, classes: list[str]) -> None:
    from textclf_fast.text import DataError

    missing = [name for name in classes if name not in train_part.classes]
    if len(train_part.classes) < 2:
        raise DataError(f"{file}: the texts to train on are all labelled {train_part.classes[0]!r}: too few texts")
    if missing:
        print(f"note: the texts to train on have none labelled {', '.join(map(repr, missing))}")


def _line(result: EpochResult, epochs: int) -> str:
    held_out = result.held_out
    return (
        f"epoch {result.epoch + 1}/{epochs}: loss {result.loss:.4f}, held-out accuracy {held_out.accuracy:.1%}, "
        f"macro-F1 {held_out.macro_f1:.3f}, {result.seconds:.1f} s, {result.tokens_per_second:,.0f} tokens/s"
    )


def _record(result: EpochResult) -> dict[str, Any]:
    return {
        "loss": result.loss,
        "held_out": dataclasses.asdict(result.held_out),
        "seconds": result.seconds,
        "tokens_per_second": result.tokens_per_second,
    }
