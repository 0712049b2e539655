"""`textclf-fast baseline`: what simple ways reach on the same texts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from textclf_fast.cli import arguments
from textclf_fast.cli.arguments import MODEL, TRAINING

if TYPE_CHECKING:
    from textclf_fast.judging import Judgement
    from textclf_fast.text import LabelledTexts

# The tokens in a row that are a feature, by the kind of token; of others up to two.
_NGRAMS = {"character": (1, 3), "ngram": (1, 1)}


def baseline(
    file: arguments.File,
    models: Annotated[
        list[Path] | None,
        typer.Option(
            "--model",
            metavar="DIR",
            help="A model that `train` wrote, to be judged beside them; may be given several times.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    text: arguments.Text = "text",
    label: arguments.Label = "label",
    group: arguments.Group = None,
    held_out: arguments.HeldOut = 0.2,
    tokenizer: arguments.Tokenizer = "word",
    vocab_size: arguments.VocabSize = 30_000,
    epochs: Annotated[int, typer.Option(min=1, help="Of the wide perceptron.", rich_help_panel=TRAINING)] = 5,
    seed: arguments.Seed = 0,
    as_json: arguments.Json = False,
) -> None:
    """Trains what a model should beat, on the same split as `train`, and judges it on the texts held out.

    The commonest class; logistic regression on TF-IDF weights of one and two words in a row (extra sklearn); a wide
    perceptron on the bag of words (Galke and Scherp, 2022). Nothing is tuned to these texts; the regression's C = 10
    and up to two words were chosen after a look at held-out parts of rt, trec and sms.

    Example:

        textclf-fast baseline reviews.csv --model model
    """
    from textclf_fast.cli.inputs import missing_classes, read_data
    from textclf_fast.cli.machine import describe_machine
    from textclf_fast.judging.baselines import commonest_class, tfidf_regression, wide_mlp
    from textclf_fast.judging.source import fingerprint
    from textclf_fast.text import split, tokenizer_for
    from textclf_fast.training import load_model

    saved = {str(directory): load_model(directory) for directory in models or []}
    data = read_data(file, text, label, group)
    train, test = split(data, held_out)
    labels, notes = data.classes, []
    if missing := missing_classes(file, train, labels):
        notes.append(f"the texts to train on have none labelled {', '.join(map(repr, missing))}")
    with arguments.blame("--tokenizer"):
        tokenize = tokenizer_for(tokenizer, train.texts, vocab_size)
    ngrams = _NGRAMS.get(tokenizer, (1, 2))
    say = _say_nothing if as_json else _say
    say(f"{len(data):,} texts, {len(labels)} classes; {len(train):,} to train on, {len(test):,} held out")

    ways: dict[str, Callable[[], Judgement]] = {
        "commonest class": lambda: commonest_class(train, test, labels),
        "TF-IDF + regression": lambda: tfidf_regression(train, test, labels, tokenize, ngrams),
        "wide perceptron": lambda: wide_mlp(
            train, test, labels, tokenize, vocab_size, epochs, seed, lambda epoch: say(f"  epoch {epoch}/{epochs}")
        ),
    }
    rows = []
    for name, judged in ways.items():
        say(f"{name} ...")
        start = time.perf_counter()
        try:
            rows.append(_row(name, judged(), time.perf_counter() - start))
        except ImportError as error:
            notes.append(f"{name} needs scikit-learn: pip install 'textclf_fast[sklearn]' ({error})")
    sha256 = fingerprint(data)
    for name, each in saved.items():
        say(f"{name} ...")
        source = each.extra.get("source", {})
        if tuple(map(source.get, ("sha256", "held_out_share", "group"))) != (sha256, held_out, group):
            notes.append(f"it is not known that {name} was trained without the texts held out")
        rows.append(_row(name, _judged(each, test, file), _training_seconds(each.extra)))
    if as_json:
        sizes = {"train": len(train), "held_out": len(test)}
        found = {"data": file, "sha256": sha256, "machine": describe_machine(), **sizes, "rows": rows}
        print(json.dumps({**found, "notes": notes}, ensure_ascii=False))
        return
    _print(rows, notes)


def _judged(saved: Any, test: LabelledTexts, file: str) -> Judgement:
    from textclf_fast.cli.inputs import check_known
    from textclf_fast.judging import judge
    from textclf_fast.training import EncodedTexts

    check_known(file, test, saved.labels)
    return judge(
        saved.model, EncodedTexts.from_texts(test, saved.labels, saved.vocabulary, saved.tokenizer), saved.labels
    )


def _training_seconds(extra: dict[str, Any]) -> float | None:
    epochs = extra.get("epochs")
    return sum(epoch["seconds"] for epoch in epochs) if epochs else None


def _row(name: str, judgement: Judgement, seconds: float | None) -> dict[str, Any]:
    """What is compared; the seconds are those of training, of the baselines also those of answering."""
    record = judgement.record()
    compared = ("accuracy", "macro_f1", "loss", "calibration_error")
    return {"name": name, **{key: record[key] for key in compared}, "seconds": seconds}


def _print(rows: list[dict[str, Any]], notes: list[str]) -> None:
    from rich.console import Console
    from rich.text import Text

    from textclf_fast.cli.judging_report import decimals, table_of

    table = table_of("", "accuracy", "macro-F1", "loss", "ECE", "seconds")
    for row in rows:
        numbers = (decimals(row[key]) for key in ("accuracy", "macro_f1", "loss", "calibration_error"))
        table.add_row(Text(row["name"]), *numbers, "-" if row["seconds"] is None else f"{row['seconds']:.1f}")
    Console().print(table)
    print("Loss: cross-entropy. ECE: expected calibration error. Seconds: of training, here.")
    for note in notes:
        print(f"note: {note}")


def _say(line: str) -> None:
    print(line, flush=True)


def _say_nothing(line: str) -> None:
    """For machines."""
