"""What was found about a model, kept in its directory: a list of records in evaluations.json, the newest last."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from textclf_fast.judging.judgement import Judgement
from textclf_fast.text import DataError

EVALUATIONS = "evaluations.json"
Part = Literal["all", "train", "held-out"]
Evaluations = list[dict[str, Any]]


def evaluation_record(judgement: Judgement, data: str, part: Part, sha256: str) -> dict[str, Any]:
    """A judgement, and what it is about.

    Args:
        judgement: what was found.
        data, part: the file or data set, and which of its texts.
        sha256: the fingerprint of all of them.
    """
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {"data": data, "part": part, "sha256": sha256, "time": now, "pictures": [], **judgement.record()}


def add_evaluation(evaluations: Sequence[dict[str, Any]], new: dict[str, Any]) -> Evaluations:
    """With the new one at the end, in place of an earlier one of the same texts."""
    about = ("data", "part", "sha256")
    return [old for old in evaluations if any(old.get(name) != new[name] for name in about)] + [new]


def read_evaluations(directory: Path) -> Evaluations:
    """Those in a model's directory; none where there is no file.

    Raises:
        DataError: the file is not a list of records.
    """
    path = directory / EVALUATIONS
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(found, list) or not all(isinstance(record, dict) and "accuracy" in record for record in found):
        raise DataError(f"{path}: expected a list of evaluations, [{{...}}, ...]")
    return found
