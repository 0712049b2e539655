"""The lines of a text file, one after the other, and what can be wrong with them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from textclf_fast.text.errors import DataError

LONGEST_LINE = 10_000_000  # bytes: more is a file of another kind, or one text that no model takes


def read_lines(path: Path, place: Callable[[int], str]) -> Iterator[str]:
    """The lines of a file in UTF-8, each with its line end; a byte order mark is dropped. One line is held at a time.

    Args:
        path: The file.
        place: What to call a line, by its number, in an error's message.

    Raises:
        DataError: The file cannot be read, or a line is too long, not UTF-8, or has a NUL character.
    """
    begin = 0  # of the line, in bytes
    try:
        with path.open("rb") as file:
            for number in itertools.count(1):
                raw = file.readline(LONGEST_LINE + 1)
                if not raw:
                    return
                yield _decode(raw, begin, f"{path}: {place(number)}")
                begin += len(raw)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _decode(raw: bytes, begin: int, where: str) -> str:
    if begin == 0 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{where}: the file is in UTF-16, save it as UTF-8")
    if len(raw) > LONGEST_LINE:
        raise DataError(f"{where}: the line is longer than {LONGEST_LINE:,} bytes, expected one text a line")
    try:
        line = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: byte 0x{raw[error.start]:02x} (byte {begin + error.start + 1} of the file) is not UTF-8, "
            "save the file as UTF-8"
        ) from error
    if "\0" in line:
        raise DataError(f"{where}: there is a NUL character, which no text has")
    return line.removeprefix("\ufeff") if begin == 0 else line
