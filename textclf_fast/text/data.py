"""Labelled texts: reading them from a file, and splitting them without a leak."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textclf_fast.text.errors import DataError
from textclf_fast.text.records import Record, check_names, record, records

_MOST_CLASSES = 10  # in a message


@dataclass(frozen=True)
class LabelledTexts:
    """Texts with their labels.

    Attributes:
        texts: The n texts.
        labels: The n labels.
        groups: Where each text is from (n), or None where nothing is known. Texts of one group resemble each other, so
            that one part of a split must hold all of them.

    Raises:
        ValueError: The lists differ in length.
    """

    texts: list[str]
    labels: list[str]
    groups: list[str] | None = None

    def __post_init__(self) -> None:
        for name, other in (("labels", self.labels), ("groups", self.groups)):
            if other is not None and len(other) != len(self.texts):
                raise ValueError(f"{name}: expected {len(self.texts)} entries, one for each text, got {len(other)}")

    @classmethod
    def from_lists(
        cls,
        texts: Iterable[str],
        labels: Iterable[str | int],
        groups: Iterable[str | int] | None = None,
        *,
        classes: Sequence[str] | None = None,
    ) -> LabelledTexts:
        """Texts and labels from lists, checked as those of a file are (the constructor takes them as they are).

        Args:
            texts, labels, groups: n each. A label or group may be a number or a truth value.
            classes: As in `read_labelled`.

        Raises:
            DataError: As `read_labelled`; the message names the row, 1 being the first.
            TypeError: A str was given for a list.
        """
        columns: dict[str, Iterable[Any]] = {"text": texts, "label": labels}
        if groups is not None:
            columns["group"] = groups
        return cls.from_columns(columns, group=None if groups is None else "group", classes=classes)

    @classmethod
    def from_columns(
        cls,
        columns: Any,
        text: str = "text",
        label: str = "label",
        group: str | None = None,
        *,
        classes: Sequence[str] | None = None,
    ) -> LabelledTexts:
        """Texts and labels from columns that can be had by name.

        Args:
            columns: One split of a Hugging Face data set, a pandas data frame, a pyarrow table, or a dict of lists.
                Numbers of classes become names where the data set's features name them.
            text, label, group, classes: As in `read_labelled`.

        Raises:
            DataError: As `read_labelled`; the message names the row, 1 being the first.
            TypeError: A str was given for a column.
        """
        wanted = _columns(text, label, group)
        check_names("the columns", list(getattr(columns, "column_names", columns)), wanted)
        features = getattr(columns, "features", None)
        class_names = getattr(features.get(label), "names", None) if isinstance(features, Mapping) else None
        lists = {name: _listed(name, columns[name]) for name in wanted}
        for name, entries in lists.items():
            if len(entries) != len(lists[text]):
                raise DataError(f"{name!r}: expected {len(lists[text])} entries, one for each text, got {len(entries)}")
        rows = (
            record(None, f"row {row}", dict(zip(wanted, entries, strict=True)), class_names)
            for row, entries in enumerate(zip(*lists.values(), strict=True), start=1)
        )
        return _collect("", rows, wanted, classes)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def classes(self) -> list[str]:
        """The distinct labels in alphabetical order."""
        return sorted(set(self.labels))

    def select(self, rows: Iterable[int]) -> LabelledTexts:
        """These rows alone, in this order."""
        rows = list(rows)
        groups = None if self.groups is None else [self.groups[row] for row in rows]
        return LabelledTexts([self.texts[row] for row in rows], [self.labels[row] for row in rows], groups)


def read_labelled(
    path: str | Path,
    text: str = "text",
    label: str = "label",
    group: str | None = None,
    *,
    classes: Sequence[str] | None = None,
) -> LabelledTexts:
    """Reads labelled texts from a file, in UTF-8.

    .csv and .tsv: the first line has the names of the columns. .jsonl: one object a line. .parquet: needs pyarrow
    (extra `data`). .ft and .txt: fastText's lines, `__label__good a text`; they have no columns, and no groups.

    Args:
        path: The file; its suffix says what it is.
        text: Name of the column of the texts.
        label: Name of the column of the labels. White space around a label is dropped.
        group: Name of the column that says where a text is from, if there is one (see `LabelledTexts.groups`).
        classes: The labels there may be: those of a model that is to be tested. A file may then have one class alone.

    Raises:
        DataError: The file cannot be read, is not what its suffix says, lacks a column, has an empty text, label or
            group, no rows, a single class, or a label that is none of `classes`. The message is one line, with the row
            (1 is the first below the names) and the line.
    """
    path = Path(path)
    columns = _columns(text, label, group)
    return _collect(f"{path}: ", records(path, columns), columns, classes)


def read_texts(path: str | Path, text: str = "text") -> Iterator[str]:
    """Reads texts without labels, one after the other: the file may be larger than memory. Empty ones are left out.

    .txt: one text a line. .ft: labels are dropped. The others as in `read_labelled`.

    Args:
        path: The file; its suffix says what it is.
        text: Name of the column of the texts.

    Raises:
        DataError: As `read_labelled`, when the place is reached.
    """
    return (row.entries[text] for row in records(Path(path), [text]) if row.entries[text].strip())


def _columns(text: str, label: str, group: str | None) -> list[str]:
    columns = [name for name in (text, label, group) if name is not None]
    if len(set(columns)) < len(columns):
        raise DataError(f"text, label and group must be different columns, got {', '.join(map(repr, columns))}")
    return columns


def _collect(
    where: str, rows: Iterable[Record], columns: Sequence[str], classes: Sequence[str] | None
) -> LabelledTexts:
    """Labelled texts of records that have these columns."""
    known = None if classes is None else set(classes)
    lists: list[list[str]] = [[] for _ in columns]
    for place, entries in rows:
        for name, column in zip(columns, lists, strict=True):
            if not entries[name].strip():
                raise DataError(f"{where}{place}: {name!r} is empty")
            column.append(entries[name])
        lists[1][-1] = label = lists[1][-1].strip()
        if known is not None and label not in known:
            raise DataError(f"{where}{place}: label {label!r} is none of the {len(known)} known: {_some(classes)}")
    texts, labels, *groups = lists
    if not texts:
        raise DataError(f"{where}there are no rows")
    data = LabelledTexts(texts, labels, groups[0] if groups else None)
    if known is None and len(data.classes) < 2:
        raise DataError(f"{where}all {len(data)} rows are labelled {labels[0]!r}, expected at least two classes")
    return data


def _listed(name: str, column: Any) -> list[Any]:
    if isinstance(column, str):
        raise TypeError(f"{name!r}: expected a list, got a str")
    return column.to_pylist() if hasattr(column, "to_pylist") else list(column)  # pyarrow's scalars are no str


def _some(classes: Sequence[str] | None) -> str:
    names = list(classes or ())
    return ", ".join(map(repr, names[:_MOST_CLASSES])) + (", ..." if len(names) > _MOST_CLASSES else "")


def split(data: LabelledTexts, held_out: float = 0.2, seed: int = 0) -> tuple[LabelledTexts, LabelledTexts]:
    """Splits into a part to train on and a part to test on, which share no group and no text.

    Texts that differ in white space or capital letters only count as one. The choice depends on the texts, the groups
    and `seed` alone, not on the order of the rows; classes are not balanced.

    Args:
        data: What to split.
        held_out: The share of the rows, between 0 and 1, to hold out. Groups stay whole, so it is met about.
        seed: Another one gives another split.

    Returns:
        The training part and the held-out part, each in the order of `data`.

    Raises:
        ValueError: `held_out` is not between 0 and 1.
        DataError: A part would be empty: all rows hang together.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out: expected a number between 0 and 1, got {held_out}")
    clusters = _clusters(data)
    if len(clusters) < 2:
        raise DataError("no part can be held out: all rows are of one group or have the same text")
    order = sorted(clusters, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode(errors="replace")).digest())
    wanted = max(1, round(held_out * len(data)))
    chosen: list[int] = []
    for name in order:
        if len(chosen) + len(clusters[name]) <= wanted:
            chosen += clusters[name]
    if not chosen:  # every cluster is larger than what is wanted
        chosen = min(clusters.values(), key=len)
    test = set(chosen)
    if len(test) == len(data):  # held_out close to 1
        test -= set(clusters[order[-1]])
    train_rows = [row for row in range(len(data)) if row not in test]
    return data.select(train_rows), data.select(sorted(test))


def same_text(text: str) -> str:
    """What texts have in common that differ in white space and case alone."""
    return " ".join(text.split()).casefold()


def _clusters(data: LabelledTexts) -> dict[str, list[int]]:
    """The rows that must stay together: joined by a common group or text, directly or through others."""
    keys = [["text " + same_text(text)] for text in data.texts]
    if data.groups is not None:
        for row, group in enumerate(data.groups):
            keys[row].append("group " + group)
    parent: dict[str, str] = {}  # a forest over the keys; the root of a tree is the least of its keys

    def root(key: str) -> str:
        while parent[key] != key:
            parent[key] = key = parent[parent[key]]
        return key

    for row_keys in keys:
        for key in row_keys:
            parent.setdefault(key, key)
        least, *others = sorted({root(key) for key in row_keys})
        for other in others:
            parent[other] = least
    clusters: dict[str, list[int]] = {}
    for row, row_keys in enumerate(keys):
        clusters.setdefault(root(row_keys[0]), []).append(row)
    return clusters
