"""The accuracy benchmark: its metrics, its record, and that its commands are some that the program has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer.main

from benchmarks.classification import ROWS, Row, _values, _write
from textclf_fast.cli.app import app

TRUTH = ["ham", "ham", "spam", "spam", "spam"]
PREDICTED = ["ham", "spam", "spam", "spam", "ham"]


def test_metrics() -> None:
    assert Row("sms", "any", "", 0.9).measure(TRUTH, PREDICTED) == pytest.approx(3 / 5)
    row = Row("sms", "any", "", 0.9, f1_of="spam")
    assert row.metric == "F1 of spam"
    assert row.measure(TRUTH, PREDICTED) == pytest.approx(2 / 3)  # precision and recall both


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.data}-{row.model}")
def test_commands_are_of_the_program(row: Row) -> None:
    train = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
    known = {option for parameter in train.params for option in parameter.opts}
    assert set(re.findall(r"--[a-z-]+", row.command)) <= known


def test_record_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "classification.json"
    first, *_, last = ROWS
    machines = ({"CPU": name} for name in "abc")
    monkeypatch.setattr("benchmarks.classification.describe_machine", lambda: next(machines))
    for row, seed, value in ((last, 0, 0.5), (first, 0, 0.7), (last, 1, 0.6)):
        _write(path, row, seed, value)
    rows = json.loads(path.read_text())["rows"]
    assert [(row["data"], row["model"]) for row in rows] == [(row.data, row.model) for row in (first, last)]
    assert rows[1]["values"] == {"0": 0.5, "1": 0.6} == _values(path, last)
    assert rows[1]["mean"] == pytest.approx(0.55)
    assert rows[1]["machines"] == {"0": {"CPU": "a"}, "1": {"CPU": "c"}}
    other = Row(last.data, last.model, "--seed 9", last.target)
    assert _values(path, other) == {}  # another command's figures are no seeds of this one


def test_record_of_a_row_that_is_no_more(tmp_path: Path) -> None:
    path = tmp_path / "classification.json"
    row = ROWS[0]
    gone = {"data": row.data, "model": "gone", "command": "textclf-fast train", "values": {"0": 0.4}}
    path.write_text(json.dumps({"rows": [gone]}))
    _write(path, row, 0, 0.7)
    assert [each["model"] for each in json.loads(path.read_text())["rows"]] == [row.model, "gone"]
