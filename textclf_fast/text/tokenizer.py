"""Text -> words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Protocol

_TOKEN = re.compile(
    r"""
      \d+(?:[.,:]\d+)+                   # 3.5   1,000   20:15
    | [^\W_]+(?='(?:s|m|d|re|ve|ll)\b)   # film in film's: the ending is a token of its own, so that a name and its
    | '(?:s|m|d|re|ve|ll)\b              #   possessive share one entry of the vocabulary
    | [^\W_]+(?:'[^\W_]+)*               # good   don't   o'clock: a negation stays one word
    | \.{2,} | -{2,}                     # a run of dots or dashes means one thing
    | [^\w\s] | _
    """,
    re.VERBOSE,
)
_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'"})  # noqa: RUF001 (these are the characters meant)


class Tokenizer(Protocol):
    """Text -> tokens; keeps no state, so that threads may share it."""

    @property
    def config(self) -> dict[str, Any]:
        """What makes it again, by :func:`make_tokenizer`: its ``kind``, and whatever else JSON can hold."""

    def __call__(self, text: str) -> list[str]:
        """The tokens of a text in their order."""


class WordTokenizer:
    """Splits a text into lower-cased words, numbers and punctuation marks. Keeps no state, so it may be shared.

    >>> WordTokenizer()("It's Amélie's best, don't miss it...")
    ['it', "'s", 'amélie', "'s", 'best', ',', "don't", 'miss', 'it', '...']
    """

    config: dict[str, Any] = {"kind": "word"}  # noqa: RUF012 (nobody changes it)

    def __call__(self, text: str) -> list[str]:
        """The tokens of `text` in their order; none for a text without a visible character.

        Raises:
            TypeError: `text` is not a str.
        """
        if not isinstance(text, str):
            raise TypeError(f"text: expected a str, got {type(text).__name__}")
        if not text.isascii():  # one character, one way to write it: é is not e + accent
            text = unicodedata.normalize("NFC", text).translate(_APOSTROPHES)
        return _TOKEN.findall(text.lower())


_KINDS = {"word": WordTokenizer}


def make_tokenizer(config: Mapping[str, Any]) -> Tokenizer:
    """A tokenizer from its `config`.

    Raises:
        ValueError: There is no such kind, or an argument is out of range.
        TypeError: Arguments that it does not take.
    """
    arguments = dict(config)
    kind = arguments.pop("kind", None)
    if kind not in _KINDS:
        raise ValueError(f"kind: expected one of {', '.join(_KINDS)}, got {kind!r}")
    return _KINDS[kind](**arguments)
