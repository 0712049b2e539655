"""What a directory with a model is: weights, configuration, vocabulary and tokenizer; no pickle among them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from textclf_fast.text import DataError, Tokenizer, Vocabulary, make_tokenizer
from textclf_fast.text.files import write_atomically

_WEIGHTS = "model.safetensors"
CONFIG = "config.json"
_VOCABULARY = "vocabulary.json"
_TOKENIZER = "tokenizer.json"
_FILES = (_WEIGHTS, CONFIG, _VOCABULARY, _TOKENIZER)
_MORE_FILES = (  # which may be there too: how it was trained, and what was found about it
    *("log.jsonl", "trials.json", "evaluations.json", "README.md"),
    *("confusion.png", "reliability.png", "curves.png", "learning.png"),
)


@dataclass(frozen=True)
class ModelFiles:
    """What the files of a directory hold.

    Attributes:
        config: with ``format`` and ``format_version``.
        weights: by their names in the model's state_dict.
        vocabulary, tokenizer: that belong to it.
    """

    config: dict[str, Any]
    weights: dict[str, Tensor]
    vocabulary: Vocabulary
    tokenizer: Tokenizer


def write_model_files(
    directory: Path,
    model: nn.Module,
    config: Mapping[str, Any],
    vocabulary: Vocabulary,
    tokenizer: Tokenizer,
    overwrite: bool,
    more_files: Mapping[str, str] | None = None,
) -> None:
    """Writes the files into a directory beside `directory`, then renames that: there is all of it or nothing.

    Args:
        more_files: texts, by the names of the files to hold them: log.jsonl, trials.json.

    Raises:
        TypeError: JSON cannot hold `config`, or what the tokenizer is made of.
        OSError: as `check_target`, or the disk is full. What was there before is there still.
    """
    from safetensors.torch import save_file

    directory = directory.resolve()
    config_text = as_text(config)
    tokenizer_text = json.dumps(tokenizer.config, ensure_ascii=False, indent=2) + "\n"
    # Copies: safetensors refuses tensors that share memory, as some users tie weights.
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    check_target(directory, overwrite)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _whole_or_nothing(directory) as folder:
        save_file(weights, folder / _WEIGHTS)
        with (folder / _WEIGHTS).open("rb") as file:
            os.fsync(file.fileno())  # as the other files: the checkpoint that made it may be deleted next
        vocabulary.save(folder / _VOCABULARY)
        write_atomically(folder / _TOKENIZER, tokenizer_text)
        write_atomically(folder / CONFIG, config_text)
        for name, text in (more_files or {}).items():
            write_atomically(folder / name, text)
        (folder / _WEIGHTS).chmod((folder / CONFIG).stat().st_mode)  # safetensors writes for the owner alone


def read_model_files(directory: Path, format_name: str, version: int) -> ModelFiles:
    """Reads what `write_model_files` wrote.

    Args:
        directory: where it is.
        format_name, version: what ``format`` and ``format_version`` must be.

    Raises:
        DataError: there is no such directory, or it holds no such model, or not all of one. The message is one line.
    """
    if not directory.is_dir():
        raise DataError(f"{directory}: there is no such directory, expected one with a model")
    missing = [name for name in _FILES if not (directory / name).is_file()]
    if missing:
        raise DataError(f"{directory}: not a model: there is no {missing[0]} in it")
    vocabulary = Vocabulary.load(directory / _VOCABULARY)
    config = _read_config(directory / CONFIG, format_name, version)
    weights = _read_weights(directory / _WEIGHTS)
    try:
        tokenizer = make_tokenizer(_read_json(directory / _TOKENIZER))
    except (AttributeError, TypeError, ValueError) as error:
        raise misfit(directory, error) from error
    return ModelFiles(config, weights, vocabulary, tokenizer)


def as_text(config: Mapping[str, Any]) -> str:
    """A configuration as its file has it."""
    return json.dumps(config, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def misfit(directory: Path, error: Exception) -> DataError:
    """What is wrong with files that can each be read."""
    return DataError(f"{directory}: the files do not fit together: {error}")


def check_target(directory: str | Path, overwrite: bool = False) -> None:
    """Says whether a model may be written there, before a training rather than after it.

    Raises:
        FileExistsError: it is a file, or a directory that holds something; with `overwrite`, something besides a model.
        PermissionError: it may not be made there.
    """
    directory = Path(directory).resolve()
    if directory.is_dir():
        names = sorted(path.name for path in directory.iterdir())
        if names and not overwrite:
            raise FileExistsError(
                f"{directory}: is there and not empty; another directory, or overwrite the model in it"
            )
        other = [name for name in names if name not in (*_FILES, *_MORE_FILES)]
        if other:
            raise FileExistsError(f"{directory}: holds {other[0]!r}, which no model has: it is not overwritten")
        if names and CONFIG not in names:
            raise FileExistsError(f"{directory}: holds {names[0]!r} and no model: it is not overwritten")
    elif directory.exists():
        raise FileExistsError(f"{directory}: is a file, expected a directory to be made or an empty one")
    above = next(path for path in directory.parents if path.exists())
    if not above.is_dir():
        raise NotADirectoryError(f"{above}: is a file, so that there can be no directory {directory}")
    if not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(f"{above}: is not writable, so that there can be no directory {directory}")


@contextlib.contextmanager
def _whole_or_nothing(directory: Path) -> Iterator[Path]:
    """Gives a new directory to write to, which becomes `directory` at the end, and is deleted on an error."""
    new = directory.with_name(f".{directory.name}.{os.getpid()}.new")
    old = directory.with_name(f".{directory.name}.{os.getpid()}.old")
    new.mkdir()
    try:
        yield new
        if directory.exists():
            # A directory cannot be renamed onto a full one. Should the process be killed between the two renames, the
            # old model is whole under the name `old`.
            directory.rename(old)
        try:
            new.rename(directory)
        except BaseException:
            if old.exists():
                old.rename(directory)
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object, {{...}}, got {type(content).__name__}")
    return content


def _read_config(path: Path, format_name: str, version: int) -> dict[str, Any]:
    config = _read_json(path)
    if config.get("format") != format_name:
        raise DataError(f"{path}: not the configuration of a {format_name}")
    if config.get("format_version") != version:
        raise DataError(
            f"{path}: is of format version {config.get('format_version')}, expected {version}: "
            "it needs another version of textclf_fast"
        )
    check_entries(path.parent, config, {"model": dict, "extra": dict})
    return config


def check_entries(directory: Path, config: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
    """Refuses a configuration without these entries, each of its type."""
    for name, kind in kinds.items():
        if not isinstance(config.get(name), kind):
            raise DataError(f"{directory / CONFIG}: {name!r} is missing or wrong")


def _read_weights(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    kinds = {tensor.dtype for tensor in weights.values()}
    if len(kinds) != 1 or not next(iter(kinds)).is_floating_point:
        raise DataError(f"{path}: expected weights of one floating-point type, got {sorted(map(str, kinds))}")
    return weights
