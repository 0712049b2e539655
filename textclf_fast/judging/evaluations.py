"""What was found about a model, kept in its directory: a list of records in evaluations.json, the newest last."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal

from textclf_fast.judging.judgement import Judgement
from textclf_fast.text import DataError

EVALUATIONS = "evaluations.json"
Part = Literal["all", "train", "held-out"]
Evaluations = list[dict[str, Any]]

_NUMBER = (int, float)
_SCORE = (*_NUMBER, NoneType)
# What the card reads.
_ENTRIES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("data", "part"), (str,)),
    "texts": (int,),
    **dict.fromkeys(("accuracy", "macro_f1"), _NUMBER),
    **dict.fromkeys(("loss", "calibration_error", "held_out_share", "temperature"), _SCORE),
    "group": (str, NoneType),
    **dict.fromkeys(("pictures", "classes"), (list,)),
}
_CLASS_ENTRIES: dict[str, tuple[type, ...]] = {
    "label": (str,),
    **dict.fromkeys(("precision", "recall", "f1"), _SCORE),
    "support": (int,),
}


def evaluation_record(
    judgement: Judgement, data: str, part: Part, sha256: str, share: float | None, group: str | None
) -> dict[str, Any]:
    """A judgement, and what it is about.

    Args:
        judgement: what was found.
        data, part: the file or data set, and which of its texts.
        sha256: the fingerprint of all of them.
        share, group: that was held out, and the column of the groups that were kept together; None where all count.
    """
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    about = {"data": data, "part": part, "sha256": sha256, "held_out_share": share, "group": group}
    return {**about, "time": now, "pictures": [], **judgement.record()}


def add_evaluation(evaluations: Sequence[dict[str, Any]], new: dict[str, Any]) -> Evaluations:
    """With the new one at the end, in place of an earlier one of the same texts."""
    about = ("data", "part", "sha256", "held_out_share", "group")
    return [old for old in evaluations if any(old.get(name) != new[name] for name in about)] + [new]


def described_part(evaluation: Mapping[str, Any]) -> str:
    """Which of the texts: "all", "held-out, 0.2", "held-out, 0.2, by shop"."""
    share, group = evaluation.get("held_out_share"), evaluation.get("group")
    return evaluation["part"] + (f", {share:g}" if share else "") + (f", by {group}" if group else "")


def read_evaluations(directory: Path) -> Evaluations:
    """Those in a model's directory; none where there is no file.

    Raises:
        DataError: the file is not a list of records.
    """
    path = directory / EVALUATIONS
    try:
        found = json.loads(path.read_bytes(), parse_constant=_refuse)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(found, list):
        raise DataError(f"{path}: expected a list of evaluations, [{{...}}, ...]")
    for place, record in enumerate(found):
        if wrong := _wrong(record):
            raise DataError(f"{path}: evaluation {place}: {wrong}")
    return found


def _wrong(record: Any) -> str | None:
    """What is wrong with one."""
    if wrong := _wrong_entry(record, _ENTRIES):
        return wrong
    for score in record["classes"]:
        if wrong := _wrong_entry(score, _CLASS_ENTRIES):
            return f"classes: {wrong}"
    for picture in record["pictures"]:
        if not isinstance(picture, str):
            return f"pictures: expected names, got {picture!r:.50}"
    return None


def _wrong_entry(record: Any, entries: Mapping[str, tuple[type, ...]]) -> str | None:
    if not isinstance(record, dict):
        return f"expected an object, got {record!r:.50}"
    for name, types in entries.items():
        value = record.get(name)
        if type(value) not in types:
            kinds = " or ".join("null" if each is NoneType else each.__name__ for each in types)
            return f"{name}: expected {kinds}, got {value!r:.50}"
    return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")
