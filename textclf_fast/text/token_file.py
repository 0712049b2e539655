"""Token ids of texts in a memory-mapped file: a corpus larger than memory, read at an array's speed."""

from __future__ import annotations

import hashlib
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from textclf_fast.text.errors import DataError
from textclf_fast.text.files import whole_file
from textclf_fast.text.ragged import RaggedTokens, whole_numbers
from textclf_fast.text.vocabulary import PAD_ID, UNK_ID, Vocabulary

# After the last token of a text nothing follows, which is what <pad> says in a batch, too: a model that learns to
# predict it has learnt where texts end, and no vocabulary needs another entry.
END_ID = PAD_ID

# The file, little-endian: the header, the ids, zeros up to a multiple of 8 bytes, the offsets (num_texts + 1) int64.
_HEADER = struct.Struct("<8sIIQQQ32s")  # magic, version, bytes of an id, num_tokens, num_texts, vocab_size, digest
_MAGIC = b"tclftok\n"
_VERSION = 1
_ID_TYPES: dict[int, np.dtype[Any]] = {2: np.dtype("<u2"), 4: np.dtype("<i4")}
_TEXTS_AT_ONCE = 10_000  # written together, and between two calls of on_progress

Progress = Callable[[int, int], None]


class _Header(NamedTuple):
    """What the file says of itself."""

    id_type: np.dtype[Any]
    num_tokens: int
    num_texts: int
    vocab_size: int
    digest: bytes

    @property
    def offsets_begin(self) -> int:
        end = _HEADER.size + self.num_tokens * self.id_type.itemsize
        return end + -end % 8

    @property
    def file_size(self) -> int:
        return self.offsets_begin + 8 * (self.num_texts + 1)


class TokenFile:
    """Texts as token ids in a file that is mapped into memory: what is not being read takes none.

    Made by `write` or `open`. Each text is followed by `END_ID` (0, which is also `PAD_ID`: a text holds none of it).
    A text without a token is the one token `<unk>`, as in `encode_texts`.

    As the `tokens` of `EncodedTexts` it takes the place of a `RaggedTokens`: it has `lengths`, `packed` and `padded`.

    Attributes:
        path: The file.
        tokens: (num_tokens,) uint16 or int32, read-only: all ids, text after text, each with its END_ID.
        offsets: (num_texts + 1,) int64, read-only: text i begins at tokens[offsets[i]].
        vocab_size: Entries of the vocabulary; every id is smaller.
    """

    def __init__(self, path: Path, tokens: NDArray[Any], offsets: NDArray[np.int64], vocab_size: int) -> None:
        self.path = path
        self.tokens = tokens
        self.offsets = offsets
        self.vocab_size = vocab_size

    @classmethod
    def write(
        cls,
        path: str | Path,
        texts: Iterable[str],
        tokenizer: Callable[[str], Sequence[str]],
        vocabulary: Vocabulary,
        on_progress: Progress | None = None,
    ) -> TokenFile:
        """Encodes texts one after the other into a file, and opens it. `path` holds what it held before, or all.

        Args:
            path: The file; one that is there is replaced.
            texts: Any iterable of str, such as `read_texts` gives; it is gone through once, and not kept.
            tokenizer, vocabulary: As in `encode_texts`.
            on_progress: Called with the texts and the tokens written so far, every 10,000 texts and at the end.

        Raises:
            TypeError: `texts` is one str.
            DataError: There are no texts.
            OSError: The folder is missing, full or not writable. Nothing is left behind.
        """
        if isinstance(texts, str):
            raise TypeError("texts: expected texts, got a str")
        path = Path(path)
        id_type = _ID_TYPES[2 if len(vocabulary) <= 2**16 else 4]
        num_texts = num_tokens = 0
        # The offsets come last, since their number is known last: until then they are in a file of their own.
        with whole_file(path) as file, tempfile.TemporaryFile(dir=path.parent) as offsets_file:
            file.write(bytes(_HEADER.size))
            offsets_file.write(bytes(8))
            rows: list[NDArray[np.int64]] = []

            def flush() -> None:
                nonlocal num_texts, num_tokens
                file.write(np.concatenate(rows).astype(id_type).tobytes())
                ends = num_tokens + np.cumsum([len(row) for row in rows])
                offsets_file.write(ends.astype("<i8").tobytes())
                num_texts += len(rows)
                num_tokens = int(ends[-1])
                rows.clear()
                if on_progress is not None:
                    on_progress(num_texts, num_tokens)

            end = np.array([END_ID])
            unknown = np.array([UNK_ID])
            for text in texts:
                tokens = tokenizer(text)
                # A token that is named <pad> would read as an end.
                ids = np.maximum(vocabulary.encode(tokens), UNK_ID) if tokens else unknown
                rows.append(np.concatenate((ids, end)))
                if len(rows) == _TEXTS_AT_ONCE:
                    flush()
            if rows:
                flush()
            if not num_texts:
                raise DataError(f"{path}: not written: there are no texts")
            header = _Header(id_type, num_tokens, num_texts, len(vocabulary), _digest(vocabulary))
            file.write(bytes(header.offsets_begin - file.tell()))
            offsets_file.seek(0)
            shutil.copyfileobj(offsets_file, file, 2**20)
            file.seek(0)
            file.write(_HEADER.pack(_MAGIC, _VERSION, id_type.itemsize, *header[1:]))
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path, vocabulary: Vocabulary | None = None) -> TokenFile:
        """Maps a file that `write` made. Nothing but its header is read.

        Args:
            path: The file.
            vocabulary: The one the ids are of, where it is to be checked.

        Raises:
            DataError: The file cannot be read, is no token file or not all of one, or is of another vocabulary.
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                start = file.read(_HEADER.size)
            header = _parse(path, start, path.stat().st_size)
            tokens = np.memmap(path, header.id_type, "r", _HEADER.size, (header.num_tokens,))
            offsets = np.memmap(path, np.dtype("<i8"), "r", header.offsets_begin, (header.num_texts + 1,))
        except FileNotFoundError as error:
            raise DataError(f"{path}: there is no such file") from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        if offsets[0] != 0 or offsets[-1] != header.num_tokens:
            raise DataError(
                f"{path}: damaged: the texts run from token {offsets[0]} to {offsets[-1]}, "
                f"expected 0 to {header.num_tokens}"
            )
        if vocabulary is not None and header.digest != _digest(vocabulary):
            raise DataError(
                f"{path}: was made with another vocabulary: of {header.vocab_size} tokens, this one has "
                f"{len(vocabulary)}" + (", and they differ" if header.vocab_size == len(vocabulary) else "")
            )
        return cls(path, tokens, offsets, header.vocab_size)

    @property
    def num_tokens(self) -> int:
        """The ids in the file, each text's END_ID among them."""
        return len(self.tokens)

    @property
    def num_texts(self) -> int:
        return len(self.offsets) - 1

    def __len__(self) -> int:
        """The texts."""
        return self.num_texts

    def __repr__(self) -> str:
        return f"TokenFile({str(self.path)!r}, {self.num_texts} texts, {self.num_tokens} tokens)"

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(num_texts,) int64: the tokens of each text, without its END_ID."""
        offsets = np.asarray(self.offsets)
        return offsets[1:] - offsets[:-1] - 1

    def text(self, row: int) -> NDArray[np.int64]:
        """The ids of one text, without its END_ID; a negative number counts from the end.

        Raises:
            IndexError: There is no such text.
            DataError: The file is damaged there.
        """
        if not -len(self) <= row < len(self):
            raise IndexError(f"text {row} is out of range, there are {len(self)} texts")
        row %= len(self)
        begin, end = int(self.offsets[row]), int(self.offsets[row + 1])
        if not 0 <= begin < end <= self.num_tokens or self.tokens[end - 1] != END_ID:
            raise DataError(f"{self.path}: damaged at text {row}, from token {begin} to {end}")
        return np.array(self.tokens[begin : end - 1], dtype=np.int64)

    def ragged(self, rows: ArrayLike | None = None) -> RaggedTokens:
        """These texts (all of them by default) in memory, at 8 bytes a token.

        Raises:
            IndexError, DataError: As `text`.
            TypeError: `rows` are not whole numbers.
            ValueError: `rows` is not one-dimensional.
        """
        numbers = np.arange(len(self)) if rows is None else whole_numbers(rows, "rows")
        return RaggedTokens.from_lists(self.text(int(row)) for row in numbers)

    def packed(self, rows: ArrayLike) -> PackedSequence:
        """The batch of these texts, as `RaggedTokens.packed`."""
        batch = self.ragged(rows)
        return batch.packed(np.arange(len(batch)))

    def padded(self, rows: ArrayLike, batch_first: bool = False, padding_id: int = PAD_ID) -> tuple[Tensor, Tensor]:
        """The batch of these texts, as `RaggedTokens.padded`."""
        batch = self.ragged(rows)
        return batch.padded(np.arange(len(batch)), batch_first, padding_id)


class StreamBatches:
    """One long stream of tokens as the batches that a language model reads in turn, carrying its state along.

    The stream is cut into `batch_size` pieces of equal length, one a column; batch i holds the steps from i * `steps`
    on of each. So each column of a batch goes on where that of the batch before ended. Less than `batch_size` tokens at
    the stream's end are left out.

    Args:
        tokens: (N,) whole numbers, such as `TokenFile.tokens` or a slice of it. Only what a batch needs is read.
        batch_size: B.
        steps: T; the last batch may have fewer.

    Raises:
        ValueError: `batch_size` or `steps` < 1, `tokens` is not one-dimensional, or has less than 2 for each column.
    """

    def __init__(self, tokens: NDArray[Any], batch_size: int, steps: int) -> None:
        for name, number in (("batch_size", batch_size), ("steps", steps)):
            if number < 1:
                raise ValueError(f"{name}: expected at least 1, got {number}")
        if tokens.ndim != 1:
            raise ValueError(f"tokens: expected one dimension, got shape {tokens.shape}")
        self.batch_size = batch_size
        self.steps = steps
        self._inputs = (len(tokens) - 1) // batch_size  # of a column: each has a target, the token after it
        if self._inputs < 1:
            raise ValueError(f"tokens: expected at least {batch_size + 1} for {batch_size} columns, got {len(tokens)}")
        self._tokens = tokens

    def __len__(self) -> int:
        return -(-self._inputs // self.steps)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Batch `number`.

        Returns:
            inputs and targets, both (T, B) int64; a target is the token that follows its input.

        Raises:
            IndexError: There is no such batch (a negative one is none).
        """
        if not 0 <= number < len(self):
            raise IndexError(f"batch {number} is out of range, there are {len(self)} batches")
        begin = number * self.steps
        length = min(self.steps, self._inputs - begin)
        block = np.empty((length + 1, self.batch_size), dtype=np.int64)
        for column in range(self.batch_size):
            start = column * self._inputs + begin
            block[:, column] = self._tokens[start : start + length + 1]
        ids = torch.from_numpy(block)
        return ids[:-1], ids[1:]


def _digest(vocabulary: Vocabulary) -> bytes:
    digest = hashlib.sha256()
    for token in vocabulary.tokens:
        digest.update(token.encode("utf-8", "surrogatepass") + b"\0")
    return digest.digest()


def _parse(path: Path, start: bytes, size: int) -> _Header:
    if not start.startswith(_MAGIC):
        raise DataError(f"{path}: not a token file")
    if len(start) < _HEADER.size:
        raise DataError(f"{path}: cut short: its header has {len(start)} bytes, expected {_HEADER.size}")
    _, version, id_bytes, num_tokens, num_texts, vocab_size, digest = _HEADER.unpack(start)
    if version != _VERSION:
        raise DataError(
            f"{path}: is of format version {version}, expected {_VERSION}: it needs another version of textclf_fast"
        )
    if id_bytes not in _ID_TYPES or not 0 < num_texts <= num_tokens:
        raise DataError(f"{path}: damaged: {num_texts} texts of {num_tokens} tokens, {id_bytes} bytes each")
    header = _Header(_ID_TYPES[id_bytes], num_tokens, num_texts, vocab_size, digest)
    if size != header.file_size:
        what = "cut short" if size < header.file_size else "damaged"
        raise DataError(f"{path}: {what}: it has {size} bytes, expected {header.file_size}")
    return header
