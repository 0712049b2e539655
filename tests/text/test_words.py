"""Texts in ASCII are encoded without their tokens being made (csrc/host/words.h): as WordTokenizer defines them."""

from __future__ import annotations

import copy
import pickle
import random
import string

import numpy as np
import pytest

from textclf_fast.text import RaggedTokens, Vocabulary, WordTokenizer, encode_texts

tokenizer = WordTokenizer()
# What the expression treats apart, most often in numbers and abbreviations.
HARD = ["'", "'s", "'re", "'ll", "'ve", "'m", "'d", "'l", "'t", ".", "..", "-", "--", ",", ":", "_", "0", "12", "3.5"]
HARD += [
    "a",
    "s",
    "re",
    "ll",
    "Don't",
    "IT'S",
    "o'clock",
    " ",
    "\t",
    "\n",
    "\x0b",
    "\x1c",
    "\x1f",
    "\x00",
    "\x7f",
    "<unk>",
]


def _in_python(texts: list[str], vocabulary: Vocabulary) -> RaggedTokens:
    return encode_texts(texts, lambda text: tokenizer(text), vocabulary)


def _assert_alike(texts: list[str], vocabulary: Vocabulary) -> None:
    ours, expected = encode_texts(texts, tokenizer, vocabulary), _in_python(texts, vocabulary)
    assert ours.values.dtype == ours.offsets.dtype == np.int64
    for number, text in enumerate(texts):
        assert ours[number].tolist() == expected[number].tolist(), (text, tokenizer(text))
    assert len(ours) == len(texts)


def _vocabulary(texts: list[str]) -> Vocabulary:
    """Of all tokens: equal ids are equal tokens."""
    return Vocabulary.build(map(tokenizer, texts), max_size=10**6)


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
