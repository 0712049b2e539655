"""Writing a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """Gives a new file beside `path` to write to; it becomes `path` at the end, and is deleted on an error.

    Raises:
        OSError: The folder is missing, full or not writable. Nothing is left behind.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or else a crash of the machine may leave the new name with nothing in it
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_atomically(path: str | Path, text: str) -> None:
    """Writes `text` as UTF-8, as `whole_file` does.

    Raises:
        OSError: As `whole_file`.
    """
    with whole_file(path) as file:
        file.write(text.encode())
