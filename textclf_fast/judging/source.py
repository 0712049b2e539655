"""What a model was trained on, as it is written down with it."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections import Counter
from typing import Any

from textclf_fast.text import LabelledTexts


def describe_source(
    file: str,
    data: LabelledTexts,
    train: LabelledTexts,
    held_out: LabelledTexts,
    *,
    text: str,
    label: str,
    group: str | None,
    share: float,
) -> dict[str, Any]:
    """The entry ``source`` of a model's ``extra``.

    Args:
        file: the file, or the data set's name.
        data: all of it.
        train, held_out: its parts.
        text, label, group: the columns.
        share: that was to be held out.
    """
    return {
        "file": file,
        "text": text,
        "label": label,
        "group": group,
        "grouped": data.groups is not None,  # as a data set may be without a column named
        "texts": len(data),
        "characters": sum(map(len, data.texts)),
        "sha256": fingerprint(data),
        "held_out_share": share,
        "train": dict(sorted(Counter(train.labels).items())),
        "held_out": dict(sorted(Counter(held_out.labels).items())),
        "commit": working_commit(),
    }


def fingerprint(data: LabelledTexts) -> str:
    """The sha256 of the texts and labels in their order, whatever file they come from."""
    digest = hashlib.sha256()
    for row in zip(data.texts, data.labels, strict=True):
        digest.update((json.dumps(row) + "\n").encode())
    return digest.hexdigest()


def working_commit() -> str | None:
    """The commit of the git repository that holds the working directory, `-dirty` where files have changed."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
