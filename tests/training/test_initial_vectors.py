"""Word vectors as a model's first ones: where they go, and what joins the vocabulary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from textclf_fast.text import DataError, Vocabulary, WordTokenizer, WordVectors
from textclf_fast.text.word_vectors import word2vec_binary
from textclf_fast.training.initial_vectors import InitialVectors, find_initial_vectors

WORDS = ["the", "-lrb-", "film", "unseen", "u.s.", "other", "more"]
VALUES = np.random.default_rng(0).normal(size=(len(WORDS), 3)).astype(np.float32)
VOCABULARY = Vocabulary(["<pad>", "<unk>", "film", "nobody's", "the"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "vectors.bin"
    path.write_bytes(b"".join(word2vec_binary(WordVectors(WORDS, VALUES))))
    return path


def find(file: Path, max_size: int = 0) -> InitialVectors:
    return find_initial_vectors(file, VOCABULARY, WordTokenizer(), max_size)


def test_words_of_the_texts_alone(file: Path) -> None:
    found = find(file, max_size=5)
    assert found.vocabulary == VOCABULARY
    assert found.num_seen == 5
    assert found.num_known == 2
    assert found.known.tolist() == [False, False, True, False, True]
    np.testing.assert_array_equal(found.values[[2, 4]], VALUES[[2, 0]])
    assert not found.values[[0, 1, 3]].any()


def test_words_that_join_are_the_first_that_the_tokenizer_makes(file: Path) -> None:
    found = find(file, max_size=7)
    assert found.vocabulary.tokens[5:] == ["unseen", "other"]  # "-lrb-" and "u.s." are several tokens
    np.testing.assert_array_equal(found.values[5:], VALUES[[3, 5]])
    assert found.num_seen == 5
    assert find(file, max_size=100).vocabulary.tokens[5:] == ["unseen", "other", "more"]


def test_none_is_known(file: Path) -> None:
    with pytest.raises(DataError, match="none of the 3 tokens of the texts has a vector in it"):
        find_initial_vectors(file, Vocabulary(["<pad>", "<unk>", "zzz"]), WordTokenizer(), 100)


def test_put_into_an_embedding(file: Path) -> None:
    found = find(file, max_size=7)
    embedding = nn.Embedding(7, 5)
    drawn = embedding.weight.detach().clone()
    found.put_into(embedding)
    weight = embedding.weight.detach()
    assert torch.equal(weight[[0, 1, 3]], drawn[[0, 1, 3]])  # without a vector
    assert torch.equal(weight[[2, 4, 5, 6], :3], torch.from_numpy(VALUES[[2, 0, 3, 5]]))
    assert torch.equal(weight[[2, 4], 3:], drawn[[2, 4], 3:])  # to be learnt
    assert not weight[5:, 3:].any()  # nobody will learn them
    assert embedding.weight.requires_grad


def test_scaled(file: Path) -> None:
    found = find(file)
    embedding = nn.Embedding(5, 3)
    found.put_into(embedding, std=0.1)
    vectors = embedding.weight.detach()[torch.from_numpy(found.known)]
    torch.testing.assert_close(vectors.std(), torch.tensor(0.1))
    torch.testing.assert_close(vectors / vectors.norm(), found_vectors(found) / found_vectors(found).norm())


def found_vectors(found: InitialVectors) -> torch.Tensor:
    return torch.from_numpy(found.values[found.known])


def test_an_embedding_of_another_size(file: Path) -> None:
    with pytest.raises(ValueError, match="embedding: expected 5 vectors, got 6"):
        find(file).put_into(nn.Embedding(6, 3))
    with pytest.raises(ValueError, match="embedding: expected at least 3 numbers a word, got 2"):
        find(file).put_into(nn.Embedding(5, 2))
