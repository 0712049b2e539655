from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import textclf_fast
from textclf_fast.text import LabelledTexts, read_labelled, split
from textclf_fast.training import load_model

TOY = Path(__file__).parents[1] / "text" / "toy.csv"


@pytest.fixture
def own(model: Path, tmp_path: Path) -> Path:
    """A copy of the model, to be written to."""
    shutil.copytree(model, tmp_path / "own")
    return tmp_path / "own"


def accuracy(model: Path, rows: Any) -> float:
    predicted = textclf_fast.load(model).predict(rows.texts)
    return sum(map(str.__eq__, predicted, rows.labels)) / len(rows)


def test_train_writes_the_card(run: Any, model: Path) -> None:
    card = (model / "README.md").read_text()
    held_out = split(read_labelled(TOY))[1]
    assert f"| {TOY} | held-out, 0.2 | 40 | {accuracy(model, held_out):.4f} |" in card
    assert json.loads((model / "evaluations.json").read_text())[0]["texts"] == 40
    for section in ("Data", "Model", "Training", "Results", "Made on", "Limits"):
        assert f"\n## {section}\n" in card


def test_of_the_file_it_was_trained_on_the_part_held_out(run: Any, own: Path) -> None:
    ran = run("evaluate", "own", TOY)
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    wanted = accuracy(own, split(read_labelled(TOY))[1])
    assert lines[0] == f"{TOY} (held-out): 40 texts"
    assert lines[1].startswith(f"accuracy {wanted:.2%} (so is micro-F1), macro-F1 0.")
    assert lines[2].startswith("expected calibration error 0.")
    assert lines[3].startswith("finding 'positive': area under the ROC curve 0.")
    assert [line.split()[1] for line in lines if "│" in line] == ["negative", "positive"]
    assert lines[-1] == f"written: {Path('own') / 'README.md'}"
    assert "note" not in ran.out


def test_of_another_file_all(run: Any, own: Path, tmp_path: Path) -> None:
    """Even where its texts are of one class; the card then has both."""
    good = [text for text, label in zip(*_toy(), strict=True) if label == "positive"][:20]
    (tmp_path / "good.jsonl").write_text("".join(f"{json.dumps({'text': t, 'label': 'positive'})}\n" for t in good))
    ran = run("evaluate", "own", "good.jsonl", "--json")
    assert (ran.status, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert (found["part"], found["texts"], found["notes"]) == ("all", 20, [])
    assert found["accuracy"] == found["micro_f1"] == found["classes"][1]["recall"]
    assert found["classes"][0]["recall"] is None
    assert sum(map(sum, found["confusion"])) == 20
    assert "roc_area" not in found
    card = (own / "README.md").read_text()
    assert f"| {TOY} | held-out, 0.2 |" in card
    assert "| good.jsonl | all | 20 |" in card


def _toy() -> tuple[list[str], list[str]]:
    data = read_labelled(TOY)
    return data.texts, data.labels


def test_what_the_model_has_seen_is_said(run: Any, own: Path, tmp_path: Path) -> None:
    seen = "note: the model was trained on some of these texts: what is measured is too high\n"
    assert seen in run("evaluate", "own", TOY, "--part", "all").out
    assert seen in run("evaluate", "own", TOY, "--held-out", 0.5).out
    (tmp_path / "half.csv").write_text("".join(TOY.read_text().splitlines(keepends=True)[:150]))
    ran = run("evaluate", "own", "half.csv", "--part", "held-out")
    assert "note: it is not known that the model was trained without these texts\n" in ran.out


def test_columns_are_those_it_was_trained_with(run: Any, tmp_path: Path) -> None:
    texts, labels = _toy()
    rows = [{"body": t, "mark": m, "source": str(n // 4)} for n, (t, m) in enumerate(zip(texts, labels, strict=True))]
    (tmp_path / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = ("--text", "body", "--label", "mark", "--group", "source", "--held-out", 0.4)
    sizes = ("--embedding-dim", 8, "--hidden-dim", 8, "--epochs", 1)
    trained = json.loads(run("train", "notes.jsonl", "--out", "model", *columns, *sizes, "--json").out)
    found = json.loads(run("evaluate", "model", "notes.jsonl", "--json").out)
    assert (found["texts"], found["notes"]) == (sum(trained["source"]["held_out"].values()), [])
    assert (found["accuracy"], found["macro_f1"]) == (trained["accuracy"], trained["macro_f1"])


def test_pictures(run: Any, own: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    ran = run("evaluate", "own", TOY, "--output", "pictures")
    names = ["confusion.png", "curves.png", "learning.png", "reliability.png"]
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == names
    for name in names:
        assert f"written: {Path('pictures') / name}\n" in ran.out
    assert ".png" not in (own / "README.md").read_text()
    assert run("evaluate", "own", TOY, "--output", "own").status == 0
    assert "![confusion](confusion.png)" in (own / "README.md").read_text()
    assert run("evaluate", "own", TOY).status == 0
    assert ".png" not in (own / "README.md").read_text(), "they are of an earlier evaluation"
    assert run("train", TOY, "--out", "own", "--overwrite", "--epochs", 1).status == 0


def test_the_card_is_left_alone(run: Any, own: Path) -> None:
    before = {path: path.read_bytes() for path in own.iterdir()}
    (own / "evaluations.json").write_text("broken")
    ran = run("evaluate", "own", TOY, "--no-card")
    assert (ran.status, "written" in ran.out) == (0, False)
    (own / "evaluations.json").write_bytes(before[own / "evaluations.json"])
    assert {path: path.read_bytes() for path in own.iterdir()} == before


def test_another_column_of_groups_is_another_split(run: Any, tmp_path: Path) -> None:
    """Then some of the texts held out are among those that the model was trained on."""
    rows = [
        {"text": text, "label": label, "source": str(number // 4)}
        for number, (text, label) in enumerate(zip(*_toy(), strict=True))
    ]
    (tmp_path / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run("train", "notes.jsonl", "--out", "model", "--embedding-dim", 8, "--hidden-dim", 8, "--epochs", 1)
    same = json.loads(run("evaluate", "model", "notes.jsonl", "--no-card", "--json").out)
    other = json.loads(run("evaluate", "model", "notes.jsonl", "--no-card", "--json", "--group", "source").out)
    assert same["notes"] == []
    assert other["notes"] == ["the model was trained on some of these texts: what is measured is too high"]
    args = ("baseline", "notes.jsonl", "--model", "model", "--epochs", 1, "--json", "--group", "source")
    assert json.loads(run(*args).out)["notes"] == ["it is not known that model was trained without the texts held out"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("text,label\na,positive\nb,furious\n", "file.csv: row 2 (line 3): label 'furious' is none of the 2 known"),
        ("text,label\n", "file.csv: there are no rows"),
        ("", "file.csv"),
        ("words,label\na,positive\n", "'text'"),
        ("text,label\n,positive\n", "row 1 (line 2): 'text' is empty"),
    ],
)
def test_bad_files(run: Any, own: Path, tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "file.csv").write_text(content)
    before = {path: path.read_bytes() for path in own.iterdir()}
    for command in ("evaluate", "calibrate"):
        ran = run(command, "own", "file.csv")
        assert (ran.status, ran.out) == (2, "")
        assert ran.err.startswith("error: ")
        assert ran.err.count("\n") == 1
        assert words in ran.err
    assert {path: path.read_bytes() for path in own.iterdir()} == before


def test_a_data_set_of_other_classes(run: Any, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reviews = LabelledTexts(["a", "b", "c"], ["positive", "rotten", "fresh"])
    monkeypatch.setattr("textclf_fast.text.load_dataset", lambda name: reviews)
    ran = run("evaluate", "own", "rt")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == "error: rt: label 'fresh' is none of the 2 that the model knows\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nowhere", TOY], "nowhere: there is no such directory"),
        ([".", TOY], "not a model"),
        (["own", "nothing.csv"], "nothing.csv: there is no such file"),
        (["own", TOY, "--part", "some"], "--part"),
        (["own", TOY, "--held-out", "2"], "between 0 and 1"),
    ],
)
def test_wrong_usage(run: Any, own: Path, args: list[Any], words: str) -> None:
    ran = run("evaluate", *args)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert words in ran.err


def test_without_matplotlib_it_says_what_to_install(run: Any, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ran = run("evaluate", "own", TOY, "--output", "pictures")
    assert ran.status == 2
    assert "pip install 'textclf_fast[report]'" in ran.err


def test_calibrated_once_and_again(run: Any, own: Path) -> None:
    texts = _toy()[0]
    plain = textclf_fast.load(own).predict_proba(texts)
    ran = run("calibrate", "own", TOY)
    assert (ran.status, ran.err) == (0, "")
    temperature = load_model(own).temperature
    assert ran.out.splitlines()[1].startswith(f"temperature {temperature:.4f}: expected calibration error 0.")
    assert not 0.99 < temperature < 1.01
    card = (own / "README.md").read_text()
    assert f"| temperature of the probabilities | {temperature:.4g} |" in card
    assert f"at another temperature than the model's: {TOY} (held-out, 0.2)." in card
    calibrated = textclf_fast.load(own).predict_proba(texts)
    wanted = plain ** (1 / temperature)
    assert calibrated == pytest.approx(wanted / wanted.sum(axis=1, keepdims=True), abs=1e-5)
    again = json.loads(run("calibrate", "own", TOY, "--json").out)
    assert again["temperature"] == pytest.approx(temperature, rel=1e-4)
    ran = run("evaluate", "own", TOY)
    assert f" ({again['calibration_error_before']:.4f} without the temperature, {temperature:.3g})\n" in ran.out
    assert "note: the temperature was fitted to texts of this file" in ran.out
    assert "another temperature" not in (own / "README.md").read_text()


def test_a_model_without_a_card_gets_none(run: Any, own: Path) -> None:
    (own / "evaluations.json").unlink()
    (own / "README.md").write_text("of my own")
    assert run("calibrate", "own", TOY).status == 0
    assert (own / "README.md").read_text() == "of my own"
    assert not (own / "evaluations.json").exists()


def test_another_share_or_column_of_groups_is_another_evaluation(run: Any, own: Path) -> None:
    for share in (0.2, 0.5, 0.2):
        run("evaluate", "own", TOY, "--held-out", share)
    found = json.loads((own / "evaluations.json").read_text())
    assert [(each["held_out_share"], each["group"]) for each in found] == [(0.5, None), (0.2, None)]


def test_one_text_is_too_few_to_calibrate(run: Any, own: Path, tmp_path: Path) -> None:
    (tmp_path / "file.csv").write_text("text,label\na,positive\n")
    ran = run("calibrate", "own", "file.csv")
    assert ran.status == 2
    assert "file.csv: there is one text, expected at least two" in ran.err
    assert load_model(own).temperature == 1
