"""A trained classifier as a directory: weights, configuration, vocabulary and tokenizer; no pickle among them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textclf_fast.models import Classifier, make_classifier
from textclf_fast.text import DataError, Tokenizer, Vocabulary, WordTokenizer, make_tokenizer
from textclf_fast.text.files import write_atomically

_WEIGHTS = "model.safetensors"
_CONFIG = "config.json"
_VOCABULARY = "vocabulary.json"
_TOKENIZER = "tokenizer.json"
_FILES = (_WEIGHTS, _CONFIG, _VOCABULARY, _TOKENIZER)
_FORMAT = "textclf_fast text classifier"
_FORMAT_VERSION = 2


@dataclass(frozen=True)
class SavedModel:
    """What `load_model` reads.

    Attributes:
        model: in eval mode, on the CPU.
        vocabulary: of V tokens.
        tokenizer: whose tokens these are.
        labels: the names of the C classes, by number.
        extra: what else was saved with it.
    """

    model: Classifier
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    labels: list[str]
    extra: dict[str, Any]


def save_model(
    directory: str | Path,
    model: Classifier,
    vocabulary: Vocabulary,
    labels: Sequence[str],
    extra: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    *,
    tokenizer: Tokenizer | None = None,
) -> None:
    """Writes a model into a directory beside `directory`, then renames that: there is all of it or nothing.

    Args:
        directory: absent or empty; the directories above it are made.
        model, vocabulary, labels: that belong together.
        extra: anything more that JSON can hold.
        overwrite: a model that is already there is replaced.
        tokenizer: the one the vocabulary was made with; WordTokenizer by default.

    Raises:
        ValueError: vocabulary or labels do not fit the model.
        TypeError: JSON cannot hold `extra`, or what the tokenizer is made of.
        OSError: as `check_target`, or the disk is full. What was there before is there still.
    """
    from safetensors.torch import save_file

    directory = Path(directory).resolve()
    _check_fit(model.config, vocabulary, labels)
    config = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "model": {"kind": model.kind, **model.config},
        "labels": list(labels),
        "extra": dict(extra or {}),
    }
    config_text = json.dumps(config, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    tokenizer_text = json.dumps((tokenizer or WordTokenizer()).config, ensure_ascii=False, indent=2) + "\n"
    # Copies: safetensors refuses tensors that share memory, as some users tie weights.
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    check_target(directory, overwrite)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _whole_or_nothing(directory) as folder:
        save_file(weights, folder / _WEIGHTS)
        vocabulary.save(folder / _VOCABULARY)
        write_atomically(folder / _TOKENIZER, tokenizer_text)
        write_atomically(folder / _CONFIG, config_text)
        (folder / _WEIGHTS).chmod((folder / _CONFIG).stat().st_mode)  # safetensors writes for the owner alone


def check_target(directory: str | Path, overwrite: bool = False) -> None:
    """Says whether `save_model` may write there, before a training rather than after it.

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
        other = [name for name in names if name not in _FILES]
        if other:
            raise FileExistsError(f"{directory}: holds {other[0]!r}, which no model has: it is not overwritten")
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


def load_model(directory: str | Path) -> SavedModel:
    """Reads what `save_model` wrote.

    Raises:
        DataError: there is no such directory, or it holds no model, or not all of one. The message is one line.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise DataError(f"{directory}: there is no such directory, expected one with a model")
    missing = [name for name in _FILES if not (directory / name).is_file()]
    if missing:
        raise DataError(f"{directory}: not a model: there is no {missing[0]} in it")
    vocabulary = Vocabulary.load(directory / _VOCABULARY)
    config = _read_config(directory / _CONFIG)
    weights = _read_weights(directory / _WEIGHTS)
    try:
        with torch.device("meta"):  # makes no weights: they are about to be read
            model = make_classifier(config["model"])
        _check_fit(model.config, vocabulary, config["labels"])
        model.load_state_dict(weights, assign=True)
        tokenizer = make_tokenizer(_read_json(directory / _TOKENIZER))
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{directory}: the files do not fit together: {error}") from error
    return SavedModel(model.eval(), vocabulary, tokenizer, config["labels"], config["extra"])


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


def _read_config(path: Path) -> dict[str, Any]:
    config = _read_json(path)
    if config.get("format") != _FORMAT:
        raise DataError(f"{path}: not the configuration of a {_FORMAT}")
    if config.get("format_version") != _FORMAT_VERSION:
        raise DataError(
            f"{path}: is of format version {config.get('format_version')}, expected {_FORMAT_VERSION}: "
            "it needs another version of textclf_fast"
        )
    for name, kind in (("model", dict), ("labels", list), ("extra", dict)):
        if not isinstance(config.get(name), kind):
            raise DataError(f"{path}: {name!r} is missing or wrong")
    return config


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


def _check_fit(config: Mapping[str, Any], vocabulary: Vocabulary, labels: Sequence[str]) -> None:
    if len(vocabulary) != config["vocab_size"]:
        raise ValueError(f"vocabulary: expected {config['vocab_size']} tokens (vocab_size), got {len(vocabulary)}")
    if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
        raise TypeError(f"labels: expected a list of str, got {labels!r}")
    if len(labels) != config["output_dim"] or len(set(labels)) < len(labels):
        raise ValueError(f"labels: expected {config['output_dim']} different ones (output_dim), got {list(labels)}")
