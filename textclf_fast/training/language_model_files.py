"""A trained language model on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textclf_fast.models import LanguageModel
from textclf_fast.storage.directory import misfit, read_model_files, write_model_files
from textclf_fast.storage.no_random_weights import NoRandomWeights
from textclf_fast.text import Tokenizer, Vocabulary

_FORMAT = "textclf_fast language model"
_FORMAT_VERSION = 1


@dataclass(frozen=True)
class SavedLanguageModel:
    """What `load_language_model` reads.

    Attributes:
        model: in eval mode, on the CPU.
        vocabulary: of V tokens.
        tokenizer: whose tokens these are.
        extra: what else was saved with it.
    """

    model: LanguageModel
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    extra: dict[str, Any]


def save_language_model(
    directory: str | Path,
    model: LanguageModel,
    vocabulary: Vocabulary,
    tokenizer: Tokenizer,
    extra: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Writes a language model as `save_model` writes a classifier.

    Raises:
        ValueError: the vocabulary does not fit the model.
        TypeError, OSError: as `save_model`.
    """
    _check_fit(model.config, vocabulary)
    config = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "model": model.config,
        "extra": dict(extra or {}),
    }
    write_model_files(Path(directory), model, config, vocabulary, tokenizer, overwrite)


def load_language_model(directory: str | Path) -> SavedLanguageModel:
    """Reads what `save_language_model` wrote.

    Raises:
        DataError: there is no such directory, or it holds no language model, or not all of one. The message is one
            line.
    """
    directory = Path(directory)
    files = read_model_files(directory, _FORMAT, _FORMAT_VERSION)
    try:
        with NoRandomWeights():  # there are weights
            model = LanguageModel(**files.config["model"])
        _check_fit(model.config, files.vocabulary)
        model.load_state_dict(files.weights, assign=True)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise misfit(directory, error) from error
    return SavedLanguageModel(model.eval(), files.vocabulary, files.tokenizer, files.config["extra"])


def _check_fit(config: Mapping[str, Any], vocabulary: Vocabulary) -> None:
    if len(vocabulary) != config["vocab_size"]:
        raise ValueError(f"vocabulary: expected {config['vocab_size']} tokens (vocab_size), got {len(vocabulary)}")
