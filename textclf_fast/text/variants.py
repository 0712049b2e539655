"""Variants of texts: what a teacher is asked about where there are no other texts without a label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_LEFT_OUT, _REPLACED, _CUT = 0.1, 0.1, 0.25  # of words, of words, and of texts
_LONGEST_RUN = 5  # of words, which a text is cut down to


def make_variants(texts: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """Texts like these, and like no sentence that anybody would write: only a teacher can say what they are.

    Each word, whatever stands between white space, is left out or replaced by a word from anywhere in the texts, with a
    probability of 0.1 each; and of every fourth text a run of 1 to 5 words alone remains. After R. Tang and others,
    Distilling Task-Specific Knowledge from BERT into Simple Neural Networks, 2019, who mask words instead of leaving
    them out, and replace them by words of the same part of speech.

    Args:
        texts: n texts.
        count: of variants of each text; 0: none.
        seed: of what is drawn.

    Returns:
        at most n * count texts, all of them different and none of `texts`, in the order of these.

    Raises:
        ValueError: count or seed below 0.
    """
    for name, number in (("count", count), ("seed", seed)):
        if number < 0:
            raise ValueError(f"{name}: expected at least 0, got {number}")
    generator = np.random.default_rng(seed)
    split = [text.split() for text in texts]
    words = [word for each in split for word in each]
    found = dict.fromkeys(texts)  # a set that knows the order
    for each in split:
        for _ in range(count if each else 0):
            variant = _variant(each, words, generator)
            if variant:
                found.setdefault(" ".join(variant))
    return list(found)[len(dict.fromkeys(texts)) :]


def _variant(text: list[str], words: list[str], generator: np.random.Generator) -> list[str]:
    drawn = generator.random(len(text))
    others = generator.integers(0, len(words), len(text))
    variant = [
        words[other] if number < _LEFT_OUT + _REPLACED else word
        for word, number, other in zip(text, drawn, others, strict=True)
        if number >= _LEFT_OUT
    ]
    if variant and generator.random() < _CUT:
        length = min(len(variant), int(generator.integers(1, _LONGEST_RUN + 1)))
        start = int(generator.integers(0, len(variant) - length + 1))
        return variant[start : start + length]
    return variant
