"""TokenFile: what is written is what is read, in memory that it does not take; and every file that is none."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from textclf_fast.text import (
    END_ID,
    DataError,
    StreamBatches,
    TokenFile,
    Vocabulary,
    WordTokenizer,
    encode_texts,
    token_file,
)
from textclf_fast.training import EncodedTexts

TEXTS = ["a good film", "", "a film , bad", "unheard", "good good"]
TOKENIZER = WordTokenizer()
VOCABULARY = Vocabulary.build([["a", "a", "good", "film", "bad", ","]])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "corpus.tokens"


def write(path: Path, vocabulary: Vocabulary = VOCABULARY) -> TokenFile:
    return TokenFile.write(path, iter(TEXTS), TOKENIZER, vocabulary)


def wide_vocabulary(size: int) -> Vocabulary:
    """`VOCABULARY` at the end of one with `size` tokens, so that its ids are large."""
    words = VOCABULARY.tokens[2:]
    return Vocabulary(["<pad>", "<unk>", *(f"w{number}" for number in range(size - 2 - len(words))), *words])


@pytest.mark.parametrize(("size", "kind"), [(2**16, "uint16"), (2**16 + 1, "int32")])
def test_ids(path: Path, size: int, kind: str) -> None:
    vocabulary = wide_vocabulary(size)
    written = write(path, vocabulary)
    expected = encode_texts(TEXTS, TOKENIZER, vocabulary)
    for file in (written, TokenFile.open(path, vocabulary)):
        assert file.tokens.dtype == kind
        assert (len(file), file.num_texts, file.num_tokens) == (5, 5, len(expected.values) + 5)
        assert file.vocab_size == size
        assert [file.text(row).tolist() for row in range(5)] == [row.tolist() for row in expected]
        assert file.text(-1).tolist() == expected[4].tolist()
        assert file.tokens.tolist() == [number for row in expected for number in (*row.tolist(), END_ID)]
        assert file.lengths.tolist() == expected.lengths.tolist()
        ragged = file.ragged()
        assert np.array_equal(ragged.values, expected.values)
        assert np.array_equal(ragged.offsets, expected.offsets)
    assert repr(written) == f"TokenFile({str(path)!r}, 5 texts, {len(expected.values) + 5} tokens)"


def test_takes_the_place_of_rows_in_memory(path: Path) -> None:
    file = write(path)
    rows = np.array([2, 0, 2, 4])
    labels = torch.zeros(5, dtype=torch.int64)
    ours = EncodedTexts(file, labels)  # type: ignore[arg-type]
    theirs = EncodedTexts(encode_texts(TEXTS, TOKENIZER, VOCABULARY), labels)
    for layout in ("packed", "padded"):
        (first, *more), _ = ours.batch(rows, layout, torch.device("cpu"))
        (other, *others), _ = theirs.batch(rows, layout, torch.device("cpu"))
        if layout == "packed":
            first, *more = first
            other, *others = other
        assert all(torch.equal(*pair) for pair in zip((first, *more), (other, *others), strict=True))


def test_written_a_part_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_file, "_TEXTS_AT_ONCE", 2)
    said: list[tuple[int, int]] = []
    file = TokenFile.write(path, TEXTS, TOKENIZER, VOCABULARY, lambda *counts: said.append(counts))
    assert said == [(2, 6), (4, 13), (5, 16)]
    assert np.array_equal(file.ragged().values, encode_texts(TEXTS, TOKENIZER, VOCABULARY).values)


def test_a_token_named_pad_is_no_end(path: Path) -> None:
    file = TokenFile.write(path, ["a <pad> film"], str.split, VOCABULARY)
    assert file.text(0).tolist() == VOCABULARY.encode(["a", "<unk>", "film"]).tolist()


def test_nothing_is_left_of_what_fails(path: Path) -> None:
    def texts() -> Iterator[str]:
        yield "a film"
        raise DataError("row 2")

    write(path)
    before = path.read_bytes()
    with pytest.raises(DataError, match="row 2"):
        TokenFile.write(path, texts(), TOKENIZER, VOCABULARY)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(DataError, match="not written: there are no texts"):
        TokenFile.write(path.with_name("new"), [], TOKENIZER, VOCABULARY)
    with pytest.raises(TypeError, match="texts: expected texts, got a str"):
        TokenFile.write(path, "a film", TOKENIZER, VOCABULARY)
    with pytest.raises(FileNotFoundError):
        write(path.parent / "nowhere" / "x")
    assert list(path.parent.iterdir()) == [path]


def test_no_text(path: Path) -> None:
    file = write(path)
    for row in (5, -6):
        with pytest.raises(IndexError, match=f"text {row} is out of range, there are 5 texts"):
            file.text(row)


def header(**changed: int) -> bytes:
    numbers = {"version": 1, "id_bytes": 2, "num_tokens": 16, "num_texts": 5, **changed}
    return struct.pack("<8sIIQQQ32s", b"tclftok\n", *numbers.values(), len(VOCABULARY), bytes(32))


BAD = {
    "empty": (lambda _: b"", "not a token file"),
    "something else": (lambda _: b"text,label\n" * 100, "not a token file"),
    "short header": (lambda whole: whole[:40], "cut short: its header has 40 bytes, expected 72"),
    "no ids": (lambda whole: whole[:72], "cut short: it has 72 bytes, expected "),
    "one byte less": (lambda whole: whole[:-1], "cut short: it has "),
    "one byte more": (lambda whole: whole + b"x", "damaged: it has "),
    "version": (lambda whole: header(version=2) + whole[72:], "is of format version 2, expected 1"),
    "bytes": (lambda whole: header(id_bytes=3) + whole[72:], "damaged: 5 texts of 16 tokens, 3 bytes each"),
    "no texts": (lambda whole: header(num_texts=0) + whole[72:], "damaged: 0 texts of 16 tokens, 2 bytes each"),
    "size": (lambda whole: header(num_tokens=2**40) + whole[72:], "cut short: it has "),
    "last offset": (lambda whole: whole[:-8] + bytes(8), "damaged: the texts run from token 0 to 0, expected 0 to 16"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_bad_file(path: Path, change: object, message: str) -> None:
    write(path)
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(DataError) as caught:
        TokenFile.open(path)
    assert str(caught.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize("offset", [-1, 0, 2, 4, 17, 2**60])
def test_damaged_offset(path: Path, offset: int) -> None:
    write(path)
    whole = bytearray(path.read_bytes())
    whole[-5 * 8 : -4 * 8] = struct.pack("<q", offset)  # where text 0 ends
    path.write_bytes(whole)
    if offset != 4:
        with pytest.raises(DataError, match=f"damaged at text 0, from token 0 to {offset}"):
            TokenFile.open(path).text(0)
    else:
        assert TokenFile.open(path).text(0).tolist() == VOCABULARY.encode(["a", "good", "film"]).tolist()


def test_no_file(path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        TokenFile.open(path)
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        TokenFile.open(path.parent)


def test_another_vocabulary(path: Path) -> None:
    write(path)
    with pytest.raises(DataError, match="was made with another vocabulary: of 7 tokens, this one has 8"):
        TokenFile.open(path, wide_vocabulary(8))
    with pytest.raises(DataError, match="of 7 tokens, this one has 7, and they differ"):
        TokenFile.open(path, Vocabulary(["<pad>", "<unk>", *"abcde"]))


@pytest.mark.parametrize(("count", "batch_size", "steps"), [(17, 1, 4), (18, 3, 4), (20, 4, 2), (3, 2, 5), (30, 4, 7)])
def test_stream(count: int, batch_size: int, steps: int) -> None:
    tokens = np.arange(100, 100 + count, dtype=np.uint16)
    batches = StreamBatches(tokens, batch_size, steps)
    column = (count - 1) // batch_size
    blocks = list(batches)
    assert len(blocks) == len(batches) == -(-column // steps)
    assert all(inputs.shape == (steps, batch_size) for inputs, _ in blocks[:-1])
    inputs, targets = (torch.cat([block[which] for block in blocks]) for which in (0, 1))
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(targets, inputs + 1)
    assert torch.equal(inputs.T.flatten(), torch.arange(100, 100 + column * batch_size))
    assert torch.equal(batches[len(batches) - 1][0], blocks[-1][0])


def test_stream_of_a_file(path: Path) -> None:
    file = write(path)
    (inputs, targets), *_ = StreamBatches(file.tokens, 2, 3)
    assert inputs.T.tolist() == [file.tokens[:3].tolist(), file.tokens[7:10].tolist()]
    assert targets.T.tolist() == [file.tokens[1:4].tolist(), file.tokens[8:11].tolist()]


def test_stream_refuses() -> None:
    tokens = np.arange(5)
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        StreamBatches(tokens, 0, 1)
    with pytest.raises(ValueError, match="steps: expected at least 1, got 0"):
        StreamBatches(tokens, 1, 0)
    with pytest.raises(ValueError, match="tokens: expected at least 6 for 5 columns, got 5"):
        StreamBatches(tokens, 5, 1)
    with pytest.raises(ValueError, match="tokens: expected one dimension"):
        StreamBatches(tokens.reshape(5, 1), 1, 1)
    for number in (4, -1):
        with pytest.raises(IndexError, match=f"batch {number} is out of range, there are 4 batches"):
            StreamBatches(tokens, 1, 1)[number]
