"""Labelled texts: reading them from a file, and splitting them without a leak."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from textclf_fast.text.errors import DataError
from textclf_fast.text.records import Record, records


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
    path: str | Path, text: str = "text", label: str = "label", group: str | None = None
) -> LabelledTexts:
    """Reads a .csv, .tsv (first line: the names of the columns) or .jsonl file (one object a line), in UTF-8.

    Args:
        path: The file; its suffix says what it is.
        text: Name of the column of the texts.
        label: Name of the column of the labels. White space around a label is dropped.
        group: Name of the column that says where a text is from, if there is one (see `LabelledTexts.groups`).

    Raises:
        DataError: The file cannot be read, is not what its suffix says, lacks a column, has an empty text, label or
            group, no rows, or a single class. The message is one line, with the row (1 is the first below the names)
            and the line.
    """
    path = Path(path)
    columns = [name for name in (text, label, group) if name is not None]
    if len(set(columns)) < len(columns):
        raise DataError(f"text, label and group must be different columns, got {', '.join(map(repr, columns))}")
    rows = [[_entry(path, record, name) for name in columns] for record in records(path, columns)]
    if not rows:
        raise DataError(f"{path}: there are no rows")
    texts, labels, *groups = (list(column) for column in zip(*rows, strict=True))
    data = LabelledTexts(texts, [entry.strip() for entry in labels], groups[0] if groups else None)
    if len(data.classes) < 2:
        raise DataError(f"{path}: all {len(data)} rows are labelled {data.classes[0]!r}, expected at least two classes")
    return data


def _entry(path: Path, record: Record, name: str) -> str:
    entry = record.entries[name]
    if not entry.strip():
        raise DataError(f"{path}: {record.place}: {name!r} is empty")
    return entry


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


def _clusters(data: LabelledTexts) -> dict[str, list[int]]:
    """The rows that must stay together: joined by a common group or text, directly or through others."""
    keys = [["text " + " ".join(text.split()).casefold()] for text in data.texts]
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
