"""Variants of texts, for a teacher."""

from __future__ import annotations

import numpy as np
import pytest

from textclf_fast.text.variants import make_variants

TEXTS = [" ".join(f"w{row}.{place}" for place in range(20)) for row in range(200)]


def test_most_words_stay_in_their_order() -> None:
    """A tenth is left out, a tenth is from anywhere; a fourth of the texts are runs of 1 to 5 words."""
    variants = make_variants(TEXTS, 5)
    assert len(variants) == len(set(variants))
    assert not set(variants) & set(TEXTS)
    runs = [each.split() for each in variants if len(each.split()) <= 5]
    whole = [each.split() for each in variants if len(each.split()) > 5]
    assert len(whole) / 1000 == pytest.approx(0.75, abs=0.04)
    assert {len(run) for run in runs} == {1, 2, 3, 4, 5}
    assert np.mean([len(words) for words in whole]) == pytest.approx(18, abs=0.2)
    kept = []
    for words in whole:
        owner = max({word.split(".")[0] for word in words}, key=lambda row: sum(w.startswith(f"{row}.") for w in words))
        own = [int(word.split(".")[1]) for word in words if word.startswith(f"{owner}.")]
        kept.append(len(own) / len(words))
        assert np.mean(np.diff(own) > 0) > 0.6  # but for a word of its own that came back in another place
    assert np.mean(kept) == pytest.approx(1 - 0.1 / 0.9, abs=0.01)


def test_the_seed_decides_all() -> None:
    assert make_variants(TEXTS, 2) == make_variants(TEXTS, 2)
    assert make_variants(TEXTS, 2, seed=1) != make_variants(TEXTS, 2)


def test_texts_of_which_there_is_little() -> None:
    assert make_variants([], 3) == []
    assert make_variants(["", "  "], 3) == []
    assert make_variants(["word"], 100) == []  # nothing but itself comes of it, or nothing
    assert set(make_variants(["a", "b"], 50)) == set()
    assert make_variants(["one two"], 1000)
    assert make_variants(TEXTS, 0) == []
    assert all(each.strip() for each in make_variants(["one two", "three"], 1000))


def test_bad_numbers() -> None:
    with pytest.raises(ValueError, match="count: expected at least 0, got -1"):
        make_variants(TEXTS, -1)
    with pytest.raises(ValueError, match="seed: expected at least 0, got -2"):
        make_variants(TEXTS, 1, -2)
