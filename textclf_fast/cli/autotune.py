"""`textclf-fast autotune`: the best model that can be found in a given time."""

from __future__ import annotations

from typing import Annotated

import typer

from textclf_fast.cli import arguments
from textclf_fast.cli.arguments import TRAINING, positive, share


def autotune(
    file: arguments.File,
    out: arguments.Out,
    minutes: Annotated[
        float, typer.Option(callback=positive, help="How long to search.", rich_help_panel=TRAINING)
    ] = 5.0,
    text: arguments.Text = "text",
    label: arguments.Label = "label",
    group: arguments.Group = None,
    held_out: arguments.HeldOut = 0.2,
    choose: Annotated[
        float,
        typer.Option(callback=share, help="Share of the other texts to choose by.", rich_help_panel=arguments.DATA),
    ] = 0.2,
    tokenizer: arguments.Tokenizer = "word",
    vocab_size: arguments.VocabSize = 10_000,
    min_frequency: arguments.MinFrequency = 1,
    vectors: arguments.Vectors = None,
    seed: arguments.Seed = 0,
    overwrite: arguments.Overwrite = False,
    as_json: arguments.Json = False,
) -> None:
    """Searches for good options, and writes the best model found.

    Learning rate, sizes, dropout and more are drawn at random, the first time the defaults; a choice that does well
    after 1 epoch goes on to 3, 9 and 27. A part of the texts says which does well; another part, which takes no part in
    that, is held out to tell how good the best one is.

    Ctrl-C ends the search, and writes the best model so far. All that was tried is in OUT/trials.json.

    Example:

        textclf-fast autotune reviews.csv --out model --minutes 10
    """
    from textclf_fast.cli.inputs import read_data
    from textclf_fast.cli.tuning_run import TuningRun
    from textclf_fast.judging.source import describe_source
    from textclf_fast.text import split
    from textclf_fast.training import check_target

    check_target(out, overwrite)
    data = read_data(file, text, label, group)
    rest, test = split(data, held_out)
    train, chooser = split(rest, choose)
    source = describe_source(file, data, rest, test, text=text, label=label, group=group, share=held_out)
    run = TuningRun(file, out, as_json)
    inputs = run.encode([train, chooser, test], data.classes, tokenizer, vocab_size, min_frequency, vectors or [])
    run.save(run.search(inputs, minutes, seed), inputs, source, overwrite)
