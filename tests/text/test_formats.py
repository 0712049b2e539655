"""Parquet, fastText's lines, lists and columns; texts without labels; labels that a model does not know."""

from __future__ import annotations

import csv
import json
import sys
import tracemalloc
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from textclf_fast.text import DataError, LabelledTexts, parquet, read_labelled, read_texts

SAME = LabelledTexts(["good\nfilm", "bad, é", "\u2028worse"], ["1", "true", "b"], ["x", "y", "y"])


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    table = columns if isinstance(columns, pyarrow.Table) else pyarrow.table(columns)
    pytest.importorskip("pyarrow.parquet").write_table(table, path, **options)
    return path


# fastText


@pytest.mark.parametrize("name", ["a.ft", "a.txt"])
def test_fasttext(tmp_path: Path, name: str) -> None:
    path = write(
        tmp_path, name, "__label__good a  film \r\n\n \t__label__very_bad\ta film __label__good\n__label__x \u2028y"
    )
    expected = LabelledTexts(["a  film", "a film __label__good", "y"], ["good", "very_bad", "x"])
    assert read_labelled(path) == read_labelled(path, "any", "name") == expected


BAD_FASTTEXT = {
    "none": ("__label__a x\nb y\n", "row 2 (line 2): expected one __label__ at the beginning, got 0"),
    "two": (
        "__label__a x\n\n__label__a __label__b y",
        "row 2 (line 3): expected one __label__ at the beginning, got 2",
    ),
    "no text": ("__label__a x\n__label__b\n", "row 2 (line 2): 'text' is empty"),
    "no name": ("__label__a x\n__label__ y\n", "row 2 (line 2): 'label' is empty"),
    "nothing": ("", "there are no rows"),
    "one class": ("__label__a x\n__label__a y\n", "all 2 rows are labelled 'a', expected at least two classes"),
    "utf-8": (b"__label__a x\n__label__b \xe9\n", "row 2 (line 2): byte 0xe9 (byte 25 of the file) is not UTF-8"),
    "nul": ("__label__a x\n__label__b \0\n", "row 2 (line 2): there is a NUL character"),
}


@pytest.mark.parametrize(("content", "message"), BAD_FASTTEXT.values(), ids=BAD_FASTTEXT)
def test_bad_fasttext(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = write(tmp_path, "a.ft", content)
    with pytest.raises(DataError) as caught:
        read_labelled(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_fasttext_has_no_groups(tmp_path: Path) -> None:
    path = write(tmp_path, "a.ft", "__label__a x\n")
    with pytest.raises(DataError, match="a file of __label__ lines has no column 'movie' for the group"):
        read_labelled(path, group="movie")


# Parquet


@pytest.mark.parametrize("row_group_size", [1, 100])
def test_parquet(tmp_path: Path, row_group_size: int) -> None:
    columns = {"label": ["1", " true", "b"], "more": [[1], [], None], "from": SAME.groups, "text": SAME.texts}
    path = write_parquet(tmp_path / "a.parquet", columns, row_group_size=row_group_size)
    assert read_labelled(path, group="from") == SAME
    assert list(read_texts(path)) == SAME.texts


@pytest.mark.parametrize(
    ("values", "labels"), [([2, 0, 2], ["2", "0", "2"]), ([True, False, True], ["true", "false", "true"])]
)
def test_parquet_of_numbers(tmp_path: Path, values: list[Any], labels: list[str]) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": SAME.texts, "label": values})
    assert read_labelled(path).labels == labels


def test_parquet_of_a_dictionary(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    labels = pyarrow.array(SAME.labels).dictionary_encode()
    assert (
        read_labelled(write_parquet(tmp_path / "a.parquet", {"text": SAME.texts, "label": labels})).labels
        == SAME.labels
    )


def named(path: Path, labels: list[int]) -> Path:
    """A file as Hugging Face's datasets writes it."""
    pyarrow = pytest.importorskip("pyarrow")
    features = {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}, "text": {"_type": "Value"}}
    table = pyarrow.table({"text": [f"text {n}" for n in range(len(labels))], "label": labels})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return write_parquet(path, table.replace_schema_metadata(metadata))


def test_parquet_with_named_classes(tmp_path: Path) -> None:
    path = named(tmp_path / "a.parquet", [1, 0, 1])
    assert read_labelled(path).labels == ["good", "bad", "good"]
    assert len(list(read_texts(path))) == 3
    with pytest.raises(DataError, match="row 2: 'label': class -1 has no name, there are 2 named classes"):
        read_labelled(named(tmp_path / "b.parquet", [1, -1]))


BAD_PARQUET: dict[str, tuple[dict[str, Any], str]] = {
    "no rows": ({"text": [], "label": []}, "there are no rows"),
    "column": ({"text": ["a"], "mark": ["b"]}, "the columns: 'label' is missing, there are 'text', 'mark'"),
    "null": ({"text": ["a", None], "label": ["b", "c"]}, "row 2: 'text': expected a string, got None"),
    "number": ({"text": [1, 2], "label": ["b", "c"]}, "row 1: 'text': expected a string, got 1"),
    "float": ({"text": ["a", "b"], "label": [0.5, 1.5]}, "row 1: 'label': expected a string, got 0.5"),
    "empty": ({"text": ["a", " "], "label": ["b", "c"]}, "row 2: 'text' is empty"),
    "nul": ({"text": ["a", "b\0"], "label": ["b", "c"]}, "row 2: 'text': there is a NUL character"),
    "one class": ({"text": ["a", "b"], "label": ["c", "c"]}, "all 2 rows are labelled 'c', expected at least two"),
}


@pytest.mark.parametrize(("columns", "message"), BAD_PARQUET.values(), ids=BAD_PARQUET)
def test_bad_parquet(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", columns)
    with pytest.raises(DataError) as caught:
        read_labelled(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_parquet_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for content in (b"", b"text,label\n" * 100):
        path = write(tmp_path, "a.parquet", content)
        with pytest.raises(DataError, match=r"not a \.parquet file that can be read: "):
            read_labelled(path)
    whole = write_parquet(tmp_path / "b.parquet", {"text": SAME.texts * 1000, "label": SAME.labels * 1000}).read_bytes()
    with pytest.raises(DataError, match=r"not a \.parquet file that can be read: "):
        read_labelled(write(tmp_path, "a.parquet", whole[: len(whole) // 2]))
    with pytest.raises(DataError, match="there is no such file"):
        read_labelled(tmp_path / "nowhere.parquet")


def test_parquet_of_bytes_that_are_no_text(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    wrong = pyarrow.array([b"a", b"\xff"]).view(pyarrow.string())
    path = write_parquet(tmp_path / "a.parquet", {"text": wrong, "label": ["a", "b"]})
    with pytest.raises(DataError, match="a text is not UTF-8"):
        read_labelled(path)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"read by pyarrow .*: pip install 'textclf_fast\[data\]'"):
        read_labelled(write(tmp_path, "a.parquet", b""))


def test_parquet_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_ROWS_AT_ONCE", 2)
    path = write_parquet(tmp_path / "a.parquet", {"text": [str(n) for n in range(7)]}, row_group_size=3)
    assert list(read_texts(path)) == [str(n) for n in range(7)]


# Lists and columns


class HuggingFace:
    """What we use of datasets.Dataset: columns by name, which are no lists, and features."""

    def __init__(self, columns: dict[str, Sequence[Any]], names: list[str] | None = None) -> None:
        self._columns = columns
        self.features = {name: SimpleNamespace() for name in columns}
        if names:
            self.features["label"].names = names

    @property
    def column_names(self) -> list[str]:
        return list(self._columns)

    def __getitem__(self, name: str) -> Iterable[Any]:
        return iter(self._columns[name])


def test_lists() -> None:
    made = LabelledTexts.from_lists(iter(SAME.texts), [1, True, " b "], SAME.groups)
    assert made == SAME
    assert LabelledTexts.from_lists(np.array(["a", "b"]), np.array([3, 4])) == LabelledTexts(["a", "b"], ["3", "4"])
    assert LabelledTexts.from_lists(["a", "b"], np.array([True, False])).labels == ["true", "false"]


def test_columns() -> None:
    columns = {"body": ["a", "b"], "mark": [1, 0], "label": ["", ""], "from": ["x", "y"]}
    expected = LabelledTexts(["a", "b"], ["1", "0"], ["x", "y"])
    for source in (columns, HuggingFace(columns)):
        assert LabelledTexts.from_columns(source, "body", "mark", "from") == expected


def test_columns_with_named_classes() -> None:
    made = LabelledTexts.from_columns(HuggingFace({"label": [1, 0], "text": ["a", "b"]}, ["bad", "good"]))
    assert made.labels == ["good", "bad"]
    with pytest.raises(DataError, match=r"^row 2: 'label': class 2 has no name, there are 2 named classes$"):
        LabelledTexts.from_columns(HuggingFace({"label": [1, 2], "text": ["a", "b"]}, ["bad", "good"]))


def test_columns_of_packages() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"text": ["a", "b"], "label": [1, 0]})
    assert LabelledTexts.from_columns(table) == LabelledTexts(["a", "b"], ["1", "0"])
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": ["a", "b"], "label": [1, 0]}, index=[7, 9])
    assert LabelledTexts.from_columns(frame) == LabelledTexts(["a", "b"], ["1", "0"])


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        ([], [], "there are no rows"),
        (["a", "b"], ["x"], "'label': expected 2 entries, one for each text, got 1"),
        (["a", None], ["x", "y"], "row 2: 'text': expected a string, got None"),
        (["a", float("nan")], ["x", "y"], "row 2: 'text': expected a string, got nan"),
        (["a", "b"], ["x", ["y"]], "row 2: 'label': expected a string, got ['y']"),
        (["a", "\ud800"], ["x", "y"], "row 2: 'text': half of a surrogate pair"),
        (["a", "\0"], ["x", "y"], "row 2: 'text': there is a NUL character"),
        (["a", " "], ["x", "y"], "row 2: 'text' is empty"),
        (["a", "b"], ["x", "x"], "all 2 rows are labelled 'x', expected at least two classes"),
    ],
)
def test_bad_lists(texts: list[Any], labels: list[Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        LabelledTexts.from_lists(texts, labels)
    assert str(caught.value).startswith(message)


def test_bad_columns() -> None:
    with pytest.raises(TypeError, match="'text': expected a list, got a str"):
        LabelledTexts.from_lists("ab", ["x", "y"])
    with pytest.raises(DataError, match="the columns: 'text' is missing, there are 'train', 'test'"):
        LabelledTexts.from_columns({"train": {}, "test": {}})
    with pytest.raises(DataError, match="text, label and group must be different columns"):
        LabelledTexts.from_columns({}, "text", "text")


# Labels that a model knows


def test_unknown_label(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,label\na,x\n\nb,z\n")
    with pytest.raises(DataError, match=r"a\.csv: row 2 \(line 4\): label 'z' is none of the 2 known: 'x', 'y'$"):
        read_labelled(path, classes=["x", "y"])
    with pytest.raises(DataError, match=r"^row 2: label '99' is none of the 20 known: '0', .* '9', \.\.\.$"):
        LabelledTexts.from_lists(["a", "b"], [1, 99], classes=list(map(str, range(20))))
    assert read_labelled(path, classes=["x", "y", "z"]).labels == ["x", "z"]
    assert LabelledTexts.from_lists(["a"], ["x"], classes=["x", "y"]).labels == ["x"]  # one class is enough to test on


# Texts without labels


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "\ufeffgood film\n\n \nbad, \u2028é\r\n__label__x worse"),
        ("a.ft", "__label__a __label__b good film\n__label__c \nbad, \u2028é\n__label__y __label__x worse"),
        ("a.csv", 'n,text\n1,good film\n2,\n3,"bad, \u2028é"\n4,__label__x worse\n'),
        ("a.jsonl", '{"text": "good film"}\n{"text": ""}\n{"text": "bad, \u2028é"}\n{"text": "__label__x worse"}\n'),
    ],
)
def test_texts(tmp_path: Path, name: str, content: str) -> None:
    last = "worse" if name == "a.ft" else "__label__x worse"
    assert list(read_texts(write(tmp_path, name, content))) == ["good film", "bad, \u2028é", last]


def test_texts_of_a_column(tmp_path: Path) -> None:
    assert list(read_texts(write(tmp_path, "a.tsv", "x\tbody\n1\ta\n"), "body")) == ["a"]
    with pytest.raises(DataError, match="the columns: 'text' is missing, there are 'x', 'body'"):
        list(read_texts(tmp_path / "a.tsv"))


def test_texts_come_before_what_is_wrong_after_them(tmp_path: Path) -> None:
    texts = read_texts(write(tmp_path, "a.txt", b"a\n\nb\n\xff"))
    assert [next(texts), next(texts)] == ["a", "b"]
    with pytest.raises(DataError, match=r"a\.txt: row 3 \(line 4\): byte 0xff \(byte 6 of the file\) is not UTF-8"):
        next(texts)
    with pytest.raises(DataError, match="there is no such file"):
        next(read_texts(tmp_path / "nowhere.txt"))


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_texts_are_not_kept(tmp_path: Path, name: str) -> None:
    line = "word " * 1000
    line = json.dumps({"text": line}) if name == "a.jsonl" else line
    path = write(tmp_path, name, "text\n" * (name == "a.csv") + f"{line}\n" * 1000)
    tracemalloc.start()
    count = sum(1 for _ in read_texts(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 1000
    assert peak < 500_000, "of a file of 5 MB"


def test_vanishes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Vanishing:
        def __enter__(self) -> Vanishing:
            return self

        def __exit__(self, *unused: object) -> None: ...

        def readline(self, limit: int) -> bytes:
            raise OSError(116, "Stale file handle")

    monkeypatch.setattr(Path, "open", lambda *unused: Vanishing())
    with pytest.raises(DataError, match=r"a\.txt: cannot be read: Stale file handle"):
        list(read_texts(tmp_path / "a.txt"))


@pytest.mark.parametrize("name", ["a.txt", "a.ft", "a.csv", "a.tsv", "a.jsonl"])
def test_line_too_long(tmp_path: Path, name: str) -> None:
    head = {"a.txt": "a\n", "a.ft": "__label__a a\n", "a.csv": "text\na\n", "a.tsv": "text\na\n"}.get(
        name, '{"text": "a"}\n'
    )
    path = write(tmp_path, name, head + "b" * 10_000_000 + "\n")
    line = head.count("\n") + 1
    with pytest.raises(DataError) as caught:
        list(read_texts(path))
    assert str(caught.value) == (
        f"{path}: row 2 (line {line}): the line is longer than 10,000,000 bytes, expected one text a line"
    )
    assert csv.field_size_limit() == 131_072


def test_field_too_long(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'text\na\n"' + ("long line " * 10_000 + "\n") * 101)
    with pytest.raises(DataError, match=r"row 2 \(line 3\): not well-formed \(field larger than field limit"):
        list(read_texts(path))
