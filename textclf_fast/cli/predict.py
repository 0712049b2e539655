"""`textclf-fast predict`: a text a line in, a label a line out."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from textclf_fast.predictor import Predictor

_READ_BYTES = 2**20


def predict(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A model that `train` wrote.")],
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A file of one text a line, in UTF-8; - is standard input.")
    ] = "-",
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Write an object a line, with the probabilities of all labels.")
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
            _write(predictor, texts, jsonl)
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


def _write(predictor: Predictor, texts: list[str], jsonl: bool) -> None:
    labels = predictor.labels
    shown = [" ".join(label.split()) for label in labels]  # a label with a line end in it must not be two lines
    for row in predictor.predict_proba(texts).tolist():
        best = max(range(len(labels)), key=row.__getitem__)
        if jsonl:
            probabilities = {label: round(probability, 6) for label, probability in zip(labels, row, strict=True)}
            print(json.dumps({"label": labels[best], "probabilities": probabilities}, ensure_ascii=False))
        else:
            print(f"{shown[best]}\t{row[best]:.4f}")
    sys.stdout.flush()
