"""A .parquet file -> its records, read a batch of rows at a time and of the columns asked for alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from textclf_fast.text.errors import DataError
from textclf_fast.text.records import Record, check_names, record

_ROWS_AT_ONCE = 4096


def parquet_records(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    """As `records`. Numbers of classes become names where a Hugging Face data set wrote the file and named them.

    Raises:
        DataError: As `records`, or pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            f"{path}: .parquet files are read by pyarrow ({error}): pip install 'textclf_fast[data]'"
        ) from error
    row = 1
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            check_names(f"{path}: the columns", file.schema_arrow.names, columns)
            class_names = _class_names(file.schema_arrow.metadata, columns)
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(columns)):
                for entries in batch.to_pylist():
                    yield record(path, f"row {row}", {name: entries[name] for name in columns}, class_names)
                    row += 1
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: row {row} or one soon after it: a text is not UTF-8") from error
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: not a .parquet file that can be read: {error}") from error


def _class_names(metadata: dict[bytes, bytes] | None, columns: Sequence[str]) -> list[str] | None:
    try:
        features: Any = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        names = features[columns[1]]["names"]
    except (IndexError, KeyError, TypeError, ValueError):
        return None
    return list(map(str, names)) if isinstance(names, list) else None
