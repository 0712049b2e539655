from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import textclf_fast
from textclf_fast.text import read_labelled, split

TOY = Path(__file__).parents[1] / "text" / "toy.csv"


def test_beside_a_model(run: Any, model: Path) -> None:
    ran = run("baseline", TOY, "--model", model, "--epochs", 15, "--json")
    assert (ran.status, ran.err) == (0, "")
    found = json.loads(ran.out)
    train, held_out = split(read_labelled(TOY))
    assert (found["train"], found["held_out"], found["notes"]) == (160, 40, [])
    commonest, regression, wide, own = found["rows"]
    commonest_label = max(train.classes, key=train.labels.count)
    assert commonest["accuracy"] == held_out.labels.count(commonest_label) / 40
    assert regression["accuracy"] >= 0.7
    assert wide["accuracy"] >= 0.7
    predicted = textclf_fast.load(model).predict(held_out.texts)
    assert (own["name"], own["accuracy"]) == (str(model), sum(map(str.__eq__, predicted, held_out.labels)) / 40)
    assert all(row["seconds"] > 0 for row in found["rows"])


def test_a_table_for_people(run: Any) -> None:
    ran = run("baseline", TOY, "--epochs", 1, "--tokenizer", "character")
    assert (ran.status, ran.err) == (0, "")
    rows = [line for line in ran.out.splitlines() if "│" in line]
    for name, row in zip(("commonest class", "TF-IDF + regression", "wide perceptron"), rows, strict=True):
        assert name in row
    assert "200 texts, 2 classes; 160 to train on, 40 held out" in ran.out


def test_a_model_that_may_know_the_texts_held_out(run: Any, model: Path) -> None:
    notes = json.loads(run("baseline", TOY, "--model", model, "--held-out", 0.5, "--epochs", 1, "--json").out)["notes"]
    assert notes == [f"it is not known that {model} was trained without the texts held out"]


def test_a_class_that_there_is_no_text_of_to_train_on(run: Any, tmp_path: Path) -> None:
    """The only text of the third class is held out."""
    rows = [(f"text {number} {'good' if number % 2 else 'bad'}", str(number % 2)) for number in range(30)]
    held_out = split(read_labelled(_write(tmp_path, rows)))[1]
    rows = [(text, "rare" if text == held_out.texts[0] else label) for text, label in rows]
    ran = run("baseline", _write(tmp_path, rows), "--epochs", 1, "--json")
    assert (ran.status, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert found["notes"] == ["the texts to train on have none labelled 'rare'"]
    assert found["rows"][1]["loss"] is None, "its probability is 0"


def _write(folder: Path, rows: list[tuple[str, str]]) -> Path:
    path = folder / "file.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    return path


def test_without_scikit_learn_the_others(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.setitem(sys.modules, name, None)
    found = json.loads(run("baseline", TOY, "--epochs", 1, "--json").out)
    assert [row["name"] for row in found["rows"]] == ["commonest class", "wide perceptron"]
    assert "TF-IDF + regression needs scikit-learn: pip install 'textclf_fast[sklearn]'" in found["notes"][0]


def test_a_model_of_other_classes(run: Any, model: Path, tmp_path: Path) -> None:
    rows = [(f"text {number}", ("yes", "no")[number % 2]) for number in range(30)]
    ran = run("baseline", _write(tmp_path, rows), "--model", model, "--epochs", 1)
    assert ran.status == 2
    assert ran.err.endswith("label 'no' is none of the 2 that the model knows\n")
    assert ran.err.count("\n") == 1
