"""The card of a model: README.md in its directory, of what is written in the other files. Nobody has to edit it.

The header is the one that the Hugging Face hub reads, https://huggingface.co/docs/hub/model-cards.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from textclf_fast import __version__
from textclf_fast.judging.evaluations import EVALUATIONS, Evaluations, described_part, evaluation_record
from textclf_fast.judging.judgement import Judgement
from textclf_fast.training import SavedModel

CARD = "README.md"

_FEW_TEXTS = 10  # of a class: what is learnt of so few is more chance than rule
_ABOUT = {"lstm": "an LSTM", "mlp": "a perceptron on the bag of words", "multi": "encoders of several inputs"}
_TASK = {"type": "text-classification", "name": "Text classification"}


def card_files(name: str, saved: SavedModel, evaluations: Evaluations) -> dict[str, str]:
    """The files for a model's directory, by name: the evaluations, and the card.

    Args:
        name: of the model.
        saved: it, and what was saved with it; `textclf-fast train` has ``source``, ``start``, ``options``, ``epochs``
            and ``machine`` in ``extra``, all of which may be missing.
        evaluations: the newest last.
    """
    texts = json.dumps(evaluations, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    return {EVALUATIONS: texts, CARD: model_card(name, saved, evaluations)}


def first_card_files(name: str, saved: SavedModel, held_out: Judgement) -> dict[str, str]:
    """Those of a model that was trained just now: `held_out` is about the part that its ``source`` says."""
    source = saved.extra["source"]
    record = evaluation_record(
        held_out, source["file"], "held-out", source["sha256"], source["held_out_share"], source["group"]
    )
    return card_files(name, saved, [record])


def model_card(name: str, saved: SavedModel, evaluations: Evaluations) -> str:
    """The text of the card; arguments as of :func:`card_files`."""
    source, extra = saved.extra.get("source", {}), saved.extra
    parts = [
        _header(name, evaluations),
        f"# {_cell(name)}\n\n"
        f"Puts texts into {len(saved.labels)} classes, {_names(saved.labels)}, by {_ABOUT[saved.model.kind]} of "
        f"textclf_fast. Written by textclf_fast {__version__}.",
        f'```python\nimport textclf_fast\n\ntextclf_fast.load({json.dumps(name)}).predict(["a text"])\n```',
        *_section("Data", _data(source)),
        *_section("Model", [_pairs(_model(saved))]),
        *_section("Training", _training(extra)),
        *_section("Results", _results(evaluations, saved.temperature)),
        *_section("Made on", _made_on(extra, source)),
        *_section("Limits", ["\n".join(f"- {limit}" for limit in _limits(extra, source, evaluations))]),
    ]
    return "\n\n".join(parts) + "\n"


def _header(name: str, evaluations: Evaluations) -> str:
    """In YAML, of which JSON is a part."""
    results = [
        {
            "task": _TASK,
            "dataset": {"type": found["data"], "name": f"{found['data']} ({described_part(found)})"},
            "metrics": [
                {"type": "accuracy", "value": round(found["accuracy"], 4)},
                {"type": "f1", "name": "macro-F1", "value": round(found["macro_f1"], 4)},
            ],
        }
        for found in evaluations
    ]
    entries: dict[str, Any] = {
        "library_name": "textclf_fast",
        "pipeline_tag": "text-classification",
        "tags": ["text-classification"],
    }
    if results:
        entries["model-index"] = [{"name": name, "results": results}]
    lines = (f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in entries.items())
    return "\n".join(["---", *lines, "---"])


def _data(source: Mapping[str, Any]) -> list[str]:
    if not source:
        return []
    rows = {
        "file or data set": source["file"],
        "texts": f"{source['texts']:,}, {source['characters']:,} characters",
        "sha256 of texts and labels": f"`{source['sha256']}`",
        "columns": ", ".join(f"{kind} `{source[kind]}`" for kind in ("text", "label", "group") if source[kind]),
        "split": f"{sum(source['train'].values()):,} to train on, {sum(source['held_out'].values()):,} held out "
        f"(asked for: {source['held_out_share']:g}); by a hash of the text"
        + (" and the group: no group is in both" if source["grouped"] else ": equal texts are in one part"),
    }
    classes = sorted(source["train"].keys() | source["held_out"].keys())
    counts = [(name, source["train"].get(name, 0), source["held_out"].get(name, 0)) for name in classes]
    return [_pairs(rows), _table(("class", "to train on", "held out"), counts)]


def _model(saved: SavedModel) -> dict[str, Any]:
    sizes = {key: value for key, value in saved.model.config.items() if key not in ("inputs", "sparse", "batch_first")}
    parameters = sum(parameter.numel() for parameter in saved.model.parameters())
    return {
        "kind": saved.model.kind,
        "parameters": f"{parameters:,}",
        **sizes,
        "tokenizer": saved.tokenizer.config["kind"],
        **({"temperature of the probabilities": f"{saved.temperature:.4g}"} if saved.temperature != 1 else {}),
    }


def _training(extra: Mapping[str, Any]) -> list[str]:
    found = []
    if epochs := extra.get("epochs"):
        best = max(range(len(epochs)), key=lambda number: epochs[number]["held_out"]["accuracy"])
        found.append(
            f"{len(epochs)} epochs, {sum(epoch['seconds'] for epoch in epochs):,.1f} s of training; the highest "
            f"accuracy on the held-out texts after epoch {best + 1}."
        )
    for key in ("start", "options", "training"):  # what it began with; options of train; of autotune
        if isinstance(extra.get(key), Mapping) and extra[key]:
            found.append(_pairs(extra[key]))
    return found


def _results(evaluations: Evaluations, temperature: float) -> list[str]:
    if not evaluations:
        return []
    newest = evaluations[-1]
    columns = ("data", "part", "texts", "accuracy", "macro-F1", "cross-entropy", "calibration error")
    keys = ("accuracy", "macro_f1", "loss", "calibration_error")
    rows = [
        (found["data"], described_part(found), f"{found['texts']:,}", *(_decimals(found.get(key)) for key in keys))
        for found in evaluations
    ]
    classes = [
        (each["label"], *(_decimals(each[key]) for key in ("precision", "recall", "f1")), f"{each['support']:,}")
        for each in newest["classes"]
    ]
    others = [each for each in evaluations if each.get("temperature", 1) != temperature]
    names = ", ".join(_cell(f"{each['data']} ({described_part(each)})") for each in others)
    stale = f"Cross-entropy and calibration error were measured at another temperature than the model's: {names}."
    return [
        _table(columns, rows),
        *([stale] if others else []),
        f"The calibration error is the expected one, in 15 bins (Guo et al. 2017). By class, on {newest['data']} "
        f"({described_part(newest)}):",
        _table(("class", "precision", "recall", "F1", "texts"), classes),
        *(f"![{picture.removesuffix('.png')}]({picture})" for picture in newest["pictures"]),
    ]


def _made_on(extra: Mapping[str, Any], source: Mapping[str, Any]) -> list[str]:
    rows = dict(extra.get("machine", {}))
    if source.get("commit"):
        rows["commit of the working directory"] = f"`{source['commit']}`"
    return [_pairs(rows)] if rows else []


def _limits(extra: Mapping[str, Any], source: Mapping[str, Any], evaluations: Evaluations) -> list[str]:
    found = [
        "What was measured holds for texts like those it was measured on: other sources, times and lengths were not.",
        "Each text gets one of the classes, also one that is of none of them.",
        "Tokens outside of the vocabulary are all the same to it.",
    ]
    chosen = extra.get("options", {}).get("keep") == "best" and len(extra.get("epochs", ())) > 1
    if chosen and any(each["part"] == "held-out" for each in evaluations):
        found.append("The epoch was chosen on the held-out texts, so that what was measured on them is a little high.")
    few = [name for name, count in source.get("train", {}).items() if count < _FEW_TEXTS]
    none = [name for name in source.get("held_out", {}) if name not in source.get("train", {})]
    if few or none:
        found.append(f"There were fewer than {_FEW_TEXTS} texts to train on of {_names([*few, *none])}.")
    return found


def _section(title: str, parts: Sequence[str]) -> list[str]:
    """Nothing where there is nothing to say."""
    return [f"## {title}", *parts] if parts else []


def _pairs(rows: Mapping[str, Any]) -> str:
    return _table(("", ""), [(key.replace("_", " "), _value(value)) for key, value in rows.items()])


def _value(value: Any) -> Any:
    """A record within a record as one line."""
    return ", ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, Mapping) else value


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(map(_cell, row)) + " |" for row in rows)])


def _cell(value: Any) -> str:
    """One line, in which a name's own signs mean nothing."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def _names(labels: Sequence[str], most: int = 10) -> str:
    return ", ".join(_cell(label) for label in labels[:most]) + (", ..." if len(labels) > most else "")


def _decimals(number: float | None) -> str:
    return "-" if number is None else f"{number:.4f}"
