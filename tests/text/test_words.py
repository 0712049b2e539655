"""What is ASCII is encoded without tokens being made (csrc/host/words.h): as the tokenizers define them."""

from __future__ import annotations

import copy
import pickle
import random
import string

import numpy as np
import pytest

from textclf_fast.text import (
    CasedTokenizer,
    DataError,
    Tokenizer,
    Vocabulary,
    WordTokenizer,
    encode_texts,
    load_dataset,
)

tokenizer, cased = WordTokenizer(), CasedTokenizer()
# What the expression treats apart, most often in numbers and abbreviations.
HARD = ["'", "'s", "'re", "'ll", "'ve", "'m", "'d", "'l", "'t", ".", "..", "-", "--", ",", ":", "_", "0", "12", "3.5"]
HARD += ["a", "s", "S", "re", "ll", "LL", "Don't", "IT'S", "o'clock", "U2", "B", "MacX", "<unk>"]
HARD += " \t\n\x0b\x1c\x1f\x00\x7f"
# Composed, to be composed, quotes, what lower() makes longer or looks around for, spaces, of four bytes.
OTHER = ["é", "E\u0301", "\u0301", "’", "‘s", "İ", "Σ", "ß", "\xa0", "\u2028", "\x85", "…", "字", "٣", "𝐀", "\ud800"]  # noqa: RUF001
OTHER += ["É", "\u017f"]  # a long s, which is an s where capital letters do not matter


def _assert_alike(texts: list[str], vocabulary: Vocabulary) -> None:
    for known in (tokenizer, cased):
        _assert_found(texts, known, vocabulary)


def _assert_found(texts: list[str], known: Tokenizer, vocabulary: Vocabulary) -> None:
    ours, expected = encode_texts(texts, known, vocabulary), encode_texts(texts, lambda text: known(text), vocabulary)
    assert ours.values.dtype == ours.offsets.dtype == np.int64
    for number, text in enumerate(texts):
        assert ours[number].tolist() == expected[number].tolist(), (text, known(text))
    assert len(ours) == len(texts)


def _vocabulary(texts: list[str]) -> Vocabulary:
    """Of all tokens: equal ids are equal tokens."""
    return Vocabulary.build((known(text) for text in texts for known in (tokenizer, cased)), max_size=10**6)


@pytest.mark.parametrize("seed", range(5))
def test_random_texts(seed: int) -> None:
    draw = random.Random(seed)
    pieces = HARD if seed else list(map(chr, range(128)))
    texts = ["".join(draw.choices(pieces, k=draw.randrange(12))) for _ in range(20_000)]
    _assert_alike(texts, _vocabulary(texts))


def test_every_pair_and_triple_of_kinds() -> None:
    alphabet = "aZs0'.,:-_ \x1c!"
    texts = [a + b + c + d for a in alphabet for b in alphabet for c in alphabet for d in alphabet]
    _assert_alike(texts, _vocabulary(texts))


@pytest.mark.parametrize("seed", range(3))
def test_random_texts_that_are_not_ascii(seed: int) -> None:
    """Words of both kinds, and ASCII between them that is shorter and longer than what goes to Python with them."""
    draw = random.Random(seed)
    pieces = [*HARD, *[" "] * 20, *OTHER, *["a longer piece of ASCII, it's"] * 2 * seed]
    texts = ["".join(draw.choices(pieces, k=draw.randrange(24))) for _ in range(20_000)]
    _assert_alike(texts, _vocabulary(texts))


@pytest.mark.network
def test_review_sentences() -> None:
    try:
        texts = load_dataset("rt", "train").texts
    except DataError as error:
        if "could not be downloaded" not in str(error):
            raise
        pytest.skip(str(error))
    _assert_alike(texts, _vocabulary(texts))


def test_other_texts_keep_their_places() -> None:
    texts = ["a film", "", "Amélie’s best", "   ", "ça va", "it's", "\ud800 lone", "fine"]  # noqa: RUF001
    vocabulary = _vocabulary([*texts[:4], "\ud800"])
    _assert_alike(texts, vocabulary)
    _assert_alike([], vocabulary)
    assert encode_texts(["", "zzz"], tokenizer, vocabulary).values.tolist() == [1, 1]


def test_many_words_and_long_ones() -> None:
    draw = random.Random(0)
    words = ["".join(draw.choices(string.ascii_lowercase, k=draw.randrange(1, 9))) for _ in range(50_000)]
    text = " ".join(words)
    _assert_alike([text, "x" * 10**6, text.upper()], Vocabulary.build([words[::2]], max_size=20_000))


def test_copies_of_a_vocabulary() -> None:
    vocabulary = Vocabulary(["<pad>", "<unk>", "good"])
    assert encode_texts(["Good"], tokenizer, vocabulary).values.tolist() == [2]
    for other in (pickle.loads(pickle.dumps(vocabulary)), copy.deepcopy(vocabulary)):
        assert other == vocabulary
        assert encode_texts(["Good film"], tokenizer, other).values.tolist() == [2, 1]


def test_what_is_no_text() -> None:
    with pytest.raises(TypeError, match="expected"):
        encode_texts(["a", 3], tokenizer, Vocabulary(["<pad>", "<unk>"]))  # type: ignore[list-item]
