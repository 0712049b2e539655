"""A file of texts -> its records, one after the other, with the place of each for error messages."""

from __future__ import annotations

import csv
import io
import json
import numbers
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from textclf_fast.text.errors import DataError
from textclf_fast.text.lines import LONGEST_LINE, read_lines

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_FASTTEXT_LABEL = "__label__"
_MOST_NAMES = 20  # column names in a message


class Record(NamedTuple):
    """One row: where it is, for messages, and its entry in each column asked for."""

    place: str
    entries: dict[str, str]


def records(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    """The records of a file in their order, read as they are asked for. Blank lines are skipped.

    Args:
        path: The file; its suffix says what it is.
        columns: The names of the columns asked for, that of the texts first. Without a second, a .txt file holds texts
            without labels.

    Raises:
        DataError: As `textclf_fast.text.read_labelled`, but for empty entries.
    """
    suffix = path.suffix.lower()
    if suffix in _DELIMITERS:
        return _table_records(path, columns, _DELIMITERS[suffix])
    if suffix == ".jsonl":
        return _json_records(path, columns)
    if suffix == ".parquet":
        from textclf_fast.text.parquet import parquet_records

        return parquet_records(path, columns)
    if suffix == ".ft" or (suffix == ".txt" and len(columns) > 1):
        return _fasttext_records(path, columns)
    if suffix == ".txt":
        return _line_records(path, columns)
    raise DataError(
        f"{path}: expected a file that ends in .csv, .tsv, .jsonl, .parquet, .ft or .txt, got {suffix or 'no suffix'!r}"
    )


def _table_records(path: Path, columns: Sequence[str], delimiter: str) -> Iterator[Record]:
    names: list[str] | None = None
    row = 0  # 0 is the names

    def place(line: int) -> str:
        return f"row {row} (line {line})" if names is not None else f"the names of the columns (line {line})"

    # A carriage return alone ends a line, too. strict: an unbalanced quotation mark is an error, instead of swallowing
    # the rows after it.
    lines = (part for line in read_lines(path, place) for part in io.StringIO(line, newline=""))
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        where = place(rows.line_num + 1)
        limit = csv.field_size_limit(LONGEST_LINE)  # its own refuses a text of 128 KiB
        try:
            fields = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path}: {where}: not well-formed ({error}): a field with a quotation mark at its beginning must end "
                "with one, and have those within doubled"
            ) from error
        finally:
            csv.field_size_limit(limit)  # it is the whole process's
        if not fields:
            continue
        if names is None:
            names = fields
            check_names(f"{path}: the columns", names, columns)
            if twice := [name for name in columns if names.count(name) > 1]:
                raise DataError(f"{path}: there are {names.count(twice[0])} columns named {twice[0]!r}, expected one")
            row = 1
            continue
        if len(fields) != len(names):
            raise DataError(
                f"{path}: {where}: expected {len(names)} fields, as there are columns, got {len(fields)} "
                f"(a field that holds {'a comma' if delimiter == ',' else 'a tab'} must be quoted)"
            )
        entries = dict(zip(names, fields, strict=True))
        yield Record(where, {name: entries[name] for name in columns})
        row += 1


def _filled_lines(path: Path) -> Iterator[tuple[str, str]]:
    """The place and the text of each line that is not blank."""
    row = 1

    def place(line: int) -> str:
        return f"row {row} (line {line})"

    for number, line in enumerate(read_lines(path, place), start=1):
        if line.strip():
            yield place(number), line
            row += 1


def _json_records(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    for place, source in _filled_lines(path):
        try:
            entries = json.loads(source)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}: {place}: not JSON: {error.msg} at column {error.colno}") from error
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
            raise DataError(f"{path}: {place}: not usable JSON: {error}") from error
        if not isinstance(entries, dict):
            raise DataError(f"{path}: {place}: expected an object, {{...}}, got {source.strip()[:40]}")
        check_names(f"{path}: {place}: the names", list(entries), columns)
        yield record(path, place, {name: entries[name] for name in columns}, show=json.dumps)


def _fasttext_records(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    if len(columns) > 2:
        raise DataError(f"{path}: a file of __label__ lines has no column {columns[2]!r} for the group")
    for place, text in _filled_lines(path):
        labels = []
        while text.lstrip().startswith(_FASTTEXT_LABEL):
            label, *rest = text.split(maxsplit=1)
            labels.append(label.removeprefix(_FASTTEXT_LABEL))
            text = rest[0] if rest else ""
        if len(columns) > 1 and len(labels) != 1:
            raise DataError(f"{path}: {place}: expected one {_FASTTEXT_LABEL} at the beginning, got {len(labels)}")
        yield Record(place, dict(zip(columns, [text.strip(), *labels], strict=False)))


def _line_records(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    for place, text in _filled_lines(path):
        yield Record(place, {columns[0]: text.strip()})


def record(
    path: Path | None,
    place: str,
    entries: dict[str, object],
    class_names: Sequence[str] | None = None,
    show: Callable[[object], str] = repr,
) -> Record:
    """Checks entries that may be anything: the first must be a text; the others may be numbers or truth values.

    Of those, 1 and true become "1" and "true", or the class's name where there are `class_names`.

    Raises:
        DataError: An entry is something else, or holds what is no character.
    """
    where = place if path is None else f"{path}: {place}"
    texts: dict[str, str] = {}
    for name, entry in entries.items():
        if texts and not isinstance(entry, str) and isinstance(entry, (numbers.Integral, np.bool_)):
            entry = _label(f"{where}: {name!r}", int(entry), class_names if len(texts) == 1 else None, entry)
        if not isinstance(entry, str):
            raise DataError(f"{where}: {name!r}: expected a string, got {show(entry)[:40]}")
        if "\0" in entry:
            raise DataError(f"{where}: {name!r}: there is a NUL character, which no text has")
        if not entry.isascii():
            try:
                entry.encode()
            except UnicodeEncodeError as error:
                raise DataError(f"{where}: {name!r}: half of a surrogate pair, which is no character") from error
        texts[name] = entry
    return Record(place, texts)


def _label(where: str, number: int, class_names: Sequence[str] | None, entry: object) -> str:
    if class_names is None:
        return json.dumps(bool(number)) if isinstance(entry, (bool, np.bool_)) else str(number)
    if not 0 <= number < len(class_names):
        raise DataError(f"{where}: class {number} has no name, there are {len(class_names)} named classes")
    return class_names[number]


def check_names(what: str, names: Sequence[str], columns: Sequence[str]) -> None:
    """Raises DataError where one of `columns` is not among the names."""
    if missing := [name for name in columns if name not in names]:
        shown = ", ".join(map(repr, names[:_MOST_NAMES])) + (", ..." if len(names) > _MOST_NAMES else "")
        raise DataError(f"{what}: {missing[0]!r} is missing, there are {shown or 'none'}")
