"""Text -> words, n-grams or characters, and the choice of a tokenizer by its kind."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from textclf_fast.text.bpe import BPETokenizer

# Of texts in ASCII csrc/host/words.cpp finds the same tokens, and tests/text/test_words.py compares the two.
_PATTERN = r"""
      [^\W\d_]+(?!['\w])                 # most words, found without a look at what follows below
    | \d+(?:[.,:]\d+)+                   # 3.5   1,000   20:15
    | [^\W_]+(?='(?:s|m|d|re|ve|ll)\b)   # film in film's: the ending is a token of its own, so that a name and its
    | '(?:s|m|d|re|ve|ll)\b              #   possessive share one entry of the vocabulary
    | [^\W_]+(?:'[^\W_]+)*               # good   don't   o'clock: a negation stays one word
    | \.{2,} | -{2,}                     # a run of dots or dashes means one thing
    | [^\w\s] | _
"""
_TOKEN = re.compile(_PATTERN, re.VERBOSE)
_TOKEN_OF_ANY_CASE = re.compile(_PATTERN, re.VERBOSE | re.IGNORECASE)
CAPITALIZED, ALL_CAPITALS = "<cap>", "<caps>"  # the expression finds three tokens in these: no word is one of them
_ENDINGS = {"'s", "'m", "'d", "'re", "'ve", "'ll"}
_CLOSING = set(".,;:!?)")  # written without a space before them
_APOSTROPHES = "’‘ʼ"  # noqa: RUF001 (these are the characters meant)


class Tokenizer(Protocol):
    """Text -> tokens; keeps no state, so that threads may share it."""

    @property
    def config(self) -> dict[str, Any]:
        """What makes it again, by :func:`make_tokenizer`: its ``kind``, and whatever else JSON can hold."""

    def __call__(self, text: str) -> list[str]:
        """The tokens of a text in their order."""

    def detokenize(self, tokens: Sequence[str]) -> str:
        """A text of these tokens, with white space where it is usual.

        Of tokens that come from a text it has the same again, but for some of rare characters: é's_ and aİ.
        """


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
        return _TOKEN.findall(_normal_form(text).lower())

    def detokenize(self, tokens: Sequence[str]) -> str:
        """A text of these words, in small letters."""
        return _join_words(tokens)


class CasedTokenizer:
    """As `WordTokenizer`, with a mark before each word that begins with a capital letter, or has no other letters.

    A word is one word however it is written, and yet "US" is not "us", "What is SAP?" asks for an abbreviation, and
    "FREE" is louder than "free". As fastai's tokenizer does: J. Howard and S. Gugger, fastai: A Layered API for Deep
    Learning, 2020. Keeps no state, so it may be shared.

    >>> CasedTokenizer()("What is SAP?")
    ['<cap>', 'what', 'is', '<caps>', 'sap', '?']
    """

    config: dict[str, Any] = {"kind": "cased"}  # noqa: RUF012 (nobody changes it)

    def __call__(self, text: str) -> list[str]:
        """The tokens of `text` in their order; none for a text without a visible character.

        Raises:
            TypeError: `text` is not a str.
        """
        tokens = []
        for token in _TOKEN_OF_ANY_CASE.findall(_normal_form(text)):
            if len(token) > 1 and token.isupper():
                tokens.append(ALL_CAPITALS)
            elif token[0].isupper():
                tokens.append(CAPITALIZED)
            tokens.append(token.lower())
        return tokens

    def detokenize(self, tokens: Sequence[str]) -> str:
        """A text of these words, as the marks before them say; a mark before another, or at the end, says nothing."""
        words = []
        for mark, token in itertools.pairwise(("", *tokens)):
            if token in (CAPITALIZED, ALL_CAPITALS):
                continue
            if mark == CAPITALIZED:
                token = token[0].upper() + token[1:]
            elif mark == ALL_CAPITALS:
                token = token.upper()
            words.append(token)
        return _join_words(words)


class NgramTokenizer:
    """The words of a text, the pairs of neighbours among them, and the pieces of each word, for a model of bags.

    A bag of words alone knows neither "not good" nor that "directed" and "director" have something in common. As in A.
    Joulin et al., Bag of Tricks for Efficient Text Classification, EACL 2017, and P. Bojanowski et al., Enriching Word
    Vectors with Subword Information, TACL 2017, but that each n-gram has an entry of the vocabulary to itself.

    There are some ten tokens a word: a vocabulary of 100,000 is not too large. Keeps no state, so it may be shared.

    Args:
        words: The longest run of words that is a token; 1: no runs. The first word of a text is in a run with the
            empty word before it, too.
        characters: The shortest and the longest pieces of a word, which begins with < and ends with > there; None: no
            pieces. A piece begins with ~.

    Raises:
        ValueError: A number out of range.

    >>> NgramTokenizer(characters=(5, 5))("So good")
    ['so', 'good', ' so', 'so good', '~<good', '~good>']
    """

    def __init__(self, words: int = 2, characters: Sequence[int] | None = (3, 5)) -> None:
        if words < 1:
            raise ValueError(f"words: expected at least 1, got {words}")
        if characters is not None and not (len(characters) == 2 and 1 <= characters[0] <= characters[1]):
            raise ValueError(f"characters: expected two numbers from 1, the smaller first, or None, got {characters}")
        self.words = words
        self.characters = None if characters is None else (characters[0], characters[1])
        self._split = WordTokenizer()

    @property
    def config(self) -> dict[str, Any]:
        return {"kind": "ngram", "words": self.words, "characters": self.characters and list(self.characters)}

    def __call__(self, text: str) -> list[str]:
        """The tokens of `text`; none for a text without a visible character.

        Raises:
            TypeError: `text` is not a str.
        """
        words = self._split(text)
        tokens = list(words)
        bounded = ["", *words]
        for size in range(2, self.words + 1):
            tokens += [" ".join(bounded[place : place + size]) for place in range(len(bounded) - size + 1)]
        if self.characters is not None:
            shortest, longest = self.characters
            for word in words:
                letters = f"<{word}>"
                for size in range(shortest, longest + 1):
                    tokens += ["~" + letters[place : place + size] for place in range(len(letters) - size + 1)]
        return tokens

    def detokenize(self, tokens: Sequence[str]) -> str:
        """A text of the words among the tokens."""
        return _join_words([token for token in tokens if " " not in token and (token[0] != "~" or token == "~")])


class CharacterTokenizer:
    """Splits a text into its characters; white space, however long, is one space, and none at the ends.

    Keeps no state, so it may be shared.

    Args:
        lower: Capital letters become small ones.

    >>> CharacterTokenizer(lower=True)("A  tea")
    ['a', ' ', 't', 'e', 'a']
    """

    def __init__(self, lower: bool = False) -> None:
        self.lower = lower

    @property
    def config(self) -> dict[str, Any]:
        return {"kind": "character", "lower": self.lower}

    def __call__(self, text: str) -> list[str]:
        """The characters of `text` in their order; none for a text without a visible character.

        Raises:
            TypeError: `text` is not a str.
        """
        _check_text(text)
        if self.lower:
            text = text.lower()
        if not text.isascii():
            text = unicodedata.normalize("NFC", text)
        return list(" ".join(text.split()))

    def detokenize(self, tokens: Sequence[str]) -> str:
        """A text of these characters, with white space as in the text that a text's tokens are of."""
        return " ".join("".join(tokens).split())


def _normal_form(text: str) -> str:
    """One character, one way to write it: é is not e + accent."""
    _check_text(text)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
        for apostrophe in _APOSTROPHES:  # translate() takes some 40 times as long
            text = text.replace(apostrophe, "'")
    return text


def _join_words(words: Sequence[str]) -> str:
    text = ""
    before = " "
    for word in words:
        closes = word in _CLOSING and before[-1] != word  # two dots would be one token
        ends = word.lower() in _ENDINGS and before.isalnum()
        if text and before != "(" and not (closes or ends):
            text += " "
        text += word
        before = word
    return text


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(f"text: expected a str, got {type(text).__name__}")


_KINDS: dict[str, Any] = {
    "word": WordTokenizer,
    "cased": CasedTokenizer,
    "ngram": NgramTokenizer,
    "character": CharacterTokenizer,
    "bpe": BPETokenizer,
}
TOKENIZER_KINDS = tuple(_KINDS)


def make_tokenizer(config: Mapping[str, Any]) -> Tokenizer:
    """A tokenizer from its `config`.

    Raises:
        ValueError: There is no such kind, or an argument is out of range.
        TypeError: Arguments that it does not take.
        DataError: It needs a package that is not installed.
    """
    arguments = dict(config)
    return _kind(arguments.pop("kind", None))(**arguments)


def tokenizer_for(kind: str, texts: Iterable[str], vocab_size: int = 10_000) -> Tokenizer:
    """A tokenizer of a kind with its defaults, for these texts to train on.

    Args:
        kind: One of `TOKENIZER_KINDS`.
        texts, vocab_size: What BPE learns from, and most entries of the vocabulary; the others need neither.

    Raises:
        ValueError, DataError: As `make_tokenizer`, or as `BPETokenizer.train`.
    """
    chosen = _kind(kind)
    return chosen.train(texts, vocab_size) if chosen is BPETokenizer else chosen()


def _kind(kind: object) -> Any:
    if kind not in _KINDS:
        raise ValueError(f"kind: expected one of {', '.join(_KINDS)}, got {kind!r}")
    return _KINDS[kind]
