"""A trained classifier on disk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from textclf_fast.models import Classifier, make_classifier
from textclf_fast.storage.directory import (
    CONFIG,
    as_text,
    check_entries,
    check_target,
    misfit,
    read_model_files,
    write_model_files,
)
from textclf_fast.storage.no_random_weights import NoRandomWeights
from textclf_fast.text import Tokenizer, Vocabulary, WordTokenizer
from textclf_fast.text.files import write_atomically

__all__ = ["SavedModel", "check_target", "load_model", "save_model", "store_temperature"]

_FORMAT = "textclf_fast text classifier"
_FORMAT_VERSION = 2


@dataclass(frozen=True)
class SavedModel:
    """What `load_model` reads.

    Attributes:
        model: in eval mode, on the CPU; its logits are divided by the temperature already.
        vocabulary: of V tokens.
        tokenizer: whose tokens these are.
        labels: the names of the C classes, by number.
        extra: what else was saved with it.
        temperature: of :func:`store_temperature`, 1 without one.
    """

    model: Classifier
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    labels: list[str]
    extra: dict[str, Any]
    temperature: float = 1.0


def save_model(
    directory: str | Path,
    model: Classifier,
    vocabulary: Vocabulary,
    labels: Sequence[str],
    extra: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    *,
    tokenizer: Tokenizer | None = None,
    more_files: Mapping[str, str] | None = None,
) -> None:
    """Writes a model into a directory beside `directory`, then renames that: there is all of it or nothing.

    Args:
        directory: absent or empty; the directories above it are made.
        model, vocabulary, labels: that belong together.
        extra: anything more that JSON can hold.
        overwrite: a model that is already there is replaced.
        tokenizer: the one the vocabulary was made with; WordTokenizer by default.
        more_files: texts, by the names of the files to hold them: log.jsonl, trials.json.

    Raises:
        ValueError: vocabulary or labels do not fit the model.
        TypeError: JSON cannot hold `extra`, or what the tokenizer is made of.
        OSError: as `check_target`, or the disk is full. What was there before is there still.
    """
    _check_fit(model.config, vocabulary, labels)
    config = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "model": {"kind": model.kind, **model.config},
        "labels": list(labels),
        "extra": dict(extra or {}),
    }
    write_model_files(Path(directory), model, config, vocabulary, tokenizer or WordTokenizer(), overwrite, more_files)


def load_model(directory: str | Path) -> SavedModel:
    """Reads what `save_model` wrote.

    Raises:
        DataError: there is no such directory, or it holds no model, or not all of one. The message is one line.
    """
    directory = Path(directory)
    files = read_model_files(directory, _FORMAT, _FORMAT_VERSION)
    config = files.config
    check_entries(directory, config, {"labels": list})
    try:
        with NoRandomWeights():  # there are weights
            model = make_classifier(config["model"])
        _check_fit(model.config, files.vocabulary, config["labels"])
        model.load_state_dict(files.weights, assign=True)
        temperature = check_temperature(config.get("temperature", 1.0))
        _divide_logits(model, temperature)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise misfit(directory, error) from error
    return SavedModel(model.eval(), files.vocabulary, files.tokenizer, config["labels"], config["extra"], temperature)


def store_temperature(directory: str | Path, temperature: float, fitted_to: str | None = None) -> None:
    """Has `load_model` divide the logits by it from now on, instead of by the one that was stored before.

    The weights in the file stay as they are.

    Args:
        directory: with a model.
        temperature: above 0; see :func:`textclf_fast.judging.fit_temperature`.
        fitted_to: the fingerprint of the texts, which goes into ``extra`` as ``temperature_fitted_to``.

    Raises:
        ValueError: it is not a finite number above 0.
        DataError: as `load_model`.
        OSError: the directory is not writable.
    """
    config = read_model_files(Path(directory), _FORMAT, _FORMAT_VERSION).config
    config["temperature"] = check_temperature(temperature)
    config["extra"]["temperature_fitted_to"] = fitted_to
    write_atomically(Path(directory) / CONFIG, as_text(config))


def check_temperature(number: Any) -> float:
    """Refuses what is not a finite number above 0."""
    if isinstance(number, bool) or not isinstance(number, int | float) or not (math.isfinite(number) and number > 0):
        raise ValueError(f"temperature: expected a finite number above 0, got {number!r}")
    return float(number)


def _divide_logits(model: Classifier, temperature: float) -> None:
    """By way of the last layer, so that whatever is made of the model has them divided, too."""
    if temperature != 1:
        for name, parameter in list(model.fc.named_parameters()):
            setattr(model.fc, name, nn.Parameter(parameter.detach() / temperature))


def _check_fit(config: Mapping[str, Any], vocabulary: Vocabulary, labels: Sequence[str]) -> None:
    if len(vocabulary) != config["vocab_size"]:
        raise ValueError(f"vocabulary: expected {config['vocab_size']} tokens (vocab_size), got {len(vocabulary)}")
    if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
        raise TypeError(f"labels: expected a list of str, got {labels!r}")
    if len(labels) != config["output_dim"] or len(set(labels)) < len(labels):
        raise ValueError(f"labels: expected {config['output_dim']} different ones (output_dim), got {list(labels)}")
