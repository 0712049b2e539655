"""BPETokenizer: what it learns, that it is kept, and what it refuses."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from textclf_fast.models import TextClassifier
from textclf_fast.text import BPETokenizer, DataError, Vocabulary, make_tokenizer, read_labelled, tokenizer_for
from textclf_fast.training import load_model, save_model

TEXTS = read_labelled(Path(__file__).parent / "toy.csv").texts


@pytest.fixture(scope="module")
def tokenizer() -> BPETokenizer:
    pytest.importorskip("tokenizers")
    return BPETokenizer.train(iter(TEXTS), 400)


def test_frequent_words_are_tokens_and_rare_ones_are_parts(tokenizer: BPETokenizer) -> None:
    assert tokenizer("The  \n THE") == ["Ġthe", "Ġthe"]
    assert len(tokenizer("the zymurgists")) > 3


def test_whatever_the_text_nothing_is_lost(tokenizer: BPETokenizer) -> None:
    spelling = make_bytes()
    for text in ("Amélie", "Ame\u0301lie", "你好", "\U0001f600 x", "<pad> Ġ <unk>", "\0"):
        spelled = bytes(spelling[character] for token in tokenizer(text) for character in token).decode()
        assert spelled == " " + text.replace("e\u0301", "é").lower()
    assert tokenizer("a\ud800b") == tokenizer("a?b")


def make_bytes() -> dict[str, int]:
    """The byte that each character of a token stands for: itself where it can be seen, others from U+0100 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + place): byte for place, byte in enumerate(hidden)}


@pytest.mark.parametrize("text", [*TEXTS[:5], "amélie, 你好", "\U0001f600 x", ""])
def test_a_text_of_tokens_is_the_text(tokenizer: BPETokenizer, text: str) -> None:
    assert tokenizer.detokenize(tokenizer(text)) == text.lower()


def test_bytes_that_are_no_character(tokenizer: BPETokenizer) -> None:
    assert tokenizer.detokenize(["Ã"]) == "\ufffd"  # 0xC3, with which é begins


@pytest.mark.parametrize("text", ["", " \t\n\u2003"])
def test_nothing_to_see(tokenizer: BPETokenizer, text: str) -> None:
    assert tokenizer(text) == []


def test_vocabulary_is_as_large_as_asked_for(tokenizer: BPETokenizer) -> None:
    assert len(tokenizer.config["tokenizer"]["model"]["vocab"]) == 400 - 2
    assert len(Vocabulary.build(map(tokenizer, TEXTS), 400)) <= 400


def test_case(tokenizer: BPETokenizer) -> None:
    kept = BPETokenizer.train(TEXTS, 400, lower=False)
    assert kept("A") == ["ĠA"]
    assert tokenizer("A") == ["Ġa"]


def test_same_texts_same_tokenizer(tokenizer: BPETokenizer) -> None:
    assert tokenizer_for("bpe", TEXTS, 400).config == tokenizer.config


def test_made_again(tokenizer: BPETokenizer, tmp_path: Path) -> None:
    vocabulary = Vocabulary.build(map(tokenizer, TEXTS), 400)
    save_model(tmp_path / "m", TextClassifier(len(vocabulary), 4, 4, 2), vocabulary, ["a", "b"], tokenizer=tokenizer)
    for again in (
        make_tokenizer(tokenizer.config),
        pickle.loads(pickle.dumps(tokenizer)),
        load_model(tmp_path / "m").tokenizer,
    ):
        assert isinstance(again, BPETokenizer)
        assert [again(text) for text in TEXTS] == [tokenizer(text) for text in TEXTS]


@pytest.mark.parametrize("tokenizer_json", [{}, {"model": 3}, 5, None])
def test_refuses_what_is_no_tokenizer(tokenizer_json: Any) -> None:
    pytest.importorskip("tokenizers")
    with pytest.raises(ValueError, match=r"^tokenizer: "):
        make_tokenizer({"kind": "bpe", "tokenizer": tokenizer_json})


def test_refuses_arguments(tokenizer: BPETokenizer) -> None:
    with pytest.raises(ValueError, match="vocab_size: expected at least 258, of which 256 are bytes, got 257"):
        BPETokenizer.train(TEXTS, 257)
    with pytest.raises(TypeError, match="texts: expected texts, got a str"):
        BPETokenizer.train("a text")
    for text in (None, b"a", 3):
        with pytest.raises(TypeError, match=f"text: expected a str, got {type(text).__name__}"):
            tokenizer(text)  # type: ignore[arg-type]


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    for make in (lambda: BPETokenizer.train(TEXTS), lambda: make_tokenizer({"kind": "bpe", "tokenizer": {}})):
        with pytest.raises(DataError, match=r"bpe needs the package tokenizers .*: pip install 'textclf_fast\[bpe\]'"):
            make()
