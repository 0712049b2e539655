"""Vocabulary: building, numbering, saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from textclf_fast.text import PAD_ID, UNK_ID, DataError, Vocabulary

TEXTS = [["b", "a", "b"], ["c", "a", "b"], ["d", "é"]]


def test_most_frequent_first_and_ties_in_alphabetical_order() -> None:
    assert Vocabulary.build(TEXTS).tokens == ["<pad>", "<unk>", "b", "a", "c", "d", "é"]
    assert Vocabulary.build(TEXTS[::-1]) == Vocabulary.build(TEXTS)


def test_limits() -> None:
    assert Vocabulary.build(TEXTS, max_size=4).tokens == ["<pad>", "<unk>", "b", "a"]
    assert len(Vocabulary.build(TEXTS, max_size=2)) == 2
    assert Vocabulary.build(TEXTS, min_frequency=2).tokens == ["<pad>", "<unk>", "b", "a"]
    assert Vocabulary.build([]).tokens == ["<pad>", "<unk>"]
    assert Vocabulary.build(iter([iter(["<unk>", "<pad>", "x"])])).tokens == ["<pad>", "<unk>", "x"]


def test_encode() -> None:
    vocabulary = Vocabulary.build(TEXTS)
    ids = vocabulary.encode(["a", "nowhere", "<pad>", "b"])
    assert ids.tolist() == [3, UNK_ID, PAD_ID, 2]
    assert ids.dtype == np.int64
    assert vocabulary.encode([]).shape == (0,)
    assert "a" in vocabulary
    assert "nowhere" not in vocabulary
    assert hash(vocabulary) == hash(Vocabulary(vocabulary.tokens))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: Vocabulary.build(TEXTS, max_size=1), ValueError, "max_size: expected at least 2, got 1"),
        (lambda: Vocabulary.build(TEXTS, min_frequency=0), ValueError, "min_frequency: expected at least 1, got 0"),
        (lambda: Vocabulary.build(["a text"]), TypeError, "token_lists: expected lists of tokens, got a str"),
        (lambda: Vocabulary(["a", "b"]), ValueError, "tokens: expected .* at the beginning, got"),
        (lambda: Vocabulary([]), ValueError, "tokens: expected .* at the beginning"),
        (lambda: Vocabulary(["<pad>", "<unk>", "a", "b", "a"]), ValueError, "tokens: 'a' is there twice"),
        (lambda: Vocabulary(["<pad>", "<unk>", 3]), TypeError, "tokens: expected str at place 2, got int"),  # type: ignore[list-item]
        (lambda: Vocabulary.build(TEXTS).encode("abc"), TypeError, "tokens: expected a list of tokens, got a str"),
    ],
)
def test_refused(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_comes_back_from_a_file(tmp_path: Path) -> None:
    vocabulary = Vocabulary.build([*TEXTS, ['"', "\\", "\u2028", "日本"]])
    vocabulary.save(tmp_path / "vocabulary.json")
    vocabulary.save(str(tmp_path / "vocabulary.json"))
    assert Vocabulary.load(tmp_path / "vocabulary.json") == vocabulary
    assert [path.name for path in tmp_path.iterdir()] == ["vocabulary.json"]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    Vocabulary.build(TEXTS).save(path)
    with pytest.raises(UnicodeEncodeError):
        Vocabulary.build([["\ud800"]]).save(path)
    assert Vocabulary.load(path) == Vocabulary.build(TEXTS)
    assert [path.name for path in tmp_path.iterdir()] == ["vocabulary.json"]
    with pytest.raises(FileNotFoundError):
        Vocabulary.build(TEXTS).save(tmp_path / "nowhere" / "vocabulary.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a vocabulary: Expecting value"),
        (b"{}", "not a vocabulary: no entry 'tokens'"),
        (b"[]", "not a vocabulary: list indices"),
        (b'{"tokens": 3}', "not a vocabulary: 'int' object"),
        (b'{"tokens": ["a"]}', "not a vocabulary: tokens: expected"),
        (b'{"tokens": ["<pad>", "<unk>", "\xff"]}', "not a vocabulary: 'utf-8' codec"),
        (b"[" * 100_000, "not a vocabulary: "),
    ],
)
def test_damaged_file(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "vocabulary.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        Vocabulary.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        Vocabulary.load(tmp_path / "vocabulary.json")
