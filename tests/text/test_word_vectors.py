"""Reading word vectors: each format gives the same, what is wrong with a file is said, and what is looked up."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from textclf_fast.text import DataError, WordVectors, read_word_vectors
from textclf_fast.text.word_vectors import looked_up, word2vec_binary

WORDS = ["the", "film", "amélie", "do", "n't"]
VALUES = np.arange(15, dtype=np.float32).reshape(5, 3) / 8 - 0.5  # short as decimals, exact as float32
TEXT = "".join(f"{word} {' '.join(map(str, row))}\n" for word, row in zip(WORDS, VALUES.tolist(), strict=True))
VECTORS = WordVectors(WORDS, VALUES)


def with_line_feeds() -> bytes:
    header, *entries = word2vec_binary(VECTORS)
    return header + b"".join(entry + b"\n" for entry in entries)


FILES = {
    "glove.txt": TEXT.encode(),
    "fasttext.vec": b"5 3\n" + TEXT.replace("\n", " \n").encode(),  # fastText leaves a space behind
    "word2vec.bin": b"".join(word2vec_binary(VECTORS)),
    "feeds.bin": with_line_feeds(),
    # without a time stamp: bytes name a test, and several workers have to agree on its name
    "glove.txt.gz": gzip.compress(TEXT.encode(), mtime=0),
    "word2vec.bin.gz": gzip.compress(b"".join(word2vec_binary(VECTORS)), mtime=0),
}


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", FILES)
def test_formats(tmp_path: Path, name: str) -> None:
    vectors = read_word_vectors(write(tmp_path, name, FILES[name]))
    assert list(vectors.words) == WORDS
    np.testing.assert_array_equal(vectors.values, VALUES)
    assert vectors.values.dtype == np.float32
    assert vectors.dim == 3


@pytest.mark.parametrize("name", ["glove.txt", "word2vec.bin"])
def test_what_is_wanted_alone_is_kept(tmp_path: Path, name: str) -> None:
    asked: list[str] = []

    def wanted(word: str) -> bool:
        asked.append(word)
        return word in ("film", "do")

    vectors = read_word_vectors(write(tmp_path, name, FILES[name]), wanted)
    assert asked == WORDS
    assert list(vectors.words) == ["film", "do"]
    np.testing.assert_array_equal(vectors.values, VALUES[[1, 3]])


def test_a_file_larger_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textclf_fast.text.word_vectors._BLOCK", 7)
    vectors = read_word_vectors(write(tmp_path, "a.bin", FILES["feeds.bin"]))
    assert list(vectors.words) == WORDS
    np.testing.assert_array_equal(vectors.values, VALUES)


def test_the_first_of_two_vectors(tmp_path: Path) -> None:
    vectors = read_word_vectors(write(tmp_path, "a.txt", b"a 1 2\nb 3 4\na 5 6\n"))
    assert list(vectors.words) == ["a", "b"]
    np.testing.assert_array_equal(vectors.values, [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "no word vectors"),
        ("a.vec", b"2 3\n", "no word vectors"),
        ("a.txt", b"a 1 2\nb\n", r"line 2: expected a word and its numbers, got b'b'"),
        ("a.txt", b"a 1 2\nb 1\n", "line 2: expected 2 numbers, got 1"),
        ("a.txt", b"a 1 x\n", "line 1: expected a word and its numbers: could not convert string to float"),
        ("a.txt", b"a 1 nan\n", "line 1: expected finite numbers behind 'a'"),
        ("a.txt", b"\x00" * 5000, "line 1: expected a word and its numbers"),
        ("a.bin", TEXT.encode(), "expected word2vec's binary format"),
        ("a.bin", b"3 0\n", "expected word2vec's binary format"),
        ("a.bin", FILES["word2vec.bin"][:-1], "the file ends within word 5 of 5"),
        ("a.bin", b"1 2\n" + b"x" * 5000, "word 1: expected a word and a space"),
        ("a.bin", b"1 1\na " + np.float32(np.inf).tobytes(), "word 1: expected finite numbers"),
        ("a.bin", (793712314).to_bytes(4, "little") + b"\x0c\x00\x00\x00", "a fastText model; expected its word vec"),
        ("a.txt.gz", TEXT.encode(), "cannot be read"),
        ("a.txt.gz", FILES["glove.txt.gz"][:-9], "cannot be read"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(DataError, match=message) as caught:
        read_word_vectors(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.vec: cannot be read: No such file"):
        read_word_vectors(tmp_path / "none.vec")


def test_none_of_the_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no word vectors of these words"):
        read_word_vectors(write(tmp_path, "a.txt", TEXT.encode()), lambda word: False)


def test_look_up() -> None:
    found, known = VECTORS.look_up(["film", "don't", "nobody", "can't", "n't", "isn't"])
    assert known.tolist() == [True, True, False, True, True, True]
    np.testing.assert_array_equal(found[0], VALUES[1])
    np.testing.assert_array_equal(found[1], (VALUES[3] + VALUES[4]) / 2)
    np.testing.assert_array_equal(found[2], 0)
    np.testing.assert_array_equal(found[3], VALUES[4])  # "ca" is not among the words
    np.testing.assert_array_equal(found[4], VALUES[4])
    whole = WordVectors([*WORDS, "don't"], np.vstack([VALUES, np.ones((1, 3), np.float32)]))
    np.testing.assert_array_equal(whole.look_up(["don't"])[0], [[1, 1, 1]])


def test_what_may_be_looked_up() -> None:
    assert looked_up(["film", "don't"]) == {"film", "don't", "do", "n't"}
