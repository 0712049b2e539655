"""`textclf-fast lr-find`: at which learning rate to train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from textclf_fast.cli import arguments
from textclf_fast.cli.arguments import MODEL, OUTPUT, TRAINING, check_untouched


def lr_find(
    file: arguments.File,
    text: arguments.Text = "text",
    label: arguments.Label = "label",
    tokenizer: arguments.Tokenizer = "word",
    vocab_size: arguments.VocabSize = 10_000,
    min_frequency: arguments.MinFrequency = 1,
    embedding_dim: Annotated[int, typer.Option(min=1, help="Numbers per token.", rich_help_panel=MODEL)] = 100,
    vectors: arguments.Vectors = None,
    hidden_dim: Annotated[int, typer.Option(min=1, help="Hidden units of a layer.", rich_help_panel=MODEL)] = 128,
    layers: Annotated[int, typer.Option(min=1, help="Layers of the LSTM.", rich_help_panel=MODEL)] = 1,
    bidirectional: Annotated[
        bool, typer.Option("--bidirectional", help="Read the texts backwards as well.", rich_help_panel=MODEL)
    ] = False,
    language_model: Annotated[
        Path | None,
        typer.Option("--from", metavar="LM", help="Of a classifier that begins with it.", rich_help_panel=MODEL),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Most steps to take.", rich_help_panel=TRAINING)] = 100,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts of a batch.", rich_help_panel=TRAINING)] = 32,
    seed: arguments.Seed = 0,
    plot: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw loss against learning rate.", rich_help_panel=OUTPUT)
    ] = None,
) -> None:
    """Suggests a learning rate: the highest of a one-cycle schedule, for `train --lr`.

    It trains for a while, each step at a higher rate, and looks where the loss is lowest.
    """
    import torch

    from textclf_fast.cli.beginnings import FromScratch
    from textclf_fast.cli.inputs import Inputs, missing_classes, read_data
    from textclf_fast.training import TrainingOptions
    from textclf_fast.training.language_model_files import load_language_model
    from textclf_fast.training.lr_finder import draw_curve, find_learning_rate
    from textclf_fast.training.transfer import TRANSFERRED, LayerwiseTraining, transfer

    data = read_data(file, text, label, None)
    missing_classes(file, data, data.classes)
    torch.manual_seed(seed)
    optimizer = None
    if language_model is None:
        inputs = Inputs.encode([data], data.classes, tokenizer, vocab_size, min_frequency, vectors or [])
        sizes = {"embedding_dim": embedding_dim, "hidden_dim": hidden_dim, "num_layers": layers}
        model, _ = FromScratch({"kind": "lstm", "bidirectional": bidirectional, **sizes})(inputs, seed)
    else:
        check_untouched(lr_find, "is the language model's with --from", vectors=vectors)
        saved = load_language_model(language_model)
        model, saved = transfer(saved, data.texts, len(data.classes), epochs=0, seed=seed, **TRANSFERRED)
        inputs = Inputs.of([data], data.classes, saved.vocabulary, saved.tokenizer)
        optimizer = LayerwiseTraining(model, TrainingOptions(learning_rate=1.0, seed=seed)).optimizer
    curve = find_learning_rate(
        model, inputs.parts[0], steps=steps, batch_size=batch_size, seed=seed, optimizer=optimizer
    )
    if plot is not None:
        try:
            draw_curve(curve, plot)
        except ImportError as error:
            raise typer.BadParameter(
                f"needs matplotlib: pip install 'textclf_fast[report]' ({error})", param_hint="'--plot'"
            ) from error
    print(f"{curve.suggestion:.1e}")
