"""Word vectors as a model's first ones: where they go, and what joins the vocabulary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_encoder import WORDS as ENCODER_WORDS
from tiny_encoder import encoder as encoder
from torch import nn

from textclf_fast.text import (
    BPETokenizer,
    CasedTokenizer,
    DataError,
    NgramTokenizer,
    Vocabulary,
    WordTokenizer,
    WordVectors,
)
from textclf_fast.text.encoder_words import WordEncoder
from textclf_fast.text.sentence_vectors import sentence_vectors
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


def test_what_an_encoder_says_of_words(encoder: Path) -> None:
    """Its vectors in other axes: they have the same angles and lengths, once their mean is taken away."""
    words = ["film", "good", "bad", "the", "zzz", "awful film"]
    found = WordEncoder(encoder).vectors(words)
    own = sentence_vectors(encoder, words).astype(np.float64)
    own -= own.mean(0)
    scale = 0.67 / found.std() * np.linalg.norm(found) / np.linalg.norm(own)
    np.testing.assert_allclose(found @ found.T, own @ own.T * scale**2, atol=2e-4)
    assert found.std() == pytest.approx(0.67, rel=1e-4)
    assert found.dtype == np.float32
    variances = (found**2).sum(0)
    assert (np.diff(variances) <= 1e-6 * variances[0]).all()  # the first numbers say most
    told: list[int] = []
    again = WordEncoder(encoder).vectors(words, told.append)
    np.testing.assert_array_equal(again, found)
    assert told == [len(words)]


def test_one_word(encoder: Path) -> None:
    """Which has no variance."""
    assert np.isfinite(WordEncoder(encoder).vectors(["film"])).all()


def test_fewer_numbers_than_the_encoder_has(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["film", "good", "bad", "the"]
    every = WordEncoder(encoder).vectors(words)
    monkeypatch.setattr("textclf_fast.text.encoder_words._NUMBERS", 2)
    first = WordEncoder(encoder).vectors(words)
    assert first.shape == (4, 2)
    ratio = np.linalg.norm(first) / np.linalg.norm(every[:, :2])
    np.testing.assert_allclose(first, every[:, :2] * ratio, atol=1e-4)


def test_words_of_an_encoder(encoder: Path) -> None:
    """All tokens of the texts but the special ones have a vector, and the encoder's own words join them."""
    told: list[tuple[int, int]] = []
    vocabulary = Vocabulary(["<pad>", "<unk>", "<cap>", "film", "nobody"])
    found = find_initial_vectors(encoder, vocabulary, CasedTokenizer(), 8, lambda *numbers: told.append(numbers))
    assert found.known.tolist() == [False, False, False, *[True] * 5]
    assert found.vocabulary.tokens[5:] == [*ENCODER_WORDS[:2], ENCODER_WORDS[3]]  # "film" is there already
    np.testing.assert_array_equal(found.values[3:], WordEncoder(encoder).vectors(found.vocabulary.tokens[3:]))
    assert not found.values[:3].any()
    assert told == [(5, 5)]
    assert (found.num_seen, found.num_known) == (5, 2)


def test_tokens_that_are_no_text(encoder: Path) -> None:
    """Pieces of words."""
    vocabulary = Vocabulary(["<pad>", "<unk>", "film", "~<fil", "good film"])
    assert (
        find_initial_vectors(encoder, vocabulary, NgramTokenizer()).known.tolist() == [False] * 2 + [True] + [False] * 2
    )
    with pytest.raises(DataError, match="none of the 2 tokens of the texts has a vector in it"):
        find_initial_vectors(encoder, Vocabulary(["<pad>", "<unk>"]), WordTokenizer())


def test_of_several(file: Path, encoder: Path) -> None:
    """Beside each other; where one has none, there are zeros."""
    found = find_initial_vectors([file, encoder], VOCABULARY, WordTokenizer(), 9)
    assert found.vocabulary.tokens[5:] == ["unseen", "other", "more", "a"]  # the file's first, then the encoder's
    assert found.dim == 3 + 16
    assert found.known.tolist() == [False, False, *[True] * 7]
    np.testing.assert_array_equal(found.values[[2, 4, 5, 6, 7], :3], VALUES[[2, 0, 3, 5, 6]])
    assert not found.values[[0, 1, 3, 8], :3].any()
    assert found.values[2:, 3:].any(1).all()
    assert found.sources == (str(file), str(encoder))


def test_one_of_several_that_has_none(file: Path, encoder: Path) -> None:
    vocabulary = Vocabulary(["<pad>", "<unk>", "zzz"])
    for max_size in (0, 100):
        with pytest.raises(
            DataError, match=r"vectors\.bin: no(ne of the 3 tokens of the texts has a vector| word vectors)"
        ):
            find_initial_vectors([encoder, file], vocabulary, WordTokenizer(), max_size)


@pytest.mark.parametrize("sources", [[], ["glove", "glove"]])
def test_bad_sources(sources: list[str]) -> None:
    with pytest.raises(ValueError, match="sources: expected at least one, and each once, got"):
        find_initial_vectors(sources, VOCABULARY, WordTokenizer())


def test_bytes_of_a_character_are_no_text(encoder: Path) -> None:
    pytest.importorskip("tokenizers")
    tokenizer = BPETokenizer.train(["good film"] * 3, 300)
    vocabulary = Vocabulary(["<pad>", "<unk>", *tokenizer("film 你")])
    known = find_initial_vectors(encoder, vocabulary, tokenizer).known.tolist()
    assert known == [False, False, True, *[False] * (len(vocabulary) - 3)]
    assert len(vocabulary) > 4
