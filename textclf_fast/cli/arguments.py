"""Arguments that several sub-commands have, and what makes a usage error of a wrong one."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

DATA = "Data"
MODEL = "Model"
TRAINING = "Training"
OUTPUT = "Output"


def share(number: float) -> float:
    """Of a whole."""
    if not 0 < number < 1:
        raise typer.BadParameter(f"expected a number between 0 and 1, got {number}")
    return number


def positive(number: float | None) -> float | None:
    """Finite and above 0, if given."""
    if number is not None and not (math.isfinite(number) and number > 0):
        raise typer.BadParameter(f"expected a positive number, got {number}")
    return number


@contextlib.contextmanager
def blame(option: str) -> Iterator[None]:
    """Turns a ValueError into wrong usage of this option; a DataError stays one, since it is a file's fault."""
    from textclf_fast.text import DataError

    try:
        yield
    except DataError:
        raise
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=f"'{option}'") from error


def check_untouched(command: Callable[..., None], why: str, **options: Any) -> None:
    """Refuses options of a sub-command that have no say in what it is to do: all are to be at their defaults."""
    for name, value in options.items():
        if value != inspect.signature(command).parameters[name].default:
            raise typer.BadParameter(why, param_hint=f"'--{name.replace('_', '-')}'")


File = Annotated[
    str,
    typer.Argument(
        metavar="FILE", help="A .csv, .tsv, .jsonl, .parquet or fastText file, or the name of a data set (see `data`)."
    ),
]
Out = Annotated[
    Path, typer.Option(help="Directory to write the model to; it is made.", rich_help_panel=OUTPUT, show_default=False)
]
Text = Annotated[str, typer.Option(help="Column of the texts.", rich_help_panel=DATA)]
Label = Annotated[str, typer.Option(help="Column of the labels.", rich_help_panel=DATA)]
Group = Annotated[
    str | None,
    typer.Option(
        help="Column that says where a text is from: no group is both trained on and held out.", rich_help_panel=DATA
    ),
]
HeldOut = Annotated[float, typer.Option(callback=share, help="Share of the texts to test on.", rich_help_panel=DATA)]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="The directory of a model that `train` wrote.")]
TextAsTrained = Annotated[
    str | None, typer.Option("--text", help="Column of the texts.", rich_help_panel=DATA, show_default="as trained")
]
LabelAsTrained = Annotated[
    str | None, typer.Option("--label", help="Column of the labels.", rich_help_panel=DATA, show_default="as trained")
]
GroupAsTrained = Annotated[
    str | None,
    typer.Option(
        "--group", help="Column that says where a text is from.", rich_help_panel=DATA, show_default="as trained"
    ),
]
HeldOutAsTrained = Annotated[
    float | None,
    typer.Option(
        "--held-out",
        callback=lambda number: None if number is None else share(number),
        help="Share of the texts that is the part held out.",
        rich_help_panel=DATA,
        show_default="as trained",
    ),
]
Part = Annotated[
    Literal["all", "train", "held-out"] | None,
    typer.Option(
        "--part",
        help="Which of the texts.",
        rich_help_panel=DATA,
        show_default="held-out, of the file that the model was trained on; or else all",
    ),
]
Tokenizer = Annotated[
    Literal["word", "cased", "ngram", "character", "bpe"],
    typer.Option(
        help="What a text is split into; cased: words, capital letters marked; ngram: words, pairs of them and pieces, "
        "for --model mlp.",
        rich_help_panel=DATA,
    ),
]
VocabSize = Annotated[int, typer.Option(min=3, help="Most entries of the vocabulary.", rich_help_panel=DATA)]
MinFrequency = Annotated[
    int, typer.Option(min=1, help="Tokens seen less often in training are unknown.", rich_help_panel=DATA)
]
Vectors = Annotated[
    list[str] | None,
    typer.Option(
        "--vectors",
        metavar="FILE|NAME",
        help="Begin with word vectors: of GloVe, word2vec or fastText (.txt, .vec, .bin, .gz), or by name: glove; or "
        "with what a sentence encoder says of words: minilm, or a directory of sentence-transformers. May be given "
        "several times: they stand beside each other. Where a token has more numbers than they have, the rest is "
        "learnt from the task alone; their most frequent words join the vocabulary up to its size.",
        rich_help_panel=MODEL,
    ),
]
Seed = Annotated[
    int,
    typer.Option(min=0, help="Of the initial weights, the order of the batches and dropout.", rich_help_panel=TRAINING),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the model that is in the directory.", rich_help_panel=OUTPUT)
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", help="Print one JSON object at the end and nothing else, for machines.", rich_help_panel=OUTPUT
    ),
]
