"""Word vectors that somebody has learnt already, read from the files of GloVe, word2vec and fastText."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from textclf_fast.text.errors import DataError

_FASTTEXT_MAGIC = (793712314).to_bytes(4, "little")  # of fastText's own .bin, which holds a whole model
_LONGEST_WORD = 1000  # bytes; fastText's and GloVe's longest are some 250. What is longer is no file of vectors.
_BLOCK = 1 << 20


@dataclass(frozen=True, eq=False)
class WordVectors:
    """Words and their vectors.

    Attributes:
        words: N of them; in the files that people pass around the most frequent is the first.
        values: (N, D) float32, finite.
    """

    words: Sequence[str]
    values: NDArray[np.float32]

    @property
    def dim(self) -> int:
        """D."""
        return self.values.shape[1]

    def look_up(self, tokens: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The vectors of tokens.

        A contraction that has none, such as ``don't``, is looked up as the two words that the Penn Treebank makes of
        it, ``do`` and ``n't``, as GloVe's and many others were learnt from; its vector is their mean.

        Returns:
            (len(tokens), D), zeros where there is none; and (len(tokens),), whether there is one.
        """
        places = {word: place for place, word in enumerate(self.words)}
        vectors = np.zeros((len(tokens), self.dim), dtype=np.float32)
        known = np.zeros(len(tokens), dtype=np.bool_)
        for row, token in enumerate(tokens):
            found = [places[part] for part in _parts(token, places) if part in places]
            if found:
                vectors[row] = self.values[found].mean(0)
                known[row] = True
        return vectors, known


def _parts(token: str, known: Container[str]) -> tuple[str, ...]:
    """What to look up of a token: itself, or the two words of a contraction that is not known as one."""
    return (token[:-3], "n't") if token not in known and token.endswith("n't") else (token,)


def looked_up(tokens: Iterable[str]) -> set[str]:
    """The words that :meth:`WordVectors.look_up` may need of these tokens."""
    return {part for token in tokens for part in (token, *_parts(token, ()))}


def read_word_vectors(path: str | Path, wanted: Callable[[str], bool] | None = None) -> WordVectors:
    """Reads a file of word vectors, all of it or what is needed; memory is taken for what is kept alone.

    Files begin with a line "N D", or with the first word at once (GloVe's). Then word after word: the word, a space and
    D numbers, as text, one word a line; or, in a file that is called .bin, each as four bytes (word2vec's binary
    format). .gz at the end of the name: compressed by gzip. A word that comes twice has its first vector.

    Sources: J. Pennington, R. Socher and C. Manning, GloVe: Global Vectors for Word Representation, EMNLP 2014; T.
    Mikolov et al., Distributed Representations of Words and Phrases and their Compositionality, NIPS 2013.

    Args:
        path: The file.
        wanted: Asked for each word in the file's order whether to keep it; None: all are kept.

    Raises:
        DataError: The file cannot be read or is none of these; the message names the line or the place among the words.
    """
    path = Path(path)
    words: list[str] = []
    vectors: list[NDArray[np.float32]] = []
    seen: set[str] = set()
    binary = path.name.removesuffix(".gz").endswith(".bin")
    open_file: Any = gzip.open if path.name.endswith(".gz") else open
    try:
        with open_file(path, "rb") as file:
            for place, word, raw in (_binary_entries if binary else _text_entries)(path, file):
                if word in seen or not (wanted is None or wanted(word)):
                    continue  # as most are: their numbers are not looked at
                where = f"{path}: {'word' if binary else 'line'} {place:,}"
                vector = _numbers(raw, binary, where)
                if vectors and len(vector) != len(vectors[0]):
                    raise DataError(f"{where}: expected {len(vectors[0])} numbers, got {len(vector)}")
                if not len(vector) or not np.isfinite(vector).all():
                    raise DataError(f"{where}: expected finite numbers behind {word[:40]!r}")
                seen.add(word)
                words.append(word)
                vectors.append(vector)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not words:
        raise DataError(f"{path}: no word vectors" + ("" if wanted is None else " of these words"))
    return WordVectors(words, np.stack(vectors))


def _numbers(raw: bytes, binary: bool, where: str) -> NDArray[np.float32]:
    if binary:
        return np.frombuffer(raw, dtype="<f4").astype(np.float32, copy=False)
    try:
        return np.array(raw.split(), dtype=np.float32)
    except ValueError as error:
        raise DataError(f"{where}: expected a word and its numbers: {error}") from error


# Each word's place, itself, and its vector as it is in the file.
_Entries = Iterator[tuple[int, str, bytes]]


def _text_entries(path: Path, file: IO[bytes]) -> _Entries:
    for line, content in enumerate(file, start=1):
        # A word may hold spaces of other kinds than " "; GloVe's 840B has words with that one, too: they are lost.
        word, _, numbers = content.rstrip().partition(b" ")
        if not numbers:
            raise DataError(f"{path}: line {line}: expected a word and its numbers, got {word[:40]!r}")
        if line == 1 and word.isdigit() and numbers.isdigit():  # "N D"
            continue
        yield line, word.decode("utf-8", "replace"), numbers


def _binary_entries(path: Path, file: IO[bytes]) -> _Entries:
    header = file.readline(_LONGEST_WORD)
    if header.startswith(_FASTTEXT_MAGIC):
        raise DataError(f"{path}: a fastText model; expected its word vectors alone, the .vec file beside it")
    sizes = header.split()
    if len(sizes) != 2 or not all(size.isdigit() for size in sizes) or not int(sizes[1]):
        raise DataError(f"{path}: expected word2vec's binary format, which begins with the two numbers of its sizes")
    count, width = int(sizes[0]), 4 * int(sizes[1])
    content, start = b"", 0
    for place in range(1, count + 1):
        while (space := content.find(b" ", start)) < 0 or len(content) < space + 1 + width:
            if space < 0 and len(content) - start > _LONGEST_WORD:
                raise DataError(f"{path}: word {place:,}: expected a word and a space")
            if not (more := file.read(_BLOCK)):
                raise DataError(f"{path}: the file ends within word {place:,} of {count:,}")
            content, start = content[start:] + more, 0
        # Some writers end each vector with a line feed, some do not.
        word = content[start:space].lstrip(b"\n").decode("utf-8", "replace")
        start = space + 1 + width
        yield place, word, content[space + 1 : start]


def word2vec_binary(vectors: WordVectors) -> Iterator[bytes]:
    """The pieces of a file in word2vec's binary format, which :func:`read_word_vectors` and other packages read."""
    yield f"{len(vectors.words)} {vectors.dim}\n".encode()
    values = np.ascontiguousarray(vectors.values, dtype="<f4")
    for word, vector in zip(vectors.words, values, strict=True):
        yield word.encode() + b" " + vector.tobytes()
