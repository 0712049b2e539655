"""The data sets and word vectors that can be fetched, as they are, where they can be had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from textclf_fast.text import (
    CORPORA,
    DATASETS,
    VECTORS,
    DataError,
    fetch,
    load_dataset,
    load_unlabelled,
    load_vectors,
    split,
)
from textclf_fast.text.datasets import cache_directory

LARGE = ("trec", "sms", "20ng", "r8", "r52", "movie_dialog", "glove")  # to download


def fetched(name: str) -> Path:
    """A data set; the test is skipped where it cannot be had, or is a large download that nobody has asked for."""
    suffix = (DATASETS | CORPORA | VECTORS)[name].suffix
    if name in LARGE and not (cache_directory() / f"{name}{suffix}").is_file():
        pytest.skip(f"not in the cache, and large: textclf-fast data {name}")
    try:
        return fetch(name)
    except DataError as error:
        if "could not be downloaded" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.mark.network
def test_rt() -> None:
    fetched("rt")
    train, test = load_dataset("rt", "train"), load_dataset("rt", "test")
    labels = train.labels + test.labels
    assert (len(labels), labels.count("fresh"), labels.count("rotten")) == (12_808, 7_403, 5_405)
    assert (len(train), len(test)) == (10_246, 2_562)
    assert train.groups is not None
    assert test.groups is not None
    assert len({*train.groups, *test.groups}) == 508
    assert not set(train.groups) & set(test.groups)
    assert not {text.casefold() for text in train.texts} & {text.casefold() for text in test.texts}
    texts = train.texts + test.texts
    assert all(text == " ".join(text.split()) and text for text in texts)
    assert not any("&amp;" in text or "&quot;" in text for text in texts)


@pytest.mark.network
@pytest.mark.parametrize(
    ("name", "sizes", "classes"),
    [
        ("langid60", (48_000, 12_000), 60),
        ("trec", (4_305, 1_076), 6),
        ("sms", (3_870, 967), 2),
        ("20ng", (11_286, 7_528), 20),
        ("r8", (5_480, 2_189), 8),
        ("r52", (6_524, 2_568), 52),
    ],
)
def test_parts(name: str, sizes: tuple[int, int], classes: int) -> None:
    fetched(name)
    train, test = split(load_dataset(name))
    assert (len(train), len(test)) == sizes
    assert train.classes == test.classes
    assert len(train.classes) == classes
    assert not {text.casefold() for text in train.texts} & {text.casefold() for text in test.texts}
    if train.groups is not None:
        assert test.groups is not None
        assert not set(train.groups) & set(test.groups)


@pytest.mark.network
@pytest.mark.parametrize(("name", "words"), [("movie_dialog", 864_875), ("rt_plots", 120_043), ("news", 2_071_655)])
def test_corpora(name: str, words: int) -> None:
    fetched(name)
    texts = load_unlabelled(name)
    assert sum(len(text.split()) for text in texts) == words
    assert len(set(texts)) == len(texts)


@pytest.mark.network
def test_glove() -> None:
    vectors = load_vectors(fetched("glove"))
    assert vectors.values.shape == (400_000, 50)
    assert list(vectors.words[:3]) == ["the", ",", "."]
    found, known = vectors.look_up(["king", "queen", "don't", "cabbage"])
    assert known.all()
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    assert found[0] @ found[1] > 0.7 > 0.3 > found[0] @ found[3]
