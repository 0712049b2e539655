"""Labelled files: what is read, and one readable line for each thing that can be wrong with them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from textclf_fast.text import DataError, LabelledTexts, Vocabulary, WordTokenizer, read_labelled, split

TOY = Path(__file__).parent / "toy.csv"


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_toy_set() -> None:
    data = read_labelled(TOY)
    assert len(data) == 200
    assert data.classes == ["negative", "positive"]
    assert data.labels.count("positive") == 100
    assert data.texts[2] == "A wonderful little garden, quiet and lovely in the morning."
    assert data.groups is None
    assert len(Vocabulary.build(map(WordTokenizer(), data.texts))) < 500


SAME = LabelledTexts(['He said "good", twice', "two\nlines", "\u2028é日"], ["1", "true", "b"], ["x", "y", "y"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'text,label,from\n"He said ""good"", twice",1,x\n"two\nlines",true,y\n\u2028é日, b ,y\n'),
        ("crlf.csv", 'text,label,from\r\n"He said ""good"", twice",1,x\r\n"two\nlines",true,y\r\n\u2028é日,b,y'),
        ("blank.csv", '\ntext,label,from\n\n"He said ""good"", twice",1,x\n\n"two\nlines",true,y\n\u2028é日,b,y\n\n'),
        ("bom.CSV", '\ufefffrom,text,label\nx,"He said ""good"", twice",1\ny,"two\nlines",true\ny,\u2028é日,b\n'),
        (
            "a.tsv",
            'text\tmore\tlabel\tfrom\nHe said "good", twice\t\t1\tx\n"two\nlines"\t\ttrue\ty\n\u2028é日\t\tb\ty\n',
        ),
        (
            "a.jsonl",
            '{"text": "He said \\"good\\", twice", "label": 1, "from": "x"}\r\n\n'
            '{"label": true, "text": "two\\nlines", "from": "y", "more": null}\n'
            '{"text": "\u2028é日", "label": "b", "from": "y"}',
        ),
    ],
)
def test_formats(tmp_path: Path, name: str, content: str) -> None:
    assert read_labelled(write(tmp_path, name, content), group="from") == SAME


def test_names_of_the_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "label,the review,verdict\nx,good,1\ny,bad,0\n")
    assert read_labelled(str(path), "the review", "verdict") == LabelledTexts(["good", "bad"], ["1", "0"])


def test_long_text(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    path = write(tmp_path, "a.csv", f"text,label\n{'long ' * 100_000},1\nbad,0\n")
    assert len(read_labelled(path).texts[0]) == 500_000
    assert csv.field_size_limit() == limit


HEAD = "text,label\ngood,1\n"
LINE = '{"text": "good", "label": 1}\n'

BAD: dict[str, tuple[str, str | bytes, str]] = {
    "suffix": ("a.xlsx", "", "expected a file that ends in .csv, .tsv, .jsonl, .parquet, .ft or .txt, got '.xlsx'"),
    "no suffix": ("a", "", "expected a file that ends in .csv, .tsv, .jsonl, .parquet, .ft or .txt, got 'no suffix'"),
    "nothing": ("a.csv", "", "there are no rows"),
    "nothing but blank lines": ("a.jsonl", "\n \n", "there are no rows"),
    "names alone": ("a.csv", "text,label\n", "there are no rows"),
    "no text column": ("a.csv", "Text,label\nx,1\n", "the columns: 'text' is missing, there are 'Text', 'label'"),
    "no label column": ("a.tsv", "text\tx\ny\t1\n", "the columns: 'label' is missing, there are 'text', 'x'"),
    "comma in a tsv": ("a.tsv", HEAD, "the columns: 'text' is missing, there are 'text,label'"),
    "two text columns": ("a.csv", "text,label,text\nx,1,y\n", "there are 2 columns named 'text', expected one"),
    "empty text": ("a.csv", HEAD + "\n ,0\n", "row 2 (line 4): 'text' is empty"),
    "empty label": ("a.csv", HEAD + '"a\nb",0\nc,\n', "row 3 (line 5): 'label' is empty"),
    "short row": ("a.csv", HEAD + "bad\n", "row 2 (line 3): expected 2 fields, as there are columns, got 1"),
    "long row": ("a.csv", HEAD + "bad, very bad,0\n", "row 2 (line 3): expected 2 fields, as there are columns, got 3"),
    "open quote": ("a.csv", HEAD + '"bad,0\nworse,0\n', "row 2 (line 3): not well-formed (unexpected end of data)"),
    "half quote": ("a.csv", HEAD + '"bad" film,0\n', "row 2 (line 3): not well-formed (',' expected after '\"')"),
    "broken names": ("a.csv", '"text" x,label\n', "the names of the columns (line 1): not well-formed"),
    "utf-8": ("a.csv", HEAD.encode() + b"ok,1\nna\xefve,0\n", "row 3 (line 4): byte 0xef (byte 26 of the file) is not"),
    "utf-8 at once": ("a.csv", HEAD.encode() + b"\xff,0\n", "row 2 (line 3): byte 0xff (byte 19 of the file) is not"),
    "utf-8, BOM": ("a.csv", b"\xef\xbb\xbf" + HEAD.encode() + b"\xff,0\n", "row 2 (line 3): byte 0xff (byte 22 of the"),
    "utf-8, names": ("a.csv", b"t\xe9xt,label\n", "the names of the columns (line 1): byte 0xe9 (byte 2 of the file)"),
    "utf-8, quoted": (
        "a.csv",
        HEAD.encode() + b'"a\n\xff",0\n',
        "row 2 (line 4): byte 0xff (byte 22 of the file) is not",
    ),
    "utf-8, jsonl": ("a.jsonl", b"\n" + LINE.encode() + b'{"text": "\xff"}', "row 2 (line 3): byte 0xff (byte 41 of"),
    "utf-8, cut short": (
        "a.csv",
        HEAD.encode() + "é".encode()[:1],
        "row 2 (line 3): byte 0xc3 (byte 19 of the file) is",
    ),
    "utf-16": (
        "a.csv",
        HEAD.encode("utf-16"),
        "the names of the columns (line 1): the file is in UTF-16, save it as UTF-8",
    ),
    "nul": ("a.csv", HEAD + "b\0d,0\n", "row 2 (line 3): there is a NUL character"),
    "nul, jsonl": ("a.jsonl", LINE + "\0\n", "row 2 (line 2): there is a NUL character"),
    "one class": ("a.csv", HEAD + "bad, 1\n", "all 2 rows are labelled '1', expected at least two classes"),
    "one class, jsonl": ("a.jsonl", LINE, "all 1 rows are labelled '1', expected at least two classes"),
    "no json": ("a.jsonl", LINE + "{text: 1}\n", "row 2 (line 2): not JSON: Expecting property name"),
    "cut json": ("a.jsonl", LINE + '{"text": "a', "row 2 (line 2): not JSON: Unterminated string"),
    "two in a line": ("a.jsonl", "{} {}\n", "row 1 (line 1): not JSON: Extra data at column 4"),
    "json array": ("a.jsonl", "\n[1, 2]\n", "row 1 (line 2): expected an object, {...}, got [1, 2]"),
    "json number": ("a.jsonl", LINE + "7" * 10_000, "row 2 (line 2): "),
    "deep json": ("a.jsonl", "[" * 200_000, "row 1 (line 1): not usable JSON"),
    "no entry": (
        "a.jsonl",
        LINE + '{"text": "a", "x": 1}',
        "row 2 (line 2): the names: 'label' is missing, there are 'text', 'x'",
    ),
    "no entries": ("a.jsonl", LINE + "{}", "row 2 (line 2): the names: 'text' is missing, there are none"),
    "text number": ("a.jsonl", LINE + '{"text": 5, "label": 0}', "row 2 (line 2): 'text': expected a string, got 5"),
    "text null": (
        "a.jsonl",
        LINE + '{"text": null, "label": 0}',
        "row 2 (line 2): 'text': expected a string, got null",
    ),
    "label list": (
        "a.jsonl",
        LINE + '{"text": "a", "label": [0]}',
        "row 2 (line 2): 'label': expected a string, got [0]",
    ),
    "label float": (
        "a.jsonl",
        LINE + '{"text": "a", "label": 0.5}',
        "row 2 (line 2): 'label': expected a string, got 0.5",
    ),
    "surrogate": (
        "a.jsonl",
        LINE + '{"text": "\\ud800", "label": 0}',
        "row 2 (line 2): 'text': half of a surrogate pair",
    ),
    "empty text, jsonl": ("a.jsonl", LINE + '{"text": "\\n", "label": 0}', "row 2 (line 2): 'text' is empty"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD.values(), ids=BAD)
def test_bad_file(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        read_labelled(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv: there is no such file"):
        read_labelled(tmp_path / "nowhere.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"folder\.csv: cannot be read: Is a directory"):
        read_labelled(tmp_path / "folder.csv")


def test_one_column_for_two_things() -> None:
    with pytest.raises(DataError, match="text, label and group must be different columns, got 'text', 'text'"):
        read_labelled(TOY, label="text")


def test_many_columns_are_not_all_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", ",".join(f"column {number}" for number in range(1000)) + "\n")
    with pytest.raises(DataError, match=r"'text' is missing, there are 'column 0', .*'column 19', \.\.\.$"):
        read_labelled(path)


def test_lists_of_different_lengths() -> None:
    with pytest.raises(ValueError, match="labels: expected 2 entries, one for each text, got 1"):
        LabelledTexts(["a", "b"], ["x"])
    with pytest.raises(ValueError, match="groups: expected 1 entries, one for each text, got 2"):
        LabelledTexts(["a"], ["x"], ["g", "h"])


def numbered(count: int, groups: list[str] | None = None) -> LabelledTexts:
    return LabelledTexts([f"text {row}" for row in range(count)], ["ab"[row % 2] for row in range(count)], groups)


@pytest.mark.parametrize("held_out", [0.01, 0.2, 0.5, 0.99])
def test_split_holds_out_the_share_asked_for(held_out: float) -> None:
    data = numbered(100)
    train, test = split(data, held_out)
    assert len(test) == round(100 * held_out)
    assert sorted(train.texts + test.texts) == sorted(data.texts)
    rows = [int(text.split()[1]) for text in test.texts]
    assert rows == sorted(rows)
    assert test == data.select(rows)


def test_split_depends_on_the_seed_and_not_on_the_order() -> None:
    data = numbered(100)
    held = set(split(data)[1].texts)
    assert set(split(data.select(range(99, -1, -1)))[1].texts) == held
    assert set(split(data, seed=1)[1].texts) != held


def test_split_keeps_the_same_text_together() -> None:
    texts = [text for number in range(50) for text in (f"Text {number}", f" text  {number}\n")]
    train, test = split(LabelledTexts(texts, ["a", "b"] * 50), 0.3)
    assert len(test) == 30
    assert not {text.split()[1] for text in train.texts} & {text.split()[1] for text in test.texts}


def test_split_keeps_groups_together_and_those_that_share_a_text() -> None:
    data = numbered(200, [f"group {row // 8}" for row in range(200)])
    data.texts[0] = data.texts[8] = data.texts[16] = "the same"  # joins groups 0, 1 and 2
    for seed in range(20):
        train, test = split(data, 0.2, seed)
        assert train.groups is not None
        assert test.groups is not None
        assert not set(train.groups) & set(test.groups)
        assert not set(train.texts) & set(test.texts)
        assert len(test) == 40
        assert len({"group 0", "group 1", "group 2"} & set(test.groups)) in (0, 3)


def test_split_of_few_large_groups() -> None:
    train, test = split(numbered(10, ["big"] * 7 + ["small"] * 3), 0.1)
    assert (len(train), len(test)) == (7, 3)
    train, test = split(numbered(2), 0.9)
    assert (len(train), len(test)) == (1, 1)


@pytest.mark.parametrize(
    "data", [numbered(5, ["g"] * 5), LabelledTexts(["a", "A "], ["x", "y"]), LabelledTexts([], [])]
)
def test_split_of_what_hangs_together(data: LabelledTexts) -> None:
    with pytest.raises(DataError, match="no part can be held out"):
        split(data)


@pytest.mark.parametrize("held_out", [0, 1, -0.1, 1.5, float("nan")])
def test_split_refuses_a_share(held_out: float) -> None:
    with pytest.raises(ValueError, match=f"held_out: expected a number between 0 and 1, got {held_out}"):
        split(numbered(10), held_out)
