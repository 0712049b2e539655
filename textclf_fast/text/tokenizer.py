"""Text -> words."""

from __future__ import annotations

import re
import unicodedata

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


class WordTokenizer:
    """Splits a text into lower-cased words, numbers and punctuation marks. Keeps no state, so it may be shared.

    >>> WordTokenizer()("It's Amélie's best, don't miss it...")
    ['it', "'s", 'amélie', "'s", 'best', ',', "don't", 'miss', 'it', '...']
    """

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
