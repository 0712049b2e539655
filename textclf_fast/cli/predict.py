"""`textclf-fast predict`: a text a line in, a label a line out."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from textclf_fast.predictor import Predictor

_READ_BYTES = 2**20
_SHOWN_WORDS = 5


def predict(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A model that `train` wrote.")],
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A file of one text a line, in UTF-8; - is standard input.")
    ] = "-",
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Write an object a line, with the probabilities of all labels.")
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Write the words that mattered as well: above 0 those that speak for the label, below 0 against it. "
            "The five that mattered most; with --jsonl, all of them. As slow as training.",
        ),
    ] = False,
) -> None:
    """Writes a line `label<TAB>probability` for each line that it reads, blank ones included.

    Lines are answered as they arrive, so it can be used at the end of a pipe.
    """
    from textclf_fast.predictor import load
    from textclf_fast.text import DataError

    predictor = load(directory)
    name = "standard input" if file == "-" else file
    line = 0
    with _open(file) as stream:
        for lines in _available_lines(stream):
            texts: list[str] = []
            broken: str | None = None
            for raw in lines:
                line += 1
                try:
                    texts.append(raw.decode("utf-8-sig" if line == 1 else "utf-8"))
                except UnicodeDecodeError as error:
                    broken = f"{name}: line {line}: byte 0x{error.object[error.start]:02x} is not UTF-8"
                    break
            _write(predictor, texts, jsonl, explain)
            if broken:
                raise DataError(broken)


def _open(file: str) -> contextlib.AbstractContextManager[IO[bytes]]:
    if file == "-":
        return contextlib.nullcontext(sys.stdin.buffer)
    return open(file, "rb")


def _available_lines(stream: IO[bytes]) -> Iterator[list[bytes]]:
    """The lines of a stream, without their ends, in lists of what could be read without waiting for more."""
    begun: list[bytes] = []  # the parts of a line whose end has not been read yet
    while chunk := stream.read1(_READ_BYTES):  # type: ignore[attr-defined]  # buffered streams have it
        first, *others = chunk.split(b"\n")
        begun.append(first)
        if others:
            yield [b"".join(begun), *others[:-1]]
            begun = [others[-1]]
    if last := b"".join(begun):
        yield [last]


def _write(predictor: Predictor, texts: list[str], jsonl: bool, explain: bool) -> None:
    line = _json_line if jsonl else _plain_line
    for label, probabilities, words in _predictions(predictor, texts, explain):
        print(line(label, probabilities, words))
    sys.stdout.flush()


def _predictions(
    predictor: Predictor, texts: list[str], explain: bool
) -> Iterator[tuple[str, dict[str, float], list[tuple[str, float]] | None]]:
    """Label, probabilities and, where they are asked for, words with their scores."""
    if explain:
        for text in texts:
            found = predictor.explain(text)
            yield found.label, found.probabilities, list(zip(found.tokens, found.scores, strict=True))
        return
    labels = predictor.labels
    for row in predictor.predict_proba(texts).tolist():
        yield labels[max(range(len(labels)), key=row.__getitem__)], dict(zip(labels, row, strict=True)), None


def _json_line(label: str, probabilities: dict[str, float], words: list[tuple[str, float]] | None) -> str:
    content: dict[str, Any] = {
        "label": label,
        "probabilities": {name: round(p, 6) for name, p in probabilities.items()},
    }
    if words is not None:
        content["words"] = [{"word": word, "score": float(f"{score:.4g}")} for word, score in words]
    return json.dumps(content, ensure_ascii=False)


def _plain_line(label: str, probabilities: dict[str, float], words: list[tuple[str, float]] | None) -> str:
    shown = " ".join(label.split())  # a label with a line end in it must not be two lines
    line = f"{shown}\t{probabilities[label]:.4f}"
    if words is None:
        return line
    most = sorted(words, key=lambda word: -abs(word[1]))[:_SHOWN_WORDS]
    return line + "\t" + " ".join(f"{' '.join(word.split())}:{score:+.3g}" for word, score in most)
