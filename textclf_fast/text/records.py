"""A .csv, .tsv or .jsonl file -> its records, with the place of each for error messages."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from textclf_fast.text.errors import DataError

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_LONGEST_FIELD = 2**31 - 1  # what csv can be told everywhere; its own default refuses a text of 128 KiB
_MOST_NAMES = 20  # column names in a message


class Record(NamedTuple):
    """One row: where it is, for messages, and its entry in each column asked for."""

    place: str
    entries: dict[str, str]


def records(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    """The records of a file in their order. Blank lines are skipped.

    Args:
        path: The file.
        columns: The names of the columns asked for, that of the texts first.

    Raises:
        DataError: As `textclf_fast.text.read_labelled`, but for empty entries.
    """
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        return _json_records(path, _read(path), columns)
    if suffix in _DELIMITERS:
        return _table_records(path, _read(path), columns, _DELIMITERS[suffix])
    raise DataError(f"{path}: expected a file that ends in .csv, .tsv or .jsonl, got {suffix or 'no suffix'!r}")


def _read(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: row 1 (line 1): the file is in UTF-16, save it as UTF-8")
    try:
        content = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # error.object lacks a byte order mark, and so does its count of bytes.
        start = error.start + len(raw) - len(error.object)
        where = _place_of(path, raw[:start].decode("utf-8-sig"))
        raise DataError(
            f"{path}: {where}: byte 0x{raw[start]:02x} (byte {start + 1} of the file) is not UTF-8, "
            "save the file as UTF-8"
        ) from error
    if "\0" in content:
        where = _place_of(path, content[: content.index("\0")])
        raise DataError(f"{path}: {where}: there is a NUL character, which no text has")
    return content


def _place_of(path: Path, before: str) -> str:
    """The place of what follows `before`."""
    line = before.count("\n") + 1
    delimiter = _DELIMITERS.get(path.suffix.lower())
    if delimiter is None:
        return f"row {len([past for past in before.split(chr(10))[:-1] if past.strip()]) + 1} (line {line})"
    try:  # a mark stands for what follows, so that a record that begins there is counted
        row = sum(map(bool, csv.reader(io.StringIO(before + "x", newline=""), delimiter=delimiter))) - 1
    except csv.Error:
        return f"line {line}"
    return f"row {row} (line {line})" if row else f"the names of the columns (line {line})"


def _table_records(path: Path, content: str, columns: Sequence[str], delimiter: str) -> Iterator[Record]:
    # strict: an unbalanced quotation mark is an error, instead of swallowing the rows after it.
    lines = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    row = 0  # 0 is the names
    while True:
        line = lines.line_num + 1
        place = f"row {row} (line {line})" if names is not None else f"the names of the columns (line {line})"
        limit = csv.field_size_limit(_LONGEST_FIELD)
        try:
            fields = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path}: {place}: not well-formed ({error}): a field with a quotation mark at its beginning must end "
                "with one, and have those within doubled"
            ) from error
        finally:
            csv.field_size_limit(limit)  # it is the whole process's
        if not fields:
            continue
        if names is None:
            names = fields
            _check_names(f"{path}: the columns", names, columns)
            if twice := [name for name in columns if names.count(name) > 1]:
                raise DataError(f"{path}: there are {names.count(twice[0])} columns named {twice[0]!r}, expected one")
            row = 1
            continue
        if len(fields) != len(names):
            raise DataError(
                f"{path}: {place}: expected {len(names)} fields, as there are columns, got {len(fields)} "
                f"(a field that holds {'a comma' if delimiter == ',' else 'a tab'} must be quoted)"
            )
        entries = dict(zip(names, fields, strict=True))
        yield Record(place, {name: entries[name] for name in columns})
        row += 1


def _json_records(path: Path, content: str, columns: Sequence[str]) -> Iterator[Record]:
    row = 0
    for line, source in enumerate(content.split("\n"), start=1):  # splitlines would split at U+2028 in a text as well
        if not source.strip():
            continue
        row += 1
        place = f"row {row} (line {line})"
        try:
            entries = json.loads(source)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}: {place}: not JSON: {error.msg} at column {error.colno}") from error
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
            raise DataError(f"{path}: {place}: not usable JSON: {error}") from error
        if not isinstance(entries, dict):
            raise DataError(f"{path}: {place}: expected an object, {{...}}, got {source.strip()[:40]}")
        _check_names(f"{path}: {place}: the names", list(entries), columns)
        # A label may be a number or a truth value: 1 and true become "1" and "true", as they are written in the file.
        for name in columns[1:]:
            if isinstance(entries[name], int):
                entries[name] = json.dumps(entries[name])
        yield Record(place, {name: _json_text(path, place, name, entries[name]) for name in columns})


def _json_text(path: Path, place: str, name: str, entry: object) -> str:
    if not isinstance(entry, str):
        raise DataError(f"{path}: {place}: {name!r}: expected a string, got {json.dumps(entry)[:40]}")
    if not entry.isascii():
        try:
            entry.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{path}: {place}: {name!r}: half of a surrogate pair, which is no character") from error
    return entry


def _check_names(what: str, names: Sequence[str], columns: Sequence[str]) -> None:
    if missing := [name for name in columns if name not in names]:
        shown = ", ".join(map(repr, names[:_MOST_NAMES])) + (", ..." if len(names) > _MOST_NAMES else "")
        raise DataError(f"{what}: {missing[0]!r} is missing, there are {shown or 'none'}")
